"""`solo_client.adapters.cvat` against the real cvat-sdk and cvat-cli, which talk to a small fake of CVAT's REST API."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cvat_sdk
import cvat_sdk.auto_annotation as cvataa
import numpy as np
import pytest
from cvat_cli_process import annotate, cvat_cli
from cvat_sdk.auto_annotation.driver import _DetectionFunctionContextImpl
from cvat_sdk.masks import decode_mask
from fake_cvat import FUNCTION, TASK, FakeCvat, serving
from made_results import LABELS, random_masks, result_of, tiny_masks
from matplotlib.path import Path as PolygonPath
from numpy.typing import NDArray
from PIL import Image
from solo_client import InvalidArgument, Options, Result, SoloClient, SoloError
from solo_client.adapters.cvat import SoloFunction, create
from support.images import encoded, smooth_image
from support.paths import ASTRONAUT

ANY_SCORE = _DetectionFunctionContextImpl(frame_name="made.png")


@dataclass
class MadeSegmenter:
    """Answers with one result; keeps what it was asked."""

    result: Result
    max_concurrency: int = 1
    bodies: tuple[bytes, ...] = ()
    options: tuple[Options, ...] = ()

    def class_names(self) -> tuple[str, ...]:
        return LABELS

    def segment(self, body: bytes, options: Options) -> Result:
        self.bodies += (body,)
        self.options += (options,)
        return self.result

    def segment_and_draw(self, body: bytes, options: Options) -> tuple[Result, bytes]:
        raise NotImplementedError


def _function(segmenter: MadeSegmenter, tolerance: float = 0.0) -> SoloFunction:
    return SoloFunction(segmenter, 0.3, tolerance, ExitStack())


def _decoded(shape: Any, hw: tuple[int, int]) -> NDArray[np.bool_]:
    points = shape["points"]
    return decode_mask(list(points), image_width=hw[1], image_height=hw[0])


@pytest.mark.parametrize("masks", [tiny_masks(), random_masks(30, (61, 83), seed=5)], ids=["tiny", "random"])
def test_masks_that_cvat_decodes_are_ours_pixel_by_pixel(masks: NDArray[np.bool_]) -> None:
    hw = (masks.shape[1], masks.shape[2])
    shapes = _function(MadeSegmenter(result_of(masks))).detect(ANY_SCORE, Image.new("RGB", hw[::-1]))
    assert [shape.label_id for shape in shapes] == [number % 3 for number in range(len(masks))]
    np.testing.assert_array_equal([_decoded(shape, hw) for shape in shapes], masks)


def test_an_instance_without_pixels_is_left_out() -> None:
    masks = np.zeros((2, 4, 6), np.bool_)
    masks[1, 2, 3] = True
    shapes = _function(MadeSegmenter(result_of(masks))).detect(ANY_SCORE, Image.new("RGB", (6, 4)))
    assert [shape.points for shape in shapes] == [[0, 1, 3, 2, 3, 2]]


def test_cvats_threshold_comes_before_the_functions_own() -> None:
    segmenter = MadeSegmenter(result_of(tiny_masks()))
    for threshold in (None, 0.0, 0.7):
        context = _DetectionFunctionContextImpl(frame_name="made.png", conf_threshold=threshold)
        _function(segmenter).detect(context, Image.new("RGB", (7, 5)))
    assert [options["score_threshold"] for options in segmenter.options] == [0.3, 0.0, 0.7]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "YCbCr", "F"])
def test_a_frame_of_any_mode_is_sent_as_png(mode: str) -> None:
    segmenter = MadeSegmenter(result_of(tiny_masks()))
    _function(segmenter).detect(ANY_SCORE, Image.new(mode, (7, 5)))
    assert Image.open(io.BytesIO(segmenter.bodies[0])).size == (7, 5)


def test_a_frame_is_sent_with_its_own_pixels_and_without_its_rotation() -> None:
    pixels = smooth_image(30, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    frame = Image.open(io.BytesIO(encoded(pixels, "PNG", exif=exif)))
    segmenter = MadeSegmenter(result_of(tiny_masks()))
    _function(segmenter).detect(ANY_SCORE, frame)
    sent = Image.open(io.BytesIO(segmenter.bodies[0]))
    assert 0x0112 not in sent.getexif()
    np.testing.assert_array_equal(np.asarray(sent), pixels)


POLYGONS = _DetectionFunctionContextImpl(frame_name="made.png", conv_mask_to_poly=True)


@pytest.mark.parametrize("masks", [tiny_masks(), random_masks(6, (23, 31), seed=10)], ids=["tiny", "random"])
def test_polygons_without_tolerance_fill_exactly_the_masks(masks: NDArray[np.bool_]) -> None:
    """Oracle: matplotlib tells which pixels lie in a polygon, by points beside their centres, where edges into holes may pass."""
    count, height, width = masks.shape
    points = np.stack(np.meshgrid(np.arange(width) + 0.5003, np.arange(height) + 0.4991), 2).reshape(-1, 2)
    shapes = _function(MadeSegmenter(result_of(masks))).detect(POLYGONS, Image.new("RGB", (width, height)))
    filled = np.zeros_like(masks)
    for shape in shapes:
        number = round((1 - shape.score) * (count + 1))
        filled[number] |= PolygonPath(np.reshape(shape.points, (-1, 2))).contains_points(points).reshape(height, width)
    assert {shape.type.value for shape in shapes} == {"polygon"}
    np.testing.assert_array_equal(filled, masks)


def test_a_tolerance_gives_polygons_fewer_points() -> None:
    rows, columns = np.mgrid[:97, :131]
    disc = ((rows - 48) ** 2 + (columns - 60) ** 2 < 40**2)[None]
    exact, coarse = (
        _function(MadeSegmenter(result_of(disc)), tolerance).detect(POLYGONS, Image.new("RGB", (131, 97)))
        for tolerance in (0.0, 1.0)
    )
    assert len(exact) == len(coarse) == 1
    assert len(coarse[0].points) < len(exact[0].points) / 4


def test_annotate_task_uploads_polygons_where_masks_are_to_be_converted(
    cvat: FakeCvat, url: str, tmp_path: Path
) -> None:
    cvat.labels = dict.fromkeys(cvat.labels, "polygon")
    shapes = _annotate(cvat, create(url, model="random"), tmp_path, conf_threshold=0.1, conv_mask_to_poly=True)[
        "shapes"
    ]
    assert {shape["type"] for shape in shapes} == {"polygon"}
    assert len(shapes) > 50


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="polygon_tolerance must be at least 0"):
        create("http://127.0.0.1:1", polygon_tolerance=-1.0)


def test_a_server_and_a_bundle_exclude_each_other() -> None:
    with pytest.raises(InvalidArgument, match="excludes bundle"):
        create("http://127.0.0.1:1", "bundle")


def test_a_threshold_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="score_threshold must be from 0 to 1"):
        create("http://127.0.0.1:1", score_threshold=30.0)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(SoloError, match=r"http://127\.0\.0\.1:1"):
        create("http://127.0.0.1:1")


def test_labels_are_the_models_classes_with_type_mask(url: str) -> None:
    function = create(url, model="random")
    labels = [(label.id, label.name, label.type) for label in function.spec.labels]
    function.close()
    assert labels == [(0, "cat", "mask"), (1, "dog", "mask"), (2, "traffic light", "mask")]


def test_a_frame_that_the_server_refuses_is_an_error_that_says_why(url: str) -> None:
    function = create(url)
    with pytest.raises(SoloError, match=r"17000"):
        function.detect(ANY_SCORE, Image.new("RGB", (17000, 1)))
    assert function.detect(ANY_SCORE, Image.new("RGB", (64, 48))) == []
    function.close()


FRAMES = {"astronaut.jpg": ASTRONAUT.read_bytes(), "smooth.png": encoded(smooth_image(97, 131))}


@pytest.fixture
def cvat() -> Iterator[FakeCvat]:
    """A task of two frames whose labels are in another order than the model's; it also has one that the model lacks."""
    labels = {"traffic light": "any", "bird": "mask", "dog": "mask", "cat": "mask"}
    with serving(FakeCvat(FRAMES, labels, [(512, 512), (131, 97)])) as cvat:
        yield cvat


def _expected(cvat: FakeCvat, results: list[Result]) -> list[tuple[int, int, float, NDArray[np.bool_]]]:
    return [
        (frame, cvat.label_id(instance.label), instance.score, instance.mask_array())
        for frame, result in enumerate(results)
        for instance in result.instances
        if instance.area > 0
    ]


def _check(cvat: FakeCvat, annotations: dict[str, Any], results: list[Result]) -> None:
    expected, shapes = _expected(cvat, results), annotations["shapes"]
    assert len(shapes) == len(expected) > 50
    assert {shape["type"] for shape in shapes} == {"mask"}
    assert {shape["source"] for shape in shapes} == {"auto"}
    for shape, (frame, label_id, score, mask) in zip(shapes, expected, strict=True):
        assert (shape["frame"], shape["label_id"], shape["score"]) == (frame, label_id, score)
        np.testing.assert_array_equal(_decoded(shape, mask.shape), mask)


def _annotate(cvat: FakeCvat, function: SoloFunction, cache: Path, **options: Any) -> dict[str, Any]:
    with cvat_sdk.make_client(cvat.host, access_token="any") as client:  # noqa: S106
        client.config.cache_dir = cache
        cvataa.annotate_task(client, TASK, function, **options)
    function.close()
    annotations: dict[str, Any] = cvat.uploads[-1][2]
    return annotations


def _results(url: str, threshold: float) -> list[Result]:
    """What the server finds in the frames' pixels."""
    with SoloClient(url, model="random") as client:
        return [client.segment(body, score_threshold=threshold) for body in FRAMES.values()]


def test_annotate_task_uploads_exactly_the_masks_of_the_server(cvat: FakeCvat, url: str, tmp_path: Path) -> None:
    annotations = _annotate(cvat, create(url, model="random"), tmp_path, conf_threshold=0.1)
    _check(cvat, annotations, _results(url, 0.1))
    assert cvat.uploads[-1][:2] == ("PATCH", f"/api/tasks/{TASK}/annotations/?action=create")


def test_a_local_model_annotates_as_a_server_of_it_does(
    cvat: FakeCvat, url: str, random_bundle: Path, tmp_path: Path
) -> None:
    annotations = _annotate(cvat, create(bundle=str(random_bundle), score_threshold=0.1), tmp_path)
    _check(cvat, annotations, _results(url, 0.1))


def test_cvat_cli_annotates_a_task_with_the_module(cvat: FakeCvat, url: str, tmp_path: Path) -> None:
    module = ("--function-module", "solo_client.adapters.cvat", "-p", f"url=str:{url}", "-p", "model=str:random")
    annotations = annotate(cvat, tmp_path, *module, "--conf-threshold", "0.1")
    _check(cvat, annotations, _results(url, 0.1))


def test_an_agent_answers_a_request_to_annotate_the_task(cvat: FakeCvat, url: str, tmp_path: Path) -> None:
    module = ("--function-module", "solo_client.adapters.cvat", "-p", f"url=str:{url}", "-p", "model=str:random")
    done = cvat_cli(cvat, tmp_path, "function", "create-native", "SOLO", *module)
    assert done.stdout.strip() == str(FUNCTION), done.stderr
    labels = [{"name": name, "type": "mask", "attributes": []} for name in LABELS]
    assert cvat.function["labels_v2"] == labels
    mapping = {name: {"name": name, "attributes": {}} for name in LABELS}
    wanted = {"type": "annotate_task", "task": TASK, "mapping": mapping, "threshold": 0.1, "conv_mask_to_poly": False}
    cvat.requests.append({"ar_id": "one", "ar_params": wanted})
    done = cvat_cli(cvat, tmp_path, "function", "run-agent", str(FUNCTION), *module, "--burst")
    assert done.returncode == 0, done.stderr
    completed = [body for _, path, body in cvat.uploads if path.endswith("/requests/one/complete")]
    _check(cvat, completed[0]["annotations"], _results(url, 0.1))


def test_labels_that_the_task_lacks_are_a_clear_error(cvat: FakeCvat, url: str, tmp_path: Path) -> None:
    with pytest.raises(cvataa.BadFunctionError, match="label 'person' is not in dataset"):
        _annotate(cvat, create(url), tmp_path)
