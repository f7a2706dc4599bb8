"""`solo export --triton` writes a model repository that Triton's own definition of a configuration accepts, or nothing.

`make test-triton` runs the real server on such repositories.
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from google.protobuf import text_format
from solo_export.triton import RepositoryError, RepositoryRequest, check_repository, warm_up_hw, write_repository
from solo_export.triton_config import INPUTS, OUTPUTS, Instances, model_config, quoted
from solo_models.bundle import CATEGORIES, MASKS, BundleError, read_bundle
from solo_models.cli import main
from solo_models.demo import demo_bundle
from solo_models.engine_file import EngineHeader, ShapeRange, write_engine
from solo_server.http.v2 import outputs as v2_outputs
from solo_server.http.v2 import requests as v2_requests
from solo_server.pipeline.image import ImageLimits, decode
from support.bundles import quick_bundle, zipped_folder
from support.networks import tiny_network
from support.specs import quick_spec
from support.triton_config import model_config_pb2

NAME = "demo-person"
V2_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "INT32": "TYPE_INT32", "UINT8": "TYPE_UINT8"}


def config(folder: Path) -> Any:
    """The configuration of a model as Triton's own definition reads it: an unknown field or value is an error."""
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the demo model; tests do not change it."""
    output = tmp_path_factory.mktemp("process") / "repository"
    write_repository(demo_bundle(), RepositoryRequest(output))
    return output


@pytest.fixture(scope="module")
def as_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the demo model with its graphs as models; tests do not change it."""
    output = tmp_path_factory.mktemp("models") / "repository"
    write_repository(
        demo_bundle(), RepositoryRequest(output, version=3, network="models", instances=Instances("gpu", 2))
    )
    return output


def test_inputs_and_outputs_are_those_of_the_v2_endpoint() -> None:
    assert {name: (V2_TYPES[kind], shape) for name, (kind, shape) in v2_requests.INPUTS.items()} == INPUTS
    assert {each.name: (V2_TYPES[each.datatype], each.shape) for each in v2_outputs.OUTPUTS.values()} == OUTPUTS


def test_the_command_writes_a_bundle_as_a_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "made" / "repository"
    assert (
        main(["export", str(demo_bundle()), "--triton", str(output), "--name", "people", "--triton-version", "7"]) == 0
    )
    assert f"tritonserver --model-repository={output}" in "".join(capsys.readouterr())
    files = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    bundle = [f"people/7/bundle/{name}" for name in sorted(path.name for path in demo_bundle().iterdir())]
    assert files == sorted(["people/7/model.py", *bundle, "people/config.pbtxt", "people/warmup/image"])
    assert read_bundle(output / "people" / "7" / "bundle").version == read_bundle(demo_bundle()).version


def test_a_checkpoint_is_exported_first(tmp_path: Path) -> None:
    network = tiny_network("decoupled_light", quick_spec("decoupled_light"))
    torch.save({"spec": json.dumps(network.spec.to_dict()), "state_dict": network.state_dict()}, tmp_path / "ants.pth")
    assert main(["export", str(tmp_path / "ants.pth"), "--triton", str(tmp_path / "r")]) == 0
    bundle = read_bundle(tmp_path / "r" / "ants" / "1" / "bundle")
    assert (bundle.name, bundle.spec) == ("ants", network.spec)
    assert config(tmp_path / "r" / "ants").name == "ants"


def test_a_bundle_is_converted_to_the_precision_that_is_asked_for(tmp_path: Path) -> None:
    options = ["--precision", "fp16", "--name", "half", "--triton-network", "models"]
    assert main(["export", str(quick_bundle()), "--triton", str(tmp_path / "r"), *options]) == 0
    bundle = read_bundle(tmp_path / "r" / "half" / "1" / "bundle")
    assert bundle.precision == "fp16"
    for graph in (CATEGORIES, MASKS):
        read = config(tmp_path / "r" / f"half_{Path(graph).stem}")
        model = onnx.ModelProto.FromString(bundle.files[graph])
        kinds = [onnx.TensorProto.DataType.Name(each.type.tensor_type.elem_type) for each in model.graph.output]
        named = {"FLOAT": "TYPE_FP32", "FLOAT16": "TYPE_FP16"}
        assert [model_config_pb2.DataType.Name(each.data_type) for each in read.output] == [
            named[kind] for kind in kinds
        ]


def test_options_of_triton_without_triton_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(demo_bundle()), "-o", str(tmp_path / "b"), "--triton-device", "gpu"]) == 2
    assert "go with --triton DIR" in capsys.readouterr().err


def test_a_zip_stays_a_zip(tmp_path: Path) -> None:
    source = zipped_folder(demo_bundle(), tmp_path / "person.zip")
    write_repository(source, RepositoryRequest(tmp_path / "repository"))
    assert read_bundle(tmp_path / "repository" / NAME / "1" / "bundle.zip").name == NAME


def test_triton_parses_the_configuration_of_the_model(in_process: Path) -> None:
    read = config(in_process / NAME)
    assert (read.name, read.backend, read.max_batch_size) == (NAME, "python", 0)
    assert read.version_policy.WhichOneof("policy_choice") == "all"
    assert [(each.name, each.optional) for each in read.input] == [("IMAGE", True), ("PIXELS", True)]
    assert [each.name for each in read.output] == list(OUTPUTS)
    assert [(group.kind, group.count) for group in read.instance_group] == [
        (model_config_pb2.ModelInstanceGroup.KIND_CPU, 1)
    ]
    assert read.parameters["classes"].string_value == "person"
    assert not read.HasField("dynamic_batching")  # Triton would refuse it without a batch axis


def test_the_warm_up_image_is_one_that_our_pipeline_decodes(in_process: Path) -> None:
    [warm_up] = config(in_process / NAME).model_warmup
    assert warm_up.batch_size == 1  # Triton skips samples with the default, 0
    content = (in_process / NAME / "warmup" / warm_up.inputs["IMAGE"].input_data_file).read_bytes()
    length = struct.unpack_from("<I", content)[0]
    assert length == len(content) - 4
    rules = read_bundle(demo_bundle()).spec.preprocess
    assert decode(content[4:], ImageLimits()).shape == (*warm_up_hw(rules), 3)


def test_graphs_are_models_that_batch_by_shape(as_models: Path) -> None:
    categories, masks = (config(as_models / f"{NAME}_{graph}") for graph in ("categories", "masks"))
    bundle = read_bundle(demo_bundle())
    assert (as_models / f"{NAME}_categories" / "3" / "model.onnx").read_bytes() == bundle.files[CATEGORIES]
    assert (as_models / f"{NAME}_masks" / "3" / "model.onnx").read_bytes() == bundle.files[MASKS]
    for read, graph in ((categories, CATEGORIES), (masks, MASKS)):
        assert read.backend == "onnxruntime"
        assert read.HasField("dynamic_batching")
        assert read.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
        model = onnx.ModelProto.FromString(bundle.files[graph])
        assert [each.name for each in read.input] == [each.name for each in model.graph.input]
        assert [each.name for each in read.output] == [each.name for each in model.graph.output]
        assert not any(each.allow_ragged_batch for each in read.input)
        for each, value in zip([*read.input, *read.output], [*model.graph.input, *model.graph.output], strict=True):
            dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]
            assert list(each.dims) == dims[1:]
    assert categories.max_batch_size == 8
    front = config(as_models / NAME)
    assert (front.instance_group[0].kind, front.instance_group[0].count) == (
        model_config_pb2.ModelInstanceGroup.KIND_CPU,
        2,
    )
    assert front.parameters["graphs"].string_value == "triton"
    assert not front.model_warmup  # it would call graphs that may not be loaded yet


def test_the_warm_up_of_the_graphs_has_the_size_of_its_image(as_models: Path) -> None:
    inputs = config(as_models / f"{NAME}_categories").model_warmup[0].inputs
    content = (as_models / f"{NAME}_categories" / "warmup" / inputs["image_hw"].input_data_file).read_bytes()
    assert np.frombuffer(content, "<i8").tolist() == list(inputs["images"].dims[:2])


def test_a_model_on_a_gpu_asks_for_the_cuda_engine(tmp_path: Path) -> None:
    write_repository(demo_bundle(), RepositoryRequest(tmp_path / "r", instances=Instances("gpu")))
    read = config(tmp_path / "r" / NAME)
    assert read.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
    assert read.parameters["SOLO_ENGINE"].string_value == "cuda"


def engine(path: Path, onnx_sha256: str) -> Path:
    plan = b"ftrt plan"
    shape = ShapeRange((1, 384, 384, 3), (4, 384, 512, 3), (16, 512, 512, 3))
    profile = {"images": shape, "image_hw": ShapeRange((1, 2), (4, 2), (16, 2))}
    header = EngineHeader(
        onnx_sha256, "10.4.0", "8.0", "A100", "fp32", (profile, profile), len(plan), hashlib.sha256(plan).hexdigest()
    )
    return write_engine(path, header, plan)


def test_an_engine_takes_the_place_of_the_graph_it_was_built_from(tmp_path: Path) -> None:
    graph = read_bundle(demo_bundle()).files[CATEGORIES]
    built = engine(tmp_path / "c.engine", hashlib.sha256(graph).hexdigest())
    options = ["--triton-network", "models", "--triton-device", "gpu", "--triton-engine", str(built)]
    assert main(["export", str(demo_bundle()), "--triton", str(tmp_path / "r"), *options]) == 0
    read = config(tmp_path / "r" / f"{NAME}_categories")
    assert (read.backend, read.max_batch_size) == ("tensorrt", 16)
    assert list(read.instance_group[0].profile) == ["0", "1"]
    assert list(read.model_warmup[0].inputs["images"].dims) == [384, 512, 3]
    assert (tmp_path / "r" / f"{NAME}_categories" / "1" / "model.plan").read_bytes() == b"ftrt plan"
    assert not (tmp_path / "r" / f"{NAME}_categories" / "1" / "model.onnx").exists()
    assert config(tmp_path / "r" / f"{NAME}_masks").backend == "onnxruntime"


def test_an_engine_of_another_graph_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built = engine(tmp_path / "c.engine", "0" * 64)
    options = ["--triton-network", "models", "--triton-device", "gpu", "--triton-engine", str(built)]
    assert main(["export", str(demo_bundle()), "--triton", str(tmp_path / "r"), *options]) == 2
    assert "was built from another graph" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_damaged_engine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.engine").write_bytes(b"ftrt")
    request = RepositoryRequest(tmp_path / "r", None, 1, "models", Instances("gpu"), (tmp_path / "c.engine",))
    with pytest.raises(RepositoryError, match=r"c\.engine: "):
        write_repository(demo_bundle(), request)


@pytest.mark.parametrize(
    "options",
    [
        ("--triton-engine", "x"),
        ("--name", "../up"),
        ("--name", ""),
        ("--name", "a/b"),
        ("--name", "x" * 65),
        ("--triton-instances", "65"),
        ("--single-file",),
        ("--force",),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(demo_bundle()), "--triton", str(tmp_path / "r"), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("solo export: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(RepositoryError, match="is not an empty folder"):
        write_repository(demo_bundle(), RepositoryRequest(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(RepositoryError, match="is not an empty folder"):
        check_repository(RepositoryRequest(tmp_path / "mine"))


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    assert write_repository(demo_bundle(), RepositoryRequest(tmp_path / "r")) == NAME
    assert [path.name for path in (tmp_path / "r").iterdir()] == [NAME]


def test_a_damaged_bundle_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text(json.dumps({"format": "solo-bundle"}))
    with pytest.raises(BundleError):
        write_repository(tmp_path / "bundle", RepositoryRequest(tmp_path / "r"))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("text", ["plain", 'a "quote" \\ and\nline', "Füße, 車", "} name: 'x'"])
def test_any_class_name_survives_the_configuration(text: str) -> None:
    written = model_config("m", Instances(), {"classes": text}, warm_up=None)
    read = text_format.Parse(written, model_config_pb2.ModelConfig())
    assert read.parameters["classes"].string_value == text
    assert quoted(text).isascii()
