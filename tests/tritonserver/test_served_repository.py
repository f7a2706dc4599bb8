"""The real tritonserver on exported repositories gives the instances of our own server, with the same client code."""

from __future__ import annotations

import contextlib
import io
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as client_library
from PIL import Image
from support.images import encoded, smooth_image
from triton_requests import (
    ASTRONAUT,
    GENERATED,
    MODEL,
    ROOT,
    SCORE_TOLERANCE,
    check_equal,
    images,
    infer,
    pixels,
    refused,
)
from triton_server import Running
from tritonclient.utils import InferenceServerException

DEFAULT = ("NUM_INSTANCES", "SIZES", "BOXES", "SCORES", "LABELS", "LABEL_NAMES", "AREAS", "RLE")
DOCS_CODE = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "v2.md").read_text(), re.DOTALL)


def test_instances_are_those_of_our_server_one_to_one(triton: Running, ours: str) -> None:
    found, expected = (infer(address, images(ASTRONAUT, GENERATED)) for address in (triton.address, ours))
    assert expected.as_numpy("NUM_INSTANCES")[0] > 0
    check_equal(found, expected)


@pytest.mark.parametrize("name", ["MASKS", "PACKED_MASKS"])
def test_masks_as_arrays_are_those_of_our_server(triton: Running, ours: str, name: str) -> None:
    found, expected = (infer(address, images(ASTRONAUT), name).as_numpy(name) for address in (triton.address, ours))
    assert expected.any()
    np.testing.assert_array_equal(found, expected)


def test_pixels_give_the_instances_of_the_encoded_image(triton: Running) -> None:
    with Image.open(io.BytesIO(GENERATED)) as image:
        rgb = np.asarray(image.convert("RGB"))
    check_equal(infer(triton.address, pixels(rgb, rgb)), infer(triton.address, images(GENERATED, GENERATED)))


def test_the_code_of_the_docs_prints_the_same_with_both_servers(
    triton: Running, ours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(ASTRONAUT)
    (tmp_path / "b.jpg").write_bytes(GENERATED)
    monkeypatch.chdir(tmp_path)
    assert DOCS_CODE is not None
    printed = []
    for address in (triton.address, ours):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(DOCS_CODE[1].replace("127.0.0.1:8000", address), {})  # noqa: S102 - our own documentation
        printed.append([float(number) for number in re.findall(r"\d+\.?\d*(?:e-?\d+)?", output.getvalue())])
    assert len(printed[0]) >= 5  # a box and its score
    np.testing.assert_allclose(printed[0], printed[1], atol=SCORE_TOLERANCE, rtol=0)


def test_a_request_that_names_no_outputs_gets_all_but_the_masks(triton: Running) -> None:
    names = [output["name"] for output in infer(triton.address, images(GENERATED)).get_response()["outputs"]]
    assert sorted(names) == sorted(DEFAULT)


def test_requests_in_flight_together_get_their_own_answers(triton: Running) -> None:
    bodies = [encoded(smooth_image(60 + 7 * i, 90 + 11 * i, seed=i)) for i in range(12)] + [ASTRONAUT] * 4
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda body: infer(triton.address, images(body)), bodies))
    for body, found in zip(bodies, together, strict=True):
        with Image.open(io.BytesIO(body)) as image:
            assert found.as_numpy("SIZES").tolist() == [[image.height, image.width]]
    first, *others = (found for body, found in zip(bodies, together, strict=True) if body is ASTRONAUT)
    assert first.as_numpy("NUM_INSTANCES")[0] > 0
    for other in others:
        check_equal(other, first)


def test_an_undecodable_image_fails_alone(triton: Running) -> None:
    bodies = [ASTRONAUT, b"no image", ASTRONAUT[:3000], ASTRONAUT]

    def status(body: bytes) -> str:
        try:
            return str(infer(triton.address, images(body)).as_numpy("NUM_INSTANCES").size)
        except InferenceServerException as problem:
            return f"{problem.status()} {problem.message()}"

    with ThreadPoolExecutor(4) as threads:
        first, second, third, fourth = threads.map(status, bodies)
    assert (first, fourth) == ("1", "1")
    assert second.startswith("400 not a supported image")
    assert third.startswith("400 the JPEG data cannot be decoded")


def test_an_error_names_the_image_and_the_code(triton: Running, ours: str) -> None:
    found = refused(triton.address, images(GENERATED, ASTRONAUT[:3000]))
    assert found.startswith("400 IMAGE[1]: the JPEG data cannot be decoded")
    assert found.endswith("[image_damaged]")
    assert (
        refused(ours, images(GENERATED, ASTRONAUT[:3000])).split(" ", 1)[1]
        == found.split(" ", 1)[1].rpartition(" [")[0]
    )


@pytest.mark.parametrize(
    "parameters",
    [{"score_threshold": 0.9}, {"max_instances": 1}, {"classes": "person", "nms": "matrix", "score_threshold": 0.02}],
)
def test_parameters_do_what_they_do_with_our_server(triton: Running, ours: str, parameters: dict[str, Any]) -> None:
    found, expected = (infer(address, images(ASTRONAUT), parameters=parameters) for address in (triton.address, ours))
    check_equal(found, expected)


@pytest.mark.parametrize("parameters", [{"nonsense": 1}, {"score_threshold": "high"}, {"classes": "unicorn"}])
def test_wrong_parameters_are_refused_with_the_same_words(
    triton: Running, ours: str, parameters: dict[str, Any]
) -> None:
    found, expected = (refused(address, images(GENERATED), parameters=parameters) for address in (triton.address, ours))
    assert found.removeprefix("400 ") == f"{expected.removeprefix('422 ')} [invalid_query]"


def test_a_deadline_that_has_passed_is_answered_503(triton: Running) -> None:
    assert refused(triton.address, images(ASTRONAUT), timeout=1).startswith("503 ")


def test_an_input_of_another_shape_or_name_is_refused(triton: Running) -> None:
    assert refused(triton.address, pixels(np.zeros((8, 8, 4), np.uint8))).startswith("400")
    empty = client_library.InferInput("IMAGE", [0], "BYTES").set_data_from_numpy(np.empty(0, object))
    assert refused(triton.address, empty).startswith("400")


def test_too_many_images_are_refused(triton: Running) -> None:
    assert "at most 32 are accepted" in refused(triton.address, images(*[GENERATED] * 33))


def test_triton_describes_the_model_as_our_server_does(triton: Running, ours: str) -> None:
    found, expected = (httpx.get(f"http://{address}/v2/models/{MODEL}").json() for address in (triton.address, ours))
    for side in ("inputs", "outputs"):
        assert [(each["name"], each["datatype"]) for each in found[side]] == [
            (each["name"], each["datatype"]) for each in expected[side]
        ]
        assert [list(map(int, each["shape"])) for each in found[side]] == [each["shape"] for each in expected[side]]


def test_triton_batches_the_graphs_by_padded_size(triton: Running, network: str) -> None:
    if network == "process":
        assert "demo-person_categories" not in triton.log  # batches are the service's own
        return
    infer(triton.address, images(*[ASTRONAUT] * 16, *[GENERATED] * 16))
    batches = [
        (int(size), shape) for size, shape in re.findall(r"largest batch: (\d+) of shape (\(.*, 3\))", triton.log)
    ]
    assert max(size for size, _ in batches) > 1
