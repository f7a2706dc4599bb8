"""A real TensorRT builder makes engines of every graph that we export, through our own builder code, with the outputs that we read.

TensorRT for RTX 1.7 is TensorRT's parser and builder without a GPU; it accepts more than 10.4 does, hence the list of operators
and types in `tests/export/test_operators.py`. That an engine runs is not shown here: it cannot be loaded without a GPU.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rtx import rtx_for
from solo_models.engine_file import ShapeRange
from solo_models.spec import ModelSpec
from solo_server.backends.gpu.network import level_groups, tower_count
from solo_server.backends.gpu.tensorrt.build import EngineBuildError, PlanRequest, build_plan
from solo_server.backends.gpu.tensorrt.profiles import engine_profiles

GRAPHS = Path(os.environ["SOLO_TEST_GRAPHS"])
VARIANTS, PRECISIONS = ("solo", "decoupled", "decoupled_light"), ("fp32", "fp16", "int8")
KINDS = ("categories", "masks")
CAPABILITIES = ("SM75", "SM86")  # a plan for both
BATCH = 3
EMPTY_PLAN_BYTES = 10_000


def _spec(name: str) -> ModelSpec:
    return ModelSpec.from_dict(json.loads((GRAPHS / f"{name}.json").read_text()))


def _onnx(name: str, precision: str, kind: str) -> bytes:
    return (GRAPHS / f"{name}.{precision}.{kind}.onnx").read_bytes()


def _build(order: PlanRequest) -> tuple[dict[str, tuple[int, ...]], list[tuple[str, int, int]]]:
    """Shapes of the network's outputs by name, and the steps that were told."""
    networks: list[Any] = []
    told: list[tuple[str, int, int]] = []
    built = build_plan(rtx_for(CAPABILITIES, networks), order, lambda *step: told.append(step))
    assert len(built.plan) > EMPTY_PLAN_BYTES
    outputs = [networks[0].get_output(i) for i in range(networks[0].num_outputs)]
    return {output.name: tuple(output.shape) for output in outputs}, told


def _fixed(content: bytes, shapes: dict[str, tuple[int, ...]]) -> bytes:
    """The graph for these input shapes only, and outputs of whatever shape follows from them."""
    model = onnx.ModelProto.FromString(content)
    for value in model.graph.input:
        for dim, side in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            dim.dim_value = side
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return model.SerializeToString()


def _expected(spec: ModelSpec, kind: str, batch: int, level_hw: list[tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    if kind == "masks":
        features = (batch, spec.head_channels, *level_hw[0])
        return {f"mask_features_{i}": features for i in range(tower_count(spec))}
    levels = {f"level_{i}": (batch, spec.fpn_channels, *hw) for i, hw in enumerate(level_hw)}
    return {"scores": (batch, spec.num_cells, spec.num_classes), **levels}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", VARIANTS)
def test_graphs_of_fixed_shapes_build_with_the_shapes_of_three_images(name: str, precision: str, kind: str) -> None:
    spec = _spec(name)
    height, width = 128, 160
    level_hw = [(height // stride, width // stride) for stride in spec.strides]
    level = (BATCH, spec.fpn_channels, *level_hw[0])
    inputs = {"images": (BATCH, height, width, 3), "image_hw": (BATCH, 2), "level": level}
    order = PlanRequest(f"{kind}.onnx", _fixed(_onnx(name, precision, kind), inputs), ())
    outputs, _ = _build(order)
    assert outputs == _expected(spec, kind, BATCH, level_hw)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", VARIANTS)
def test_graphs_build_with_our_profiles_and_leave_the_batch_open(name: str, precision: str, kind: str) -> None:
    spec = _spec(name)
    profiles = engine_profiles(spec, max_batch=4).of_graph(f"{kind}.onnx")
    outputs, told = _build(PlanRequest(f"{kind}.onnx", _onnx(name, precision, kind), profiles))
    assert outputs == _expected(spec, kind, -1, [(-1, -1)] * len(spec.grids))
    assert len(told) > 10
    assert all(0 <= step <= steps for _, step, steps in told)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["deformable", "solo_r50"])
def test_deformable_networks_and_a_published_one_build_in_half_precision(name: str, kind: str) -> None:
    spec = _spec(name)
    profiles = engine_profiles(spec).of_graph(f"{kind}.onnx")
    bucket = len(level_groups(spec)) if kind == "masks" else 1
    order = PlanRequest(f"{kind}.onnx", _onnx(name, "fp16", kind), profiles[:bucket], workspace_mib=4096)
    outputs, _ = _build(order)
    assert outputs == _expected(spec, kind, -1, [(-1, -1)] * len(spec.grids))


def test_an_exact_size_gets_a_profile_beside_the_ranges() -> None:
    profiles = engine_profiles(_spec("solo"), 2, ((128, 192),)).categories
    assert len(profiles) == 3
    outputs, _ = _build(PlanRequest("categories.onnx", _onnx("solo", "fp16", "categories"), profiles))
    assert outputs["scores"][0] == -1


def test_a_graph_without_a_profile_for_its_open_shapes_is_refused_with_the_builders_words() -> None:
    with pytest.raises(EngineBuildError, match=r"masks\.onnx: TensorRT 1\.7\.1\.116 cannot build it: .*rofile"):
        _build(PlanRequest("masks.onnx", _onnx("solo", "fp32", "masks"), ()))


def test_a_profile_that_does_not_fit_is_refused() -> None:
    profile = {"level": ShapeRange((1, 5, 4, 4), (1, 5, 4, 4), (1, 5, 4, 4))}
    with pytest.raises(EngineBuildError, match=r"masks\.onnx"):
        _build(PlanRequest("masks.onnx", _onnx("solo", "fp32", "masks"), (profile,)))


def test_an_operator_that_tensorrt_lacks_is_named_with_its_node() -> None:
    model = onnx.ModelProto.FromString(_onnx("solo", "fp32", "masks"))
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type = "Det"
    with pytest.raises(EngineBuildError, match=rf"cannot read it: node {node.name} \(Det\)"):
        _build(PlanRequest("masks.onnx", model.SerializeToString(), ()))


def test_the_int8_form_for_cpus_is_refused_by_the_parser() -> None:
    """Which is why `solo build-engine` says so before: a zero point that is none, as activations for CPUs have."""
    model = onnx.ModelProto.FromString(_onnx("solo", "int8", "masks"))
    zero = next(t for t in model.graph.initializer if t.name == "level.zero")
    zero.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(zero) + np.int8(3), zero.name))
    with pytest.raises(EngineBuildError, match=r"cannot read it: node level\.(de)?quantize"):
        _build(PlanRequest("masks.onnx", model.SerializeToString(), ()))


def test_ctrl_c_ends_a_build_at_its_next_step() -> None:
    def interrupted(phase: str, step: int, steps: int) -> None:
        raise KeyboardInterrupt

    spec = _spec("solo")
    order = PlanRequest("masks.onnx", _onnx("solo", "fp32", "masks"), engine_profiles(spec, 2).masks)
    with pytest.raises(KeyboardInterrupt):
        build_plan(rtx_for(CAPABILITIES, []), order, interrupted)
