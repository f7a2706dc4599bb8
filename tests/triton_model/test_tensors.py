"""Requests of Triton become ours, with our limits; results and errors become responses of Triton."""

from typing import Any

import numpy as np
import pytest
from solo_server.errors import (
    AnswerTooLarge,
    BodyTooLarge,
    DeadlineExceeded,
    EngineFailure,
    ImageTooLarge,
    InvalidQuery,
    InvalidTensor,
    Overloaded,
    ServerError,
    SettingsError,
)
from solo_server.http.v2.outputs import OUTPUTS, InferResults
from solo_server.settings import Settings
from solo_server.triton.tensors import check_arrays, check_masks, error, read_infer_request, response
from solo_server.types import ImageResult
from support.fake_triton import OldTensor, Request, utils

SETTINGS = Settings(max_files=3, max_body_bytes=2048)
DEFAULT = [name for name, output in OUTPUTS.items() if not output.is_mask]


def texts(*bodies: bytes, shape: tuple[int, ...] = (-1,)) -> np.ndarray:
    return np.array(bodies, object).reshape(shape)


def read(name: str, values: np.ndarray, outputs: Any = OUTPUTS, **more: Any) -> Any:
    return read_infer_request(Request(name, values, list(outputs), **more), SETTINGS)


def test_encoded_images_are_bytes_in_their_order() -> None:
    assert read("IMAGE", texts(b"one", b"two")).images == [b"one", b"two"]
    assert read("IMAGE", texts(b"one", b"two", shape=(2, 1))).images == [b"one", b"two"]


def test_pixels_are_copied_out_of_the_memory_of_triton() -> None:
    memory = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    first, second = read("PIXELS", memory).images
    expected = memory.copy()
    memory[:] = 0
    np.testing.assert_array_equal(np.stack([first, second]), expected)
    assert len(read("PIXELS", expected[0]).images) == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("IMAGE", texts()),
        ("IMAGE", texts(b"a", b"b", shape=(1, 2))),
        ("PIXELS", np.zeros((2, 3), np.uint8)),
        ("PIXELS", np.zeros((1, 2, 2, 4), np.uint8)),
        ("PIXELS", np.zeros((1, 0, 2, 3), np.uint8)),
        ("IMAGE", texts(b"a", b"b", b"c", b"d")),
    ],
)
def test_other_shapes_and_too_many_images_are_refused(name: str, values: np.ndarray) -> None:
    with pytest.raises(InvalidTensor, match=r"^inputs: "):
        read(name, values)


def test_more_bytes_than_a_body_may_have_are_refused() -> None:
    assert len(read("IMAGE", texts(b"x" * 1024, b"y" * 1024)).images) == 2
    with pytest.raises(BodyTooLarge):
        read("IMAGE", texts(b"x" * 1024, b"y" * 1025))
    with pytest.raises(BodyTooLarge):
        read("PIXELS", np.zeros((1, 683, 1, 3), np.uint8))


def test_a_request_for_all_outputs_gets_all_but_masks_since_triton_names_all_for_none() -> None:
    assert [each.output.name for each in read("IMAGE", texts(b"a")).outputs] == DEFAULT
    assert [each.output.name for each in read("IMAGE", texts(b"a"), ["MASKS", "RLE"]).outputs] == ["RLE", "MASKS"]


def test_parameters_and_the_timeout_are_those_of_the_v2_endpoint() -> None:
    given = {"score_threshold": 0.5, "binary_data_output": True}
    request = read("IMAGE", texts(b"a"), parameters_given=given, timeout_us=1_500_000)
    assert request.query.score_threshold == 0.5
    assert request.timeout_s == 1.5
    assert read("IMAGE", texts(b"a")).timeout_s is None
    with pytest.raises(InvalidQuery, match="unknown parameter 'nonsense'"):
        read("IMAGE", texts(b"a"), parameters_given={"nonsense": 1})
    with pytest.raises(InvalidQuery, match="timeout"):
        read("IMAGE", texts(b"a"), timeout_us=1 << 60)


@pytest.mark.parametrize(
    ("problem", "code", "name"),
    [
        (InvalidTensor("x"), "INVALID_ARG", "invalid_tensor"),
        (ImageTooLarge("x"), "INVALID_ARG", "image_too_large"),
        (Overloaded("x", "queue_full"), "UNAVAILABLE", "overloaded"),
        (DeadlineExceeded("x"), "UNAVAILABLE", "deadline_exceeded"),
    ],
)
def test_errors_keep_their_words_and_end_with_their_code(problem: ServerError, code: str, name: str) -> None:
    sent = error(utils(), problem).error
    assert (sent.message, sent.code) == (f"x [{name}]", code)


def test_an_internal_failure_tells_no_details() -> None:
    sent = error(utils(), EngineFailure("secret path")).error
    assert sent.code == "INTERNAL"
    assert "secret" not in sent.message


def test_images_without_instances_give_empty_outputs() -> None:
    results = InferResults([ImageResult((4, 5), (), {})], ("person",))
    outputs = response(utils(), read("IMAGE", texts(b"a")).outputs, results).outputs
    assert {name: values.shape for name, values in outputs.items()} == {
        "NUM_INSTANCES": (1,), "SIZES": (1, 2), "BOXES": (0, 4), "SCORES": (0,), "LABELS": (0,), "LABEL_NAMES": (0,),
        "AREAS": (0,), "RLE": (0,),
    }  # fmt: skip
    assert (outputs["LABEL_NAMES"].dtype, outputs["RLE"].dtype) == (np.object_, np.object_)


def test_masks_over_the_limit_are_refused_before_they_are_made() -> None:
    results = InferResults([ImageResult((4, 5), (), {})], ("person",))
    check_masks(read("IMAGE", texts(b"a"), ["MASKS"]).outputs, results, 0)
    large = InferResults([ImageResult((4, 5), (None,) * 2, {})], ("person",))  # type: ignore[arg-type]  # never looked at
    check_masks(read("IMAGE", texts(b"a"), ["MASKS"]).outputs, large, 40)
    with pytest.raises(AnswerTooLarge, match="the masks take 40 bytes; the limit is 39"):
        check_masks(read("IMAGE", texts(b"a"), ["MASKS"]).outputs, large, 39)


def test_a_back_end_that_reads_arrays_as_zeros_is_refused() -> None:
    check_arrays(utils())
    with pytest.raises(SettingsError, match="built for numpy 1"):
        check_arrays(utils(OldTensor))
