"""The Open Inference Protocol v2 with Triton's own, unchanged client: answers equal those of `POST /segment`."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from pycocotools import mask as coco_mask
from solo_server.http.app import create_app
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving
from tritonclient.utils import InferenceServerException

MODEL = "tiny-solo"
PNG, OTHER = encoded(smooth_image(90, 121)), encoded(smooth_image(90, 121, seed=3))
SMALL = encoded(smooth_image(40, 30, seed=5), "JPEG")
SETTINGS = Settings(model_control=True, max_files=4)


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture(scope="module")
def http(pipeline: Pipeline) -> Iterator[httpx.Client]:
    with serving(create_app(pipeline, SETTINGS)) as client:
        yield client


@pytest.fixture
def client(http: httpx.Client) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(http.base_url.netloc.decode()) as client:
        yield client


def images(*bodies: bytes, column: bool = False) -> triton.InferInput:
    tensor = np.array(bodies, object).reshape((-1, 1) if column else -1)
    return triton.InferInput("IMAGE", list(tensor.shape), "BYTES").set_data_from_numpy(tensor)


def pixels(tensor: np.ndarray, *, binary: bool = True) -> triton.InferInput:
    return triton.InferInput("PIXELS", list(tensor.shape), "UINT8").set_data_from_numpy(tensor, binary_data=binary)


def requested(*names: str, binary: bool = True) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def segmented(http: httpx.Client, body: bytes, **query: Any) -> list[dict[str, Any]]:
    return list(http.post("/segment", content=body, params=query).json()["instances"])


def check_equal(result: Any, instances: list[dict[str, Any]]) -> None:
    """All that both answers have about the instances."""
    assert len(instances) > 0
    assert result.as_numpy("BOXES").tolist() == [instance["box_xywh"] for instance in instances]
    assert result.as_numpy("SCORES") == pytest.approx([instance["score"] for instance in instances], abs=1e-6)
    assert result.as_numpy("LABELS").tolist() == [instance["class_id"] for instance in instances]
    assert [name.decode() for name in result.as_numpy("LABEL_NAMES")] == [one["label"] for one in instances]
    assert result.as_numpy("AREAS").tolist() == [instance["area"] for instance in instances]
    assert [rle.decode() for rle in result.as_numpy("RLE")] == [one["mask"]["counts"] for one in instances]


def test_health_metadata_and_configuration_are_what_the_client_expects(
    client: triton.InferenceServerClient, pipeline: Pipeline
) -> None:
    version = pipeline.bundle.version
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, version)
    assert not client.is_model_ready(MODEL, "7")
    assert not client.is_model_ready("unicorn")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata(MODEL, version)
    assert metadata["versions"] == [version]
    assert {one["name"]: one["datatype"] for one in metadata["inputs"]} == {"IMAGE": "BYTES", "PIXELS": "UINT8"}
    config = client.get_model_config(MODEL)
    assert config["max_batch_size"] == 0
    assert [one["name"] for one in config["output"]] == [one["name"] for one in metadata["outputs"]]


def test_every_output_has_the_type_and_axes_of_the_metadata(client: triton.InferenceServerClient) -> None:
    described = {one["name"]: one for one in client.get_model_metadata(MODEL)["outputs"]}
    answer = client.infer(MODEL, [images(PNG, OTHER)], outputs=requested(*described)).get_response()
    assert [one["name"] for one in answer["outputs"]] == list(described)
    for one in answer["outputs"]:
        expected = described[one["name"]]
        assert one["datatype"] == expected["datatype"]
        assert len(one["shape"]) == len(expected["shape"])
        pairs = zip(one["shape"], expected["shape"], strict=True)
        assert all(axis in (-1, length) for length, axis in pairs)


@pytest.mark.parametrize("column", [False, True])
def test_an_encoded_image_has_the_answer_of_segment(
    client: triton.InferenceServerClient, http: httpx.Client, pipeline: Pipeline, column: bool
) -> None:
    result = client.infer(MODEL, [images(PNG, column=column)], request_id="mine")
    response = result.get_response()
    assert (response["model_name"], response["model_version"]) == (MODEL, pipeline.bundle.version)
    assert response["id"] == "mine"
    check_equal(result, segmented(http, PNG))
    assert result.as_numpy("NUM_INSTANCES").tolist() == [len(result.as_numpy("SCORES"))]
    assert result.as_numpy("SIZES").tolist() == [[90, 121]]
    assert result.as_numpy("MASKS") is None


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("axes", [3, 4])
def test_pixels_have_the_answer_of_the_same_image_encoded(
    client: triton.InferenceServerClient, http: httpx.Client, binary: bool, axes: int
) -> None:
    rgb = smooth_image(90, 121)
    result = client.infer(MODEL, [pixels(rgb if axes == 3 else rgb[None], binary=binary)])
    check_equal(result, segmented(http, PNG))


def test_answers_in_json_equal_binary_ones(client: triton.InferenceServerClient, http: httpx.Client) -> None:
    names = [one["name"] for one in client.get_model_metadata(MODEL)["outputs"]]
    binary = client.infer(MODEL, [images(PNG)], outputs=requested(*names))
    plain = client.infer(MODEL, [images(PNG)], outputs=requested(*names, binary=False))
    for name in names:
        of_json = plain.as_numpy(name)
        if of_json.dtype == object:  # text in JSON, bytes in binary tensors
            of_json = np.array([text.encode() for text in of_json], object)
        assert of_json.shape == binary.as_numpy(name).shape
        assert (of_json == binary.as_numpy(name)).all()
    assert "parameters" not in plain.get_output("RLE")
    mixed = client.infer(MODEL, [images(PNG)], outputs=[*requested("RLE"), *requested("BOXES", binary=False)])
    assert (mixed.as_numpy("BOXES") == binary.as_numpy("BOXES")).all()
    assert (mixed.as_numpy("RLE") == binary.as_numpy("RLE")).all()


def test_outputs_of_several_images_are_concatenated_in_their_order(
    client: triton.InferenceServerClient, http: httpx.Client
) -> None:
    bodies = (PNG, SMALL, OTHER)
    result = client.infer(MODEL, [images(*bodies)])
    each = [segmented(http, body) for body in bodies]
    assert result.as_numpy("NUM_INSTANCES").tolist() == [len(instances) for instances in each]
    assert result.as_numpy("SIZES").tolist() == [[90, 121], [40, 30], [90, 121]]
    check_equal(result, [instance for instances in each for instance in instances])


def test_a_batch_of_pixels_has_the_answers_of_its_images(
    client: triton.InferenceServerClient, http: httpx.Client
) -> None:
    result = client.infer(MODEL, [pixels(np.stack([smooth_image(90, 121), smooth_image(90, 121, seed=3)]))])
    check_equal(result, segmented(http, PNG) + segmented(http, OTHER))


def test_masks_equal_those_that_pycocotools_decodes(client: triton.InferenceServerClient, http: httpx.Client) -> None:
    result = client.infer(MODEL, [images(PNG, OTHER)], outputs=requested("MASKS", "PACKED_MASKS"))
    instances = segmented(http, PNG) + segmented(http, OTHER)
    expected = np.stack([coco_mask.decode(instance["mask"]) for instance in instances])
    assert result.as_numpy("MASKS").dtype == np.uint8
    assert (result.as_numpy("MASKS") == expected).all()
    packed = result.as_numpy("PACKED_MASKS")
    assert packed.shape == (len(instances), 90, 16)
    assert (np.unpackbits(packed, axis=2, count=121) == expected).all()


def test_parameters_have_the_meaning_of_segments(client: triton.InferenceServerClient, http: httpx.Client) -> None:
    query = {"score_threshold": 0.2, "max_instances": 2, "classes": "dog, 2", "nms": "mask"}
    check_equal(client.infer(MODEL, [images(PNG)], parameters=query), segmented(http, PNG, **query))


def test_no_instances_are_empty_tensors(client: triton.InferenceServerClient) -> None:
    names = ("NUM_INSTANCES", "BOXES", "LABEL_NAMES", "RLE", "MASKS", "PACKED_MASKS")
    for binary in (True, False):
        outputs = requested(*names, binary=binary)
        result = client.infer(MODEL, [images(PNG)], parameters={"score_threshold": 1}, outputs=outputs)
        shapes = [result.as_numpy(name).shape for name in names]
        assert shapes == [(1,), (0, 4), (0,), (0,), (0, 90, 121), (0, 90, 16)]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_are_accepted(
    client: triton.InferenceServerClient, http: httpx.Client, algorithm: str
) -> None:
    packed: dict[str, Any] = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    check_equal(client.infer(MODEL, [images(PNG)], **packed), segmented(http, PNG))


def test_asynchronous_clients_work(client: triton.InferenceServerClient, http: httpx.Client) -> None:
    instances = segmented(http, PNG)
    check_equal(client.async_infer(MODEL, [images(PNG)]).get_result(), instances)

    async def ask() -> Any:
        async with triton_aio.InferenceServerClient(http.base_url.netloc.decode()) as other:
            return await other.infer(MODEL, [images(PNG)])

    check_equal(asyncio.run(ask()), instances)


def test_base64_in_json_needs_no_client_at_all(http: httpx.Client) -> None:
    tensor = {"name": "IMAGE", "datatype": "BYTES", "shape": [1], "parameters": {"content_type": "base64"},
              "data": [base64.b64encode(PNG).decode()]}  # fmt: skip
    response = http.post(f"/v2/models/{MODEL}/infer", json={"inputs": [tensor], "outputs": [{"name": "RLE"}]})
    assert response.headers["content-type"] == "application/json"
    [rle] = response.json()["outputs"]
    assert rle["data"] == [instance["mask"]["counts"] for instance in segmented(http, PNG)]


def test_models_are_listed_unloaded_and_loaded(http: httpx.Client, client: triton.InferenceServerClient) -> None:
    [one] = client.get_model_repository_index()
    assert (one["name"], one["state"], one["reason"]) == (MODEL, "READY", "")
    with pytest.raises(InferenceServerException, match="'config' is not supported") as refused:
        client.load_model(MODEL, config="{}")
    assert refused.value.status() == "400"
    client.load_model(MODEL)  # no change
    assert client.is_model_ready(MODEL)
    assert http.post("/v2/repository/index", json={"ready": True}).json() == [one]


def test_an_unloaded_model_is_not_found(solo_bundle: Path) -> None:
    app = create_app(Pipeline.open(solo_bundle, threads=1), SETTINGS)
    with serving(app) as http, triton.InferenceServerClient(http.base_url.netloc.decode()) as client:
        client.unload_model(MODEL)
        assert not client.is_model_ready(MODEL)
        with pytest.raises(InferenceServerException, match="there is no model 'tiny-solo'") as refused:
            client.infer(MODEL, [images(PNG)])
        assert refused.value.status() == "404"


def test_a_failure_raises_the_clients_own_exception(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match=r"IMAGE\[1\]: not a supported image") as damaged:
        client.infer(MODEL, [images(PNG, b"no image")])
    assert damaged.value.status() == "415"
    with pytest.raises(InferenceServerException, match="max_instances: ") as impossible:
        client.infer(MODEL, [images(PNG)], parameters={"max_instances": 0})
    assert impossible.value.status() == "422"


def test_the_openapi_document_has_every_path(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    infer = paths["/v2/models/{name}/versions/{version}/infer"]["post"]
    assert {"400", "404", "413", "415", "422", "503", "504"} <= set(infer["responses"])
    assert set(infer["responses"]["200"]["content"]) == {"application/json", "application/octet-stream"}
    assert "Inference-Header-Content-Length" in {one["name"] for one in infer["parameters"]}
    both = ("", "/ready", "/config", "/infer")
    assert {f"/v2/models/{{name}}{version}{end}" for version in ("", "/versions/{version}") for end in both} <= set(
        paths
    )
