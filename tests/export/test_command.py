"""`solo export` writes a complete bundle or nothing, and reports an error in one line.

Tests share one checkpoint of a small network, and its bundles in fp32 and fp16.
"""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import solo_export.parity as parity
import torch
from solo_export import command
from solo_export.command import name_of
from solo_export.export import ExportRequest
from solo_export.source import is_bundle
from solo_models.bundle import read_bundle, write_bundle
from solo_models.checkpoint import _published_name
from solo_models.cli import main
from solo_models.network import SoloNetwork
from support.bundles import zipped_folder
from support.images import encoded, smooth_image
from support.networks import bundle_content, tiny_network
from support.specs import deformable_spec, quick_spec


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = tiny_network("decoupled_light", quick_spec("decoupled_light"))
    return _saved(network, tmp_path_factory.mktemp("checkpoint") / "people.pth")


def _saved(network: SoloNetwork, path: Path) -> Path:
    torch.save({"spec": json.dumps(network.spec.to_dict()), "state_dict": network.state_dict()}, path)
    return path


def _exported(source: Path, output: Path, *options: str) -> Path:
    assert main(["export", str(source), "-o", str(output), *options]) == 0
    return output


@pytest.fixture(scope="module")
def full(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint as a bundle; tests do not change it."""
    return _exported(checkpoint, tmp_path_factory.mktemp("fp32") / "full")


@pytest.fixture(scope="module")
def half(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint as a bundle in fp16; tests do not change it."""
    return _exported(checkpoint, tmp_path_factory.mktemp("fp16") / "half", "--precision", "fp16")


def test_a_checkpoint_becomes_a_bundle(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ant\nbee\n\ncow\n")
    (tmp_path / "NOTE.md").write_text("hello")
    options = ["--size", "160x96", "--classes", str(tmp_path / "names.txt"), "--include", str(tmp_path / "NOTE.md")]
    bundle = read_bundle(_exported(checkpoint, tmp_path / "b.zip", *options))
    assert (bundle.name, bundle.spec.class_names) == ("b", ("ant", "bee", "cow"))
    assert (bundle.spec.preprocess.long_side, bundle.spec.preprocess.short_side) == (160, 96)
    assert bundle.files["NOTE.md"] == b"hello"
    assert bundle.parity["graphs"]["max_score_difference"] < 1e-4
    assert bundle.provenance["layout"] == "own"
    assert bundle.provenance["ran_on_gpu"] is False
    images = bundle.parity["pictures"]
    assert (images["source"], images["pictures"]) == ("built-in", 2)
    assert images["matched"] == images["instances"] > 0
    assert images["extra"] == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_file_of_class_names_may_come_from_any_editor(encoding: str, end: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(end.join(["ant", " red bee ", "", "\u732b", ""]).encode(encoding))
    assert command._class_names(tmp_path / "names.txt") == ("ant", "red bee", "\u732b")


def test_a_zipped_bundle_may_have_its_folder_on_top(solo_bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert is_bundle(zipped_folder(solo_bundle, tmp_path / "b.zip"))
    assert not is_bundle(checkpoint)
    assert not is_bundle(tmp_path / "nothing")


def _check_refused(arguments: list[str], error: str, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(output.parent.iterdir())
    assert main(["export", *arguments, "-o", str(output)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("solo export: ")
    assert error in last
    assert sorted(output.parent.iterdir()) == before


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images and their annotations, one of them in a folder below."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for i, name in enumerate(("a.png", "b.png", "more/c.jpg")):
        (folder / name).write_bytes(
            encoded(smooth_image(90 + 10 * i, 120, i), "JPEG" if name.endswith("jpg") else "PNG")
        )
    images = [{"id": i, "file_name": name, "height": 90, "width": 120} for i, name in ((1, "a.png"), (2, "gone.png"))]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(("cat", "dog", "traffic light"))]
    box = {"bbox": [10, 10, 40, 30], "area": 1200, "segmentation": [[10, 10, 50, 10, 50, 40, 10, 40]]}
    annotations = [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, **box}]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def test_half_precision_is_recorded_and_compared(full: Path, half: Path) -> None:
    bundle = read_bundle(half)
    assert (bundle.precision, bundle.name) == ("fp16", "half")
    assert bundle.parity["pictures"]["agreement"] > 0.9
    assert bundle.version != read_bundle(full).version


def test_int8_is_calibrated_and_checked_by_mask_ap(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The annotations list an image that is missing, and the folder has images that are not annotated."""
    checked = ["--images", str(photos), "--annotations", str(photos / "annotations.json")]
    int8 = ["--precision", "int8", "--calibration", str(photos), "--calibration-images", "2"]
    bundle = read_bundle(_exported(checkpoint, tmp_path / "b", *int8, *checked))
    assert bundle.precision == "int8"
    assert bundle.parity["calibration"] == {"source": photos.name, "pictures": 2}
    assert bundle.parity["mask_ap"].keys() == {"pictures", "before", "after"}
    assert bundle.parity["mask_ap"]["pictures"] == 1
    log = capsys.readouterr().err
    assert f"mask AP is measured on 1 of the 2 images of {photos / 'annotations.json'}: those in {photos}" in log
    assert f"calibrating on 2 of the 3 images from {photos.name}/" in log
    assert re.search(r"calibration: 100%\|.*\| 2/2 \[\d\d:\d\d<00:00, +\S+(image/s|s/image)\]", log)
    assert f"compared on 3 images from {photos.name}/: " in log
    assert re.search(r"mask AP \S+ before, \S+ after", log)


def test_a_damaged_image_is_reported_and_skipped(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (tmp_path / "photos" / "good.png").write_bytes(encoded(smooth_image(96, 128)))
    images = str(tmp_path / "photos")
    int8 = ["--precision", "int8", "--calibration", images, "--images", images, "--tolerance", "100"]
    _exported(full, tmp_path / "b", *int8)
    assert "skipped broken.jpg: " in capsys.readouterr().err
    parity = read_bundle(tmp_path / "b").parity
    assert (parity["calibration"]["pictures"], parity["pictures"]["pictures"]) == (1, 1)


def test_a_bundle_can_be_exported_in_another_precision(full: Path, half: Path, tmp_path: Path) -> None:
    output = _exported(full, tmp_path / "b", "--precision", "fp16", "--name", "small")
    from_bundle, version = read_bundle(output), read_bundle(full).version
    assert from_bundle.files["categories.onnx"] == read_bundle(half).files["categories.onnx"]
    assert (from_bundle.name, from_bundle.provenance["bundle_version"]) == ("small", version)
    assert from_bundle.parity["against"] == f"fp32 bundle full {version}"


def test_a_single_file_runs_in_plain_onnx_runtime(full: Path, tmp_path: Path) -> None:
    target = _exported(full, tmp_path / "network.onnx", "--single-file")
    session = ort.InferenceSession(target)
    noted = session.get_modelmeta().custom_metadata_map
    assert json.loads(noted["class_names"]) == ["cat", "dog", "traffic light"]
    assert json.loads(noted["parity"])["pictures"]["extra"] == 0
    assert noted["name"] == "network"
    size = np.array([96, 128], np.int64)
    feeds = {"images": smooth_image(96, 128)[None], "image_hw": size[None], "output_hw": size}
    boxes, scores, labels, masks = session.run(["boxes", "scores", "labels", "masks"], feeds)
    assert len(boxes) == len(scores) == len(labels) == len(masks) > 0
    assert masks.shape[1:] == (96, 128)


def test_a_deformable_checkpoint_becomes_a_bundle(tmp_path: Path) -> None:
    network = tiny_network("decoupled_light", deformable_spec("decoupled_light"))
    bundle = read_bundle(_exported(_saved(network, tmp_path / "dcn.pth"), tmp_path / "b", "--size", "160x96"))
    assert (bundle.spec.deformable_stages, bundle.spec.deformable_towers) == ((2, 3, 4), True)
    assert bundle.parity["pictures"]["agreement"] > 0.98


def test_an_export_that_loses_too_much_is_not_written(
    full: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    int8 = ["--precision", "int8", "--calibration", str(photos), "--tolerance", "0"]
    compared = "solo export: INT8 changes too many detections: "
    _check_refused([str(full), *int8], compared, tmp_path / "b", capsys)


NEVER_READ = "nothing.pth"  # a missing checkpoint: an error about anything else is found before it is read


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"images": [{"id": 1, "file_name": "gone.png"}]}, "none of its 1 images is in"),
        ({"categories": []}, "not COCO annotations"),
    ],
)
def test_annotations_without_images_are_refused_before_any_work(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], error: str
) -> None:
    content = json.loads((photos / "annotations.json").read_text()) | change
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    checked = ["--images", str(photos), "--annotations", str(tmp_path / "annotations.json")]
    int8 = ["--precision", "int8", "--calibration", str(photos)]
    _check_refused([NEVER_READ, *int8, *checked], error, tmp_path / "b", capsys)


def test_classes_that_are_not_annotated_are_refused_before_calibration(
    full: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("cat\nhorse\ndog\n")
    checked = ["--images", str(photos), "--annotations", str(photos / "annotations.json")]
    int8 = ["--precision", "int8", "--calibration", str(photos), "--classes", str(tmp_path / "names.txt")]
    assert main(["export", str(full), "-o", str(tmp_path / "b"), *int8, *checked]) == 2
    error = capsys.readouterr().err
    assert "class 'horse' is not among the annotated cat, dog, traffic light" in error
    assert "calibrat" not in error


@pytest.mark.parametrize("number", ["0", "-1", "1001", "all", "1.5"])
def test_a_bad_number_of_calibration_images_is_wrong_usage(tmp_path: Path, number: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", NEVER_READ, "-o", str(tmp_path / "b"), "--calibration-images", number])
    assert caught.value.code == 2


def test_an_export_is_calibrated_on_64_images_by_default() -> None:
    assert ExportRequest(Path("b")).calibration_images == 64


@pytest.mark.parametrize(
    ("output", "name"),
    [("my_int8", "my_int8"), ("a/b.v2", "b.v2"), ("b.v2.zip", "b.v2"), ("x.onnx", "x"), ("a/../c/", "c")],
)
def test_a_model_is_named_after_its_output(output: str, name: str) -> None:
    assert name_of(Path(output)) == name


def _published(path: Path, names: object) -> Path:
    """A checkpoint in mmdet's layout of a network with 3 classes."""
    network = SoloNetwork(replace(tiny_network("solo").spec, norm_groups=32)).eval()
    state = {_published_name(name, "mmdet", "solo"): value for name, value in network.state_dict().items()}
    torch.save({"meta": {"CLASSES": names}, "state_dict": state}, path)
    return path


def test_a_wrong_number_of_class_names_is_reported_once_in_log_and_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _published(tmp_path / "mmdet.pth", ("dent", "scratch"))
    size = ["--size", "96x64", "--tolerance", "100"]
    bundle = read_bundle(_exported(source, tmp_path / "b", *size))
    wrong = "the network has 3 classes, and the file has 2 names (dent, scratch) for them: not used"
    assert capsys.readouterr().err.count(wrong) == 1
    assert bundle.provenance["unused_class_names"].startswith(wrong)
    assert bundle.spec.class_names == ("class 0", "class 1", "class 2")
    (tmp_path / "names.txt").write_text("dent\nscratch\nrow_roof\n")
    output = _exported(tmp_path / "b", tmp_path / "named", "--classes", str(tmp_path / "names.txt"), *size)
    named = read_bundle(output)
    assert named.spec.class_names == ("dent", "scratch", "row_roof")
    assert "unused_class_names" not in named.provenance


def test_two_classes_of_the_same_name_are_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("a_b\ndent\na_b\n")
    error = (
        "class names must differ: classes 0 and 2 are both called 'a_b'; --classes FILE gives other names, one a line"
    )
    named = [str(checkpoint), "--classes", str(tmp_path / "names.txt")]
    _check_refused(named, error, tmp_path / "b", capsys)
    source = _published(tmp_path / "mmdet.pth", ("a_b", "dent", "a_b"))
    _check_refused([str(source)], error, tmp_path / "b", capsys)


def test_a_bundle_with_two_classes_of_the_same_name_is_refused_as_a_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Older exporters merged names: `a_b` and `a b` both became `a b`."""
    network = tiny_network("solo", replace(tiny_network("solo").spec, class_names=("a b", "a b", "c")))
    write_bundle(tmp_path / "old", bundle_content(network))
    _check_refused([str(tmp_path / "old")], "classes 0 and 1 are both called 'a b'", tmp_path / "b", capsys)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--precision", "int8"], "--precision int8 and --calibration DIR go together"),
        (["--calibration", "{photos}"], "--precision int8 and --calibration DIR go together"),
        (["--precision", "int8", "--calibration", "{empty}"], "contains no images"),
        (["--precision", "int8", "--calibration", "{empty}/none"], "no such folder"),
        (["--images", "{broken}"], "none of 1 images can be decoded"),
        (["--annotations", "{photos}/annotations.json"], "--annotations needs --images"),
        (["--images", "{photos}", "--annotations", "{photos}/a.png"], "not COCO annotations"),
        (["--calibration-images", "9"], "--calibration-images goes with --precision int8"),
        (["--single-file"], "--single-file needs a name that ends in .onnx"),
        (["--classes", "{photos}/a.png"], "not a text file"),
        (["--classes", "{photos}/annotations.json"], "3 classes, but 1 name is given"),
        (["--include", "{empty}/none"], "No such file"),
    ],
)
def test_an_impossible_request_is_refused_in_one_line(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], error: str
) -> None:
    folders = {name: tmp_path / name for name in ("empty", "broken")}
    for folder in folders.values():
        folder.mkdir()
    (folders["broken"] / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    places = {"photos": photos, **folders}
    _check_refused([str(checkpoint), *(o.format(**places) for o in options)], error, tmp_path / "b", capsys)


def test_an_unwritable_output_is_refused_before_any_work(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "file" / "b")]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "cannot be written" in error[0]
    (tmp_path / "folder").mkdir()
    _check_refused([str(checkpoint), "--force"], "is a folder but not a bundle", tmp_path / "folder", capsys)
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "x.onnx")]) == 2
    assert "--single-file" in capsys.readouterr().err


def test_a_damaged_or_lossy_bundle_is_refused_as_a_source(
    half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(half, tmp_path / "half")
    _check_refused([str(tmp_path / "half")], "is fp16; other precisions are made from fp32", tmp_path / "b", capsys)
    (tmp_path / "half" / "masks.onnx").write_bytes(b"")
    _check_refused([str(tmp_path / "half")], "masks.onnx: has 0 bytes", tmp_path / "b", capsys)


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_checkpoint_ends_in_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    """A byte of the zip's directory, at its end, or the file cut short."""
    rng = np.random.default_rng(seed)
    content = bytearray(checkpoint.read_bytes())
    content[-int(rng.integers(1, 3000))] ^= 0xFF
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(content[: rng.integers(len(content))] if seed % 3 == 0 else content)
    status = main(["export", str(damaged), "-o", str(tmp_path / "b"), "--tolerance", "100"])
    error = capsys.readouterr().err.strip().splitlines()
    if status:  # some bytes do not matter
        assert status == 2
        assert error[-1].startswith("solo export: ")
        assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("tolerance", ["-1", "101", "much"])
def test_a_bad_tolerance_is_wrong_usage(checkpoint: Path, tmp_path: Path, tolerance: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", str(checkpoint), "-o", str(tmp_path / "b"), "--tolerance", tolerance])
    assert caught.value.code == 2


def test_a_failed_check_writes_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parity, "SCORE_TOLERANCE", 0.0)
    _check_refused([str(checkpoint)], "scores differ from torch", tmp_path / "b", capsys)


def test_an_existing_bundle_needs_force(full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(full, tmp_path / "b")
    _check_refused([str(full)], "--force", tmp_path / "b", capsys)
    assert read_bundle(_exported(full, tmp_path / "b", "--force", "--name", "again")).name == "again"


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"roi_head.weight": torch.ones(3)}}, tmp_path / "mask_rcnn.pth")
    _check_refused([str(tmp_path / "mask_rcnn.pth")], "no SOLO head", tmp_path / "b", capsys)


def test_a_missing_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _check_refused([str(tmp_path / "none.pth")], "does not exist", tmp_path / "b", capsys)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("512", "'512' is not LONGxSHORT, such as 1333x800"),
        ("axb", "'axb' is not LONGxSHORT"),
        ("500x5", "500x5: 5 is not within 32..16384 pixels"),
        ("800x1333", "800x1333: the longer side comes first, for portrait images too: 1333x800"),
    ],
)
def test_a_bad_size_is_wrong_usage(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str, message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", str(checkpoint), "-o", str(tmp_path / "b"), "--size", size])
    assert caught.value.code == 2
    assert f"argument --size: {message}" in capsys.readouterr().err
