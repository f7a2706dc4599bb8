"""The wire format of tensors by hand-made bytes, JSON followed by binary tensors; and requests that violate the protocol."""

import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from solo_server.errors import BodyTooLarge, InvalidQuery, InvalidTensor, RequestError, UnsupportedMediaType
from solo_server.http.v2.requests import InferRequest, inflate, read_request
from solo_server.http.v2.tensors import MAX_JSON_BYTES, OutputTensor, read_tensors, split, strings, write

IMAGES = {"name": "IMAGE", "datatype": "BYTES", "shape": [2]}
TWO = b"\x03\x00\x00\x00abc\x00\x00\x00\x00"
PIXELS = {"name": "PIXELS", "datatype": "UINT8", "shape": [1, 2, 1, 3]}


def _binary(tensor: dict[str, Any], raw: bytes, size: int | None = None) -> dict[str, Any]:
    return {**tensor, "parameters": {"binary_data_size": len(raw) if size is None else size}}


def _read(content: Any, raw: bytes = b"", max_images: int = 4) -> InferRequest:
    head = json.dumps(content).encode()
    return read_request(head + raw, str(len(head)), max_images)


def _infer(**more: Any) -> dict[str, Any]:
    return {"inputs": [_binary(IMAGES, TWO)], **more}


def test_a_body_is_split_where_its_header_says() -> None:
    content, binary = split(b'{"a":1}\x00\xff', "7")
    assert (content, bytes(binary)) == ({"a": 1}, b"\x00\xff")


def test_without_the_header_the_whole_body_is_json() -> None:
    content, binary = split(b'{"a": 1}', None)
    assert (content, bytes(binary)) == ({"a": 1}, b"")
    with pytest.raises(InvalidTensor, match="not valid JSON"):
        split(b'{"a":1}\x00\xff', None)


@pytest.mark.parametrize("length", ["0", "-1", "8", "7.0", "", "x", "+7", "²", "9" * 5000])
def test_an_invalid_length_is_refused(length: str) -> None:
    with pytest.raises(InvalidTensor, match="Inference-Header-Content-Length: must be a whole number from 1 to"):
        split(b'{"a":1}', length)


@pytest.mark.parametrize(
    "text", [b"[]", b"1", b"null", b"NaN", b"{", b'{"a":\xff}', b'"' * 9, b"[" * 100_000, b'{"a":[[' * 999]
)
def test_json_that_is_not_an_object_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidTensor):
        split(text, None)


def test_json_is_bounded_but_not_what_follows_it() -> None:
    large = b'{"a":"' + b"x" * MAX_JSON_BYTES + b'"}'
    with pytest.raises(BodyTooLarge, match="JSON part"):
        split(large, None)
    assert len(split(b"{}" + large, "2")[1]) == len(large)


def test_binary_strings_are_preceded_by_their_little_endian_length() -> None:
    [tensor] = read_tensors([_binary(IMAGES, TWO)], memoryview(TWO))
    assert strings(tensor) == [b"abc", b""]


def test_binary_tensors_follow_one_another_in_the_order_of_the_json() -> None:
    listed = [_binary(PIXELS, b"123456"), _binary(IMAGES, TWO)]
    first, second = read_tensors(listed, memoryview(b"123456" + TWO))
    assert bytes(first.raw or b"") == b"123456"
    assert strings(second) == [b"abc", b""]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "has 0 elements"),
        (b"\x03\x00\x00\x00abc", "has 1 elements"),
        (TWO + b"\x00\x00\x00\x00", "has more than 2 elements"),
        (TWO[:-1], r"element 1 ends after the tensor's 10 bytes"),
        (b"\x04\x00\x00\x00abc", "element 0 ends after"),
        (b"\xff\xff\xff\xffabc", "element 0 ends after"),
        (b"\x00\x00\x00\x03abc\x00\x00\x00\x00", "element 0 ends after"),  # big-endian
    ],
)
def test_strings_that_do_not_fit_their_tensor_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(InvalidTensor, match=r"inputs\[0\].*" + message):
        _read({"inputs": [_binary(IMAGES, raw)]}, raw)


@pytest.mark.parametrize(
    ("tensor", "raw"),
    [
        (_binary(IMAGES, TWO), TWO),
        ({**_binary(IMAGES, TWO), "shape": [2, 1]}, TWO),
        ({**IMAGES, "data": ["YWJj", ""], "parameters": {"content_type": "base64"}}, b""),
        ({**IMAGES, "shape": [2, 1], "data": [["YWJj"], [""]], "parameters": {"content_type": "base64"}}, b""),
    ],
)
def test_encoded_images_are_read(tensor: dict[str, Any], raw: bytes) -> None:
    request = _read({"inputs": [tensor]}, raw)
    assert (request.input_name, request.images) == ("IMAGE", [b"abc", b""])


@pytest.mark.parametrize(
    ("tensor", "raw"),
    [
        (_binary(PIXELS, b"\x01\x02\x03\x04\x05\xff"), b"\x01\x02\x03\x04\x05\xff"),
        ({**PIXELS, "data": [1, 2, 3, 4, 5, 255]}, b""),
        ({**PIXELS, "data": [[[[1, 2, 3]], [[4, 5, 255]]]]}, b""),
        ({**PIXELS, "shape": [2, 1, 3], "data": [[[1, 2, 3]], [[4, 5, 255]]]}, b""),
    ],
)
def test_pixels_are_read_flat_nested_or_binary(tensor: dict[str, Any], raw: bytes) -> None:
    [image] = _read({"inputs": [tensor]}, raw).images
    assert isinstance(image, np.ndarray)
    assert image.dtype == np.uint8
    assert image.tolist() == [[[1, 2, 3]], [[4, 5, 255]]]


def test_several_images_of_pixels_are_separated() -> None:
    raw = bytes(range(18))
    first, second, third = _read({"inputs": [_binary({**PIXELS, "shape": [3, 1, 2, 3]}, raw)]}, raw).images
    assert np.array_equal(np.stack([first, second, third]).ravel(), np.arange(18))


def test_without_parameters_the_defaults_apply() -> None:
    request = _read(_infer(), TWO)
    assert (request.request_id, request.timeout_s) == (None, None)
    assert request.query.model_dump(exclude_defaults=True) == {}
    names = [each.output.name for each in request.outputs]
    assert names == ["NUM_INSTANCES", "SIZES", "BOXES", "SCORES", "LABELS", "LABEL_NAMES", "AREAS", "RLE"]
    assert not any(each.is_binary for each in request.outputs)


def test_parameters_outputs_and_id_are_read() -> None:
    outputs = [{"name": "RLE"}, {"name": "BOXES", "parameters": {"binary_data": False}}]
    parameters = {"max_instances": 3, "classes": "cat", "nms": "none", "score_threshold": 0.5, "timeout": 1500}
    request = _read(_infer(id="a", outputs=outputs, parameters={**parameters, "binary_data_output": True}), TWO)
    assert (request.request_id, request.timeout_s) == ("a", 0.0015)
    assert request.query.max_instances == 3
    assert [(each.output.name, each.is_binary) for each in request.outputs] == [("RLE", True), ("BOXES", False)]


def _with(tensor: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"inputs": [{**tensor, **more}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "inputs: is missing"),
        ({"inputs": {}}, "inputs: must be an array"),
        ({"inputs": []}, "inputs: must be one input, IMAGE or PIXELS"),
        ({"inputs": [1]}, r"inputs\[0\]: must be an object"),
        ({"inputs": [{**PIXELS, "data": [0] * 6}] * 2}, "inputs: must be one input"),
        (_with(PIXELS, name="images", data=[0] * 6), "inputs: must be one input"),
        (_with(PIXELS, name=3, data=[0] * 6), r"inputs\[0\].name: must be a string"),
        (_with(PIXELS, datatype="FP32", data=[0] * 6), r"inputs\[0\].datatype: PIXELS is of type UINT8"),
        (_with(PIXELS, shape=None, data=[0] * 6), r"inputs\[0\].shape: is missing"),
        (_with(PIXELS, shape=[1, 2, -1, 3], data=[]), r"inputs\[0\].shape: must be at most 4 whole numbers"),
        (_with(PIXELS, shape=[1, 2, 1.0, 3], data=[]), r"inputs\[0\].shape: must be"),
        (_with(PIXELS, shape=[True, 2, 1, 3], data=[0] * 6), r"inputs\[0\].shape: must be"),
        (_with(PIXELS, shape=[1] * 5, data=[0]), r"inputs\[0\].shape: must be"),
        (_with(PIXELS, shape=[0, 2, 1, 3], data=[]), r"inputs\[0\].shape: PIXELS has"),
        (_with(PIXELS, shape=[1, 2, 3, 1], data=[0] * 6), r"inputs\[0\].shape: PIXELS has"),
        (_with(PIXELS, shape=[2, 3], data=[0] * 6), r"inputs\[0\].shape: PIXELS has"),
        (_with(IMAGES, shape=[], data=[""]), r"inputs\[0\].shape: IMAGE has"),
        (_with(IMAGES, shape=[1, 2], data=["", ""]), r"inputs\[0\].shape: IMAGE has"),
        (_with(IMAGES, shape=[5], data=[""] * 5), r"inputs\[0\].shape: 5 images; at most 4"),
        (_with(PIXELS, shape=[5, 1, 1, 3], data=[0] * 15), r"inputs\[0\].shape: 5 images"),
        (_with(PIXELS, shape=[1, 2**62, 2**62, 3], data=[0] * 6), r"inputs\[0\]: has 6 elements"),
        (_with(PIXELS), r"inputs\[0\]: must have either data or"),
        (_with(PIXELS, data=[0] * 6, parameters={"binary_data_size": 0}), r"inputs\[0\]: must have either"),
        (_with(PIXELS, data="000000"), r"inputs\[0\].data: must be an array"),
        (_with(PIXELS, data=[0] * 5), r"inputs\[0\]: has 5 elements, but the shape \[1, 2, 1, 3\] needs 6"),
        (_with(PIXELS, data=[[0] * 6, 0]), r"inputs\[0\]: has 2 elements"),
        (_with(PIXELS, data=[[[[[0] * 6]]]]), r"inputs\[0\]"),
        (_with(PIXELS, data=[0, 0, 0, 0, 0, 256]), r"inputs\[0\].data: must be 0 to 255"),
        (_with(PIXELS, data=[0, 0, 0, 0, 0, -1]), r"inputs\[0\].data: must be 0 to 255"),
        (_with(PIXELS, data=[0, 0, 0, 0, 0, 2**63]), r"inputs\[0\].data: must be 0 to 255"),
        (_with(PIXELS, data=[0, 0, 0, 0, 0, 1.5]), r"inputs\[0\].data: must be integers"),
        (_with(PIXELS, data=[0, 0, 0, 0, 0, True]), r"inputs\[0\].data: must be integers"),
        (_with(PIXELS, data=[0, 0, 0, 0, 0, "x" * 9]), r"inputs\[0\].data: must be integers"),
        (_with(IMAGES, data=["a", "b"]), r"inputs\[0\].data: JSON text cannot contain an encoded image"),
        (_with(IMAGES, data=["?", ""], parameters={"content_type": "base64"}), r"inputs\[0\].data: is not base64"),
        (_with(IMAGES, data=["é", ""], parameters={"content_type": "base64"}), r"inputs\[0\].data: is not base64"),
        (_with(IMAGES, data=[1, ""], parameters={"content_type": "base64"}), r"inputs\[0\].data: must be strings"),
        (_with(IMAGES, parameters={"binary_data_size": 12}), r"inputs\[0\].parameters.binary_data_size: must be .* 0 to 11"),
        (_with(IMAGES, parameters={"binary_data_size": -1}), r"inputs\[0\].parameters.binary_data_size"),
        (_with(IMAGES, parameters={"binary_data_size": "11"}), r"inputs\[0\].parameters.binary_data_size"),
        (_with(IMAGES, parameters={"binary_data_size": True}), r"inputs\[0\].parameters.binary_data_size"),
        (_with(IMAGES, parameters={"binary_data_size": 10}), "1 bytes of the body belong to no input"),
        (_with(IMAGES, parameters=[]), r"inputs\[0\].parameters: must be an object"),
        (_with(IMAGES, parameters={"shared_memory_region": "x"}), r"inputs\[0\].parameters: shared memory"),
        (_with(_binary(PIXELS, TWO)), r"inputs\[0\]: has 11 bytes, but the shape \[1, 2, 1, 3\] needs 6"),
        (_infer(id=7), "id: must be a string"),
        (_infer(parameters=[]), "parameters: must be an object"),
        (_infer(parameters={"binary_data_output": 1}), "parameters.binary_data_output: must be true or false"),
        (_infer(outputs={}), "outputs: must be an array"),
        (_infer(outputs=["BOXES"]), r"outputs\[0\]: must be an object"),
        (_infer(outputs=[{}]), r"outputs\[0\].name: is missing"),
        (_infer(outputs=[{"name": "BOXES"}, {"name": "boxes"}]), r"outputs\[1\].name: 'boxes' is none of NUM_INSTANCES"),
        (_infer(outputs=[{"name": "BOXES"}] * 2), r"outputs\[1\].name: 'BOXES' is requested twice"),
        (_infer(outputs=[{"name": "BOXES", "parameters": {"binary_data": 1}}]), r"outputs\[0\].parameters.binary_data"),
        (_infer(outputs=[{"name": "BOXES", "parameters": {"classification": 3}}]), "classification: is not supported"),
        (_infer(outputs=[{"name": "BOXES", "parameters": {"shared_memory_region": "x"}}]), r"outputs\[0\].*shared"),
    ],
)  # fmt: skip
def test_what_is_not_as_the_protocol_says_is_refused_by_its_field(content: Any, message: str) -> None:
    raw = TWO if "binary_data_size" in json.dumps(content) or "shared" in json.dumps(content) else b""
    with pytest.raises(InvalidTensor, match=message):
        _read(content, raw)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"colour": "red"}, "parameters: unknown parameter 'colour'; known are classes, max_instances"),
        ({"format": "overlay"}, "parameters: unknown parameter 'format'"),
        ({"sequence_id": 1}, "parameters: unknown parameter 'sequence_id'"),
        ({"score_threshold": 1.5}, "score_threshold: "),
        ({"score_threshold": True}, "score_threshold: must be a string or a number"),
        ({"max_instances": 0}, "max_instances: "),
        ({"max_instances": 2**64}, "max_instances: "),
        ({"max_instances": [1]}, "max_instances: must be a string or a number"),
        ({"classes": 1}, "classes: "),
        ({"nms": "soft"}, "nms: "),
        ({"timeout": -1}, "timeout: must be a whole number of microseconds, 0 to 600000000"),
        ({"timeout": 600_000_001}, "timeout: "),
        ({"timeout": 1.5}, "timeout: "),
        ({"timeout": "1"}, "timeout: "),
    ],
)
def test_an_invalid_parameter_is_refused_as_in_a_query(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidQuery, match=message):
        _read(_infer(parameters=parameters), TWO)


def test_no_truncated_request_and_no_flipped_byte_is_an_internal_failure() -> None:
    head = json.dumps(_infer(outputs=[{"name": "RLE"}], parameters={"nms": "none"})).encode()
    body = head + TWO
    outcomes = {"read": 0, "refused": 0}
    for at in range(len(body)):
        for broken in (body[:at], body[:at] + bytes([body[at] ^ 0x55]) + body[at + 1 :]):
            try:
                read_request(broken, str(len(head)), 4)
                outcomes["read"] += 1
            except RequestError:
                outcomes["refused"] += 1
    assert outcomes["read"] > 2  # for example a flipped byte of an image
    assert outcomes["refused"] > len(body)


def test_an_answer_in_json_has_flat_numbers_and_text() -> None:
    outputs = [
        OutputTensor("BOXES", np.array([[1, 2, 3, 4.5]], np.float32), is_binary=False),
        OutputTensor("RLE", [b"0`a:"], is_binary=False),
        OutputTensor("MASKS", np.zeros((0, 2, 2), np.uint8), is_binary=False),
    ]
    content, length = write({"model_name": "m"}, outputs)
    assert length is None
    assert json.loads(content) == {
        "model_name": "m",
        "outputs": [
            {"name": "BOXES", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4.5]},
            {"name": "RLE", "datatype": "BYTES", "shape": [1], "data": ["0`a:"]},
            {"name": "MASKS", "datatype": "UINT8", "shape": [0, 2, 2], "data": []},
        ],
    }


def test_a_binary_answer_has_its_tensors_after_the_json_in_order() -> None:
    outputs = [
        OutputTensor("LABELS", np.array([1, -2], np.int32), is_binary=True),
        OutputTensor("SIZES", np.array([[3, 4]], np.int32), is_binary=False),
        OutputTensor("RLE", [b"ab", b""], is_binary=True),
        OutputTensor("MASKS", np.arange(8, dtype=np.uint8).reshape(1, 4, 2)[:, ::2], is_binary=True),
    ]
    content, length = write({}, outputs)
    assert content[length:] == b"\x01\0\0\0\xfe\xff\xff\xff" + b"\x02\0\0\0ab\0\0\0\0" + b"\x00\x01\x04\x05"
    described = json.loads(content[:length])["outputs"]
    assert [one.get("parameters", {}).get("binary_data_size") for one in described] == [8, None, 10, 4]
    assert described[1]["data"] == [3, 4]


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP ", gzip.compress)]
)
def test_compressed_bodies_are_decompressed(encoding: str, compress: Any) -> None:
    assert inflate(compress(b"x" * 100), encoding, 100) == b"x" * 100
    assert inflate(b"plain", "identity", 100) == b"plain"


def test_inflating_stops_at_the_limit() -> None:
    with pytest.raises(BodyTooLarge, match="after decompression"):
        inflate(gzip.compress(bytes(1 << 24)), "gzip", 1000)


@pytest.mark.parametrize(
    ("body", "encoding", "error"),
    [
        (b"x", "br", UnsupportedMediaType),
        (b"x", "gzip, gzip", UnsupportedMediaType),
        (b"x", "gzip", InvalidTensor),
        (gzip.compress(b"abc", mtime=0)[:-3], "gzip", InvalidTensor),
        (gzip.compress(b"abc", mtime=0) + b"x", "gzip", InvalidTensor),
        (gzip.compress(b"abc", mtime=0), "deflate", InvalidTensor),
        (zlib.compress(b"abc"), "gzip", InvalidTensor),
    ],
)
def test_bodies_that_cannot_be_decompressed_are_refused(body: bytes, encoding: str, error: type[RequestError]) -> None:
    with pytest.raises(error):
        inflate(body, encoding, 1000)


def test_lengths_are_unsigned_and_never_beyond_the_tensor() -> None:
    raw = struct.pack("<I", 2**32 - 1) + bytes(7)
    with pytest.raises(InvalidTensor, match="ends after"):
        _read({"inputs": [_binary({**IMAGES, "shape": [1]}, raw)]}, raw)
