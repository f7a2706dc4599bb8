"""Checkpoints of every known layout give the same network; what is not SOLO, or not whole, is refused by name."""

import json
import os
import re
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from solo_models import checkpoint as reader
from solo_models.checkpoint import CheckpointError, read_checkpoint
from solo_models.coco import COCO_CLASSES
from solo_models.network import SoloNetwork
from solo_models.spec import ModelSpec
from solo_models.tensors import ALLOWED_GLOBALS, StoredTensors, read_tensors
from support.networks import tiny_network
from support.specs import deformable_spec
from torch import Tensor

State = dict[str, Tensor]

MMDET = {"mask_towers.0": "mask_convs", "category_tower": "cls_convs", "kernels": "conv_mask_list",
         "kernels_x": "conv_mask_list_x", "kernels_y": "conv_mask_list_y", "categories": "conv_cls"}  # fmt: skip
OFFICIAL = {"mask_towers.0": "ins_convs", "category_tower": "cate_convs", "kernels": "solo_ins_list",
            "kernels_x": "dsolo_ins_list_x", "kernels_y": "dsolo_ins_list_y", "categories": "solo_cate"}  # fmt: skip


def published(network: SoloNetwork, layout: str) -> State:
    """The network's tensors under the names of mmdet or of the official code, written out independently of our reader."""
    table, prefix = (dict(MMDET), "mask_head") if layout == "mmdet" else (dict(OFFICIAL), "bbox_head")
    tower = table["mask_towers.0"]
    if network.spec.variant == "decoupled":
        table |= {"mask_towers.0": f"{tower}_x", "mask_towers.1": f"{tower}_y"}
    if layout == "official" and network.spec.is_decoupled:
        table["categories"] = "dsolo_cate"
    renamed = {}
    for key, value in network.state_dict().items():
        if key.startswith("neck."):
            key = re.sub(r"lateral\.(\d)", r"lateral_convs.\1.conv", key)
            key = re.sub(r"output\.(\d)", r"fpn_convs.\1.conv", key)
        for ours in sorted(table, key=len, reverse=True):
            if key.startswith(f"head.{ours}."):
                key = f"{prefix}.{table[ours]}." + key.removeprefix(f"head.{ours}.").replace("norm.", "gn.")
                break
        renamed[key] = value
    return renamed


def _save(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path / "checkpoint.pth", **options)
    return path / "checkpoint.pth"


@pytest.fixture(scope="module")
def wide() -> SoloNetwork:
    """Group counts are not in a file; published networks have 32 groups."""
    tiny = tiny_network("solo")
    return SoloNetwork(replace(tiny.spec, norm_groups=32)).eval()


def _numbered(state: State) -> State:
    """A small state dict with the same names and other values: each tensor is its number."""
    return {name: torch.tensor(float(i)) for i, name in enumerate(state)}


def _first_column(state: State) -> State:
    """A small state dict with the same names and numbers of rows, which decide the specification."""
    return {k: v.flatten(1)[:, :1].clone() if v.ndim > 1 else v for k, v in state.items()}


@pytest.fixture
def unfilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are not built: for tests of the specification and of what is noted beside the tensors."""

    def fill(spec: ModelSpec, *_: object) -> types.SimpleNamespace:
        return types.SimpleNamespace(spec=spec)

    monkeypatch.setattr(reader, "_fill", fill)


@pytest.mark.parametrize("layout", ["mmdet", "official"])
def test_published_layouts_are_recognised(network: SoloNetwork, tmp_path: Path, layout: str) -> None:
    names = list(network.spec.class_names)
    path = _save(tmp_path, {"meta": {"CLASSES": names}, "state_dict": published(network, layout)})
    found = read_checkpoint(path)
    spec, expected = found.network.spec, network.spec
    assert found.layout == layout
    for field in ("variant", "backbone", "class_names", "grids", "fpn_channels", "head_channels", "head_depth"):
        assert getattr(spec, field) == getattr(expected, field), field
    ours, theirs = found.network.state_dict(), network.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_our_own_layout_carries_its_specification(network: SoloNetwork, tmp_path: Path) -> None:
    content = {"spec": json.dumps(network.spec.to_dict()), "state_dict": network.state_dict()}
    found = read_checkpoint(_save(tmp_path, content))
    assert (found.layout, found.network.spec) == ("own", network.spec)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"model": s},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {
            "state_dict": {f"module.model.{k}": v for k, v in s.items()},
            "optimizer": {"state": {0: torch.ones(1)}},
        },
        lambda s: {"ema_state_dict": {"steps": torch.tensor(9), **{f"module.{k}": v for k, v in s.items()}}},
        lambda s: {"state_dict": s | {"ema_" + k.replace(".", "_"): torch.zeros_like(v) for k, v in s.items()}},
        lambda s: {"state_dict": {k: torch.zeros_like(v) for k, v in s.items()}, "state_dict_ema": s},
        lambda s: {"state_dict": s, "ema_state_dict": {k: torch.zeros_like(v) for k, v in s.items()}},
    ],
    ids=["bare", "model", "module", "lightning", "ema alone", "mmcv ema", "timm ema", "mmengine ema"],
)
def test_wrappings_do_not_matter(wide: SoloNetwork, tmp_path: Path, wrap: Callable[[State], Any]) -> None:
    state = _numbered(published(wide, "mmdet"))
    assert read_tensors(_save(tmp_path, wrap(state))).tensors == state


def test_counters_of_batch_norm_may_be_missing(wide: SoloNetwork, tmp_path: Path) -> None:
    state = {k: v for k, v in published(wide, "mmdet").items() if not k.endswith("num_batches_tracked")}
    found = read_checkpoint(_save(tmp_path, {"state_dict": state})).network
    assert torch.equal(found.head.categories.weight, wide.head.categories.weight)


def _wrapped(part: str, by: str) -> Callable[[State], State]:
    """The tensors of one module under the name of what it is wrapped in."""
    return lambda s: {
        (f"{part}.{by}.{k.removeprefix(f'{part}.')}" if k.startswith(f"{part}.") else k): v for k, v in s.items()
    }


def _prefixed(prefix: str) -> Callable[[State], State]:
    return lambda s: {prefix + k: v for k, v in s.items()}


def _with_mmcv_copies(state: State) -> State:
    return state | {"ema_" + k.replace(".", "_"): torch.zeros_like(v) for k, v in state.items()}


@pytest.mark.parametrize(
    "changes",
    [
        [_wrapped("backbone", "_orig_mod")],
        [_wrapped("backbone", "_orig_mod"), _wrapped("neck", "_orig_mod"), _wrapped("mask_head", "_orig_mod")],
        [_wrapped("backbone.layer3", "_orig_mod"), _wrapped("mask_head.conv_cls", "_orig_mod")],
        [_wrapped("backbone", "_orig_mod"), _prefixed("module.")],
        [_wrapped("backbone", "_orig_mod"), _prefixed("_orig_mod.module.model.")],
        [_wrapped("backbone", "module"), _wrapped("neck", "module._orig_mod")],
        [_wrapped("backbone", "_fsdp_wrapped_module"), _wrapped("backbone", "_checkpoint_wrapped_module")],
        [_wrapped("backbone", "_orig_mod"), _prefixed("ema_model.module.")],
        [_wrapped("backbone", "_orig_mod"), _with_mmcv_copies],
        [_wrapped("backbone", "_orig_mod"), _with_mmcv_copies, _prefixed("module.")],
        [_with_mmcv_copies, _wrapped("backbone", "_orig_mod")],
    ],
    ids=["backbone", "each part", "parts of parts", "and DDP", "and prefixes", "DDP inside", "FSDP", "EMA", "mmcv EMA",
         "mmcv EMA and DDP", "mmcv EMA of bare names"],
)  # fmt: skip
@pytest.mark.parametrize("wrapping", ["state_dict", "ema_state_dict"])
def test_checkpoints_with_compiled_or_wrapped_parts_are_read(
    wide: SoloNetwork, tmp_path: Path, changes: list[Callable[[State], State]], wrapping: str
) -> None:
    expected = _numbered(published(wide, "mmdet"))
    state = expected
    for change in changes:
        state = change(state)
    steps = {"steps": torch.tensor(9)} if wrapping == "ema_state_dict" else {}
    assert read_tensors(_save(tmp_path, {wrapping: state | steps})).tensors == expected


def test_our_own_layout_is_read_with_a_compiled_head(wide: SoloNetwork, tmp_path: Path) -> None:
    state = _wrapped("head", "_orig_mod")(wide.state_dict())
    found = read_checkpoint(_save(tmp_path, {"spec": json.dumps(wide.spec.to_dict()), "state_dict": state}))
    assert torch.equal(found.network.head.categories.weight, wide.head.categories.weight)


def test_a_tensor_under_two_names_is_refused(wide: SoloNetwork, tmp_path: Path) -> None:
    state = _numbered(published(wide, "mmdet"))
    state["backbone._orig_mod.conv1.weight"] = torch.zeros_like(state["backbone.conv1.weight"])
    with pytest.raises(CheckpointError, match=r"conv1\.weight and backbone\._orig_mod\.conv1\.weight both stand for"):
        read_checkpoint(_save(tmp_path, state))


def test_the_format_of_torch_before_zip_files_is_read(wide: SoloNetwork, tmp_path: Path) -> None:
    path = _save(tmp_path, published(wide, "mmdet"), _use_new_zipfile_serialization=False)
    assert read_checkpoint(path).layout == "mmdet"


@pytest.mark.usefixtures("unfilled")
def test_class_names_come_from_meta_or_the_caller_or_are_numbered(wide: SoloNetwork, tmp_path: Path) -> None:
    state = _first_column(published(wide, "mmdet"))
    plain = _save(tmp_path, state)
    assert read_checkpoint(plain).network.spec.class_names == ("class 0", "class 1", "class 2")
    assert read_checkpoint(plain, class_names=("a", "b", "c")).network.spec.class_names == ("a", "b", "c")
    meta = {"dataset_meta": {"classes": ("x_y", "_background_", "x y")}}
    noted = read_checkpoint(_save(tmp_path, {"meta": meta, "state_dict": state}))
    assert noted.network.spec.class_names == ("x_y", "_background_", "x y")
    assert noted.unused_names is None
    plain = _save(tmp_path, state)
    with pytest.raises(CheckpointError, match="3 classes, but 2 names are given"):
        read_checkpoint(plain, class_names=("a", "b"))


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize(
    "meta",
    [
        {"CLASSES": "dent"},
        {"dataset_meta": {"classes": "dent"}},
        {"CLASSES": None, "dataset_meta": {"CLASSES": "dent"}},
    ],
)
def test_a_string_instead_of_a_list_names_the_only_class(
    wide: SoloNetwork, tmp_path: Path, meta: dict[str, Any]
) -> None:
    state = _first_column(published(wide, "mmdet"))
    state |= {k: v[:1] for k, v in state.items() if k.startswith("mask_head.conv_cls.")}
    found = read_checkpoint(_save(tmp_path, {"meta": meta, "state_dict": state}))
    assert (found.network.spec.class_names, found.unused_names) == (("dent",), None)


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize("names", ["dent", ("a", "b"), ["a", "b", "c", "d"], {"a": 0, "b": 1, "c": 2}, [1, 2, 3]])
def test_class_names_of_the_wrong_number_or_kind_are_reported(wide: SoloNetwork, tmp_path: Path, names: Any) -> None:
    path = _save(tmp_path, {"meta": {"CLASSES": names}, "state_dict": _first_column(published(wide, "official"))})
    found = read_checkpoint(path)
    assert found.network.spec.class_names == ("class 0", "class 1", "class 2")
    assert found.unused_names is not None
    assert found.unused_names.startswith("the network has 3 classes, and the file has ")
    assert read_checkpoint(path, class_names=("x", "y", "z")).unused_names is None


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize("empty", [None, "", [], (), {}])
def test_an_empty_list_of_class_names_counts_as_none(wide: SoloNetwork, tmp_path: Path, empty: Any) -> None:
    path = _save(tmp_path, {"meta": {"CLASSES": empty}, "state_dict": _first_column(published(wide, "official"))})
    assert read_checkpoint(path).unused_names is None


def test_eighty_unnamed_classes_are_cocos() -> None:
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    assert (COCO_CLASSES[0], COCO_CLASSES[56], COCO_CLASSES[79]) == ("person", "chair", "toothbrush")


@pytest.mark.usefixtures("unfilled")
def test_the_size_is_the_callers_or_the_variants(network: SoloNetwork, tmp_path: Path) -> None:
    path = _save(tmp_path, _first_column(published(network, "mmdet")))
    own = read_checkpoint(path).network.spec.preprocess
    expected = (852, 512) if network.spec.variant == "decoupled_light" else (1333, 800)
    assert (own.long_side, own.short_side) == expected
    given = read_checkpoint(path, size=(852, 512)).network.spec.preprocess
    assert (given.long_side, given.short_side) == (852, 512)


class Payload:
    """Unpickling this would run code."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.call, self.arguments)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize(("call", "named"), [(print, "print"), (os.mkdir, "mkdir"), (np.frombuffer, "frombuffer")])
def test_code_in_a_file_is_never_executed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], call: Callable[..., Any], named: str, zipped: bool
) -> None:
    payload = Payload(call, str(tmp_path / "made")) if call is os.mkdir else Payload(call, b"executed")
    with pytest.raises(CheckpointError, match=rf"contains more than tensors: reading \S*{named} would run code"):
        read_checkpoint(_save(tmp_path, {"state_dict": {}, "meta": payload}, _use_new_zipfile_serialization=zipped))
    assert "executed" not in capsys.readouterr().out
    assert not (tmp_path / "made").exists()


def test_only_harmless_names_are_allowed_beside_tensors() -> None:
    """A new name here is a decision about security: numbers, arrays, and a stand-in that keeps nothing."""
    names = {name for _, name in ALLOWED_GLOBALS if not name.startswith("numpy.dtypes.")}
    assert names == {
        "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
        "numpy.ndarray", "numpy.dtype", "mmengine.logging.history_buffer.HistoryBuffer",
    }  # fmt: skip


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_numbers_beside_the_tensors_are_read(
    wide: SoloNetwork, tmp_path: Path, module: str, zipped: bool
) -> None:
    """Learning rates and losses in `meta` and optimizer states; numpy 1 wrote the older module name."""
    meta = {"lr": np.float64(0.01), "iter": np.int64(9), "losses": np.arange(3.0), "mmdet_version": "2.28.0"}
    content = {"meta": meta, "state_dict": _first_column(published(wide, "mmdet"))}
    path = _save(tmp_path, content, _use_new_zipfile_serialization=zipped)
    if module == "numpy.core.multiarray" and not zipped:
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_checkpoint(path).provenance == {"wrapping": "state_dict", "mmdet_version": "2.28.0"}


def test_mmengines_history_of_losses_is_ignored(
    wide: SoloNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints of mmdet 3.x as training leaves them."""
    module = types.ModuleType("mmengine.logging.history_buffer")
    buffer = type("HistoryBuffer", (), {"__module__": module.__name__})
    module.HistoryBuffer = buffer  # type: ignore[attr-defined]  # made here
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    history = buffer()
    history._log_history = np.arange(4.0)
    content = {
        "meta": {"epoch": 36, "iter": 10, "mmengine_version": "0.10.7", "dataset_meta": {"classes": ("a", "b", "c")}},
        "message_hub": {"log_scalars": {"train/loss": history}},
        "state_dict": published(wide, "mmdet"),
    }
    path = _save(tmp_path, content)
    monkeypatch.undo()
    found = read_checkpoint(path)
    assert found.network.spec.class_names == ("a", "b", "c")
    assert found.provenance["mmengine_version"] == "0.10.7"


@pytest.fixture(scope="module")
def deformable() -> SoloNetwork:
    return SoloNetwork(replace(deformable_spec("decoupled_light"), norm_groups=32)).eval()


def _with_offsets_beside(state: State) -> State:
    """As mmdet 1.x named the offsets: beside the convolution, not within it."""
    return {k.replace("conv.conv_offset.", "conv_offset.").replace("conv2.conv_offset.", "conv2_offset."): v
            for k, v in state.items()}  # fmt: skip


@pytest.mark.parametrize("layout", ["mmdet", "official"])
@pytest.mark.parametrize("beside", [False, True], ids=["within", "beside, as mmdet 1.x wrote them"])
def test_offsets_have_our_names_in_every_layout(
    deformable: SoloNetwork, layout: Literal["mmdet", "official"], beside: bool
) -> None:
    state = published(deformable, layout)
    names = reader._our_names(_with_offsets_beside(state) if beside else state, layout)
    assert list(names) == list(deformable.state_dict())


@pytest.mark.parametrize("layout", ["mmdet", "official"])
def test_deformable_networks_are_recognised(deformable: SoloNetwork, tmp_path: Path, layout: str) -> None:
    network, state = deformable, published(deformable, layout)
    found = read_checkpoint(_save(tmp_path, _with_offsets_beside(state) if layout == "official" else state)).network
    assert (found.spec.deformable_stages, found.spec.deformable_towers) == ((2, 3, 4), True)
    ours, theirs = found.state_dict(), network.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_safetensors_are_read_with_their_metadata(wide: SoloNetwork, tmp_path: Path) -> None:
    path, own = tmp_path / "model.safetensors", tmp_path / "own.bin"
    save_file(published(wide, "official"), path, {"classes": '["x", "y", "z"]'})
    assert read_checkpoint(path).network.spec.class_names == ("x", "y", "z")
    save_file(wide.state_dict(), own, {"spec": json.dumps(wide.spec.to_dict())})
    assert read_checkpoint(own).network.spec == wide.spec


def test_damaged_safetensors_are_refused(wide: SoloNetwork, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(_numbered(published(wide, "mmdet")), path, {"classes": "x, y"})
    with pytest.raises(CheckpointError, match=r"metadata\.classes: must be a JSON list"):
        read_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        read_checkpoint(path)


def test_half_precision_weights_are_read(wide: SoloNetwork, tmp_path: Path) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in published(wide, "mmdet").items()}
    found = read_checkpoint(_save(tmp_path, state)).network
    assert found.head.categories.weight.dtype == torch.float32


def test_two_names_of_one_tensor_are_refused(wide: SoloNetwork, tmp_path: Path) -> None:
    state = _numbered(published(wide, "official"))
    state["bbox_head.dsolo_cate.weight"] = state["bbox_head.solo_cate.weight"]
    with pytest.raises(CheckpointError, match=r"solo_cate\.weight and bbox_head\.dsolo_cate\.weight both stand for"):
        read_checkpoint(_save(tmp_path, state))


def test_a_truncated_file_is_refused(wide: SoloNetwork, tmp_path: Path) -> None:
    path = _save(tmp_path, _first_column(published(wide, "mmdet")))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="cannot be read as a torch file"):
        read_checkpoint(path)


def _without(key: str) -> Callable[[State], State]:
    return lambda state: {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"fc.weight": torch.ones(2)}, "contains no SOLO head.*fc"),
        (lambda s: s | {"mask_head.extra.weight": torch.ones(1)}, r"has unknown 1 tensor: mask_head\.extra\.weight"),
        (_without("neck.fpn_convs.1.conv.bias"), r"lacks 1 tensor: neck\.fpn_convs\.1\.conv\.bias"),
        (_without("neck.lateral_convs.0.conv.weight"), r"lacks neck\.lateral_convs\.0\.conv\.weight"),
        (
            lambda s: s | {"neck.fpn_convs.0.conv.bias": torch.ones(3)},
            r"neck\.fpn_convs\.0\.conv\.bias: shape \(3,\), expected \(16,\)",
        ),
        (lambda s: s | {"neck.fpn_convs.0.conv.bias": torch.full((16,), torch.nan)}, "not finite"),
        (
            lambda s: s | {"backbone.layer2.0.conv2.conv_offset.weight": torch.ones(27, 128, 3, 3)},
            r"27 channels: .*DCNv2 \(modulated\) are not supported",
        ),
        (
            lambda s: s | {"backbone.layer2.0.conv2.conv_offset.weight": torch.ones(72, 128, 3, 3)},
            "72 channels: .* of several groups are not supported",
        ),
        (
            lambda s: s | {"backbone.layer2.0.conv2.conv_offset.weight": torch.ones(18, 128, 3, 3)},
            "deformable_stages: need ResNet-50 or ResNet-101",
        ),
        (_without("mask_head.conv_mask_list.4.weight"), r"lacks mask_head\.conv_mask_list\.4\.weight"),
        (_without("mask_head.mask_convs.1.gn.bias"), r"lacks 1 tensor: mask_head\.mask_convs\.1\.gn\.bias"),
        (lambda s: s | {"mask_head.kernel_convs.0.conv.weight": torch.ones(1)}, "is a SOLOv2 network"),
        (
            lambda s: {"backbone.a": torch.ones(1), "roi_head.b": torch.ones(1), "rpn_head.c": torch.ones(1)},
            r"contains no SOLO head.*roi_head, rpn_head \(a two-stage detector such as Mask R-CNN\)",
        ),
        (
            lambda s: {k: v for i, (k, v) in enumerate(sorted(s.items())) if i % 2},
            "lacks",
        ),
        (
            lambda s: s | {"mask_head.cls_convs.0.conv.weight": torch.ones(48, 16, 3, 3)},
            "head_channels: must be a multiple",
        ),
        (lambda s: s | {"backbone.layer3.2.conv1.weight": torch.ones(1)}, "3 blocks in layer3"),
    ],
)
def test_tensors_left_over_missing_or_unusable_are_named(
    wide: SoloNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[State], State], message: str
) -> None:
    stored = StoredTensors(change(published(wide, "mmdet")), "", {}, None)
    monkeypatch.setattr(reader, "read_tensors", lambda _: stored)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken zip"])
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"a": 1}}, torch.ones(3)])
def test_a_torch_file_without_named_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CheckpointError, match="contains"):
        read_checkpoint(_save(tmp_path, content))


@pytest.mark.parametrize("seed", range(24))
def test_damaged_files_raise_no_other_error(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    small = {"mask_head.conv_cls.weight": torch.ones(2, 3), "a": [torch.zeros(2)]}
    path = _save(tmp_path, small, _use_new_zipfile_serialization=bool(seed % 2))
    content = bytearray(path.read_bytes())
    for position in rng.integers(0, len(content), 8):
        content[position] = rng.integers(256)
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "nothing.pth")
