"""`solo inspect` recognises a file by its content; for other files it prints one line and exits with status 2."""

import hashlib
import json
import os
import pickle
import shlex
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from solo_models import facts
from solo_models.bundle import BundleContent, read_bundle, write_bundle
from solo_models.checkpoint import _published_name
from solo_models.cli import main
from solo_models.engine_file import EngineHeader, ShapeRange, write_engine
from solo_models.install import install_command
from solo_models.network import SoloNetwork
from support.bundles import zipped_folder
from support.networks import bundle_content, tiny_network
from support.specs import quick_spec

PLAN = b"ftrt: a plan"


@dataclass(frozen=True, slots=True)
class Description:
    """The output of one call, in both forms."""

    facts: dict[str, Any]
    text: str

    def line(self, key: str) -> str:
        """The value in the first line of that key."""
        return next(
            line.strip().removeprefix(key).strip() for line in self.text.splitlines() if line.split()[:1] == [key]
        )


@pytest.fixture
def describe(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], Description]:
    """`solo inspect` on a path, in both forms."""

    def inspect(path: Path) -> Description:
        printed = []
        for options in ([], ["--json"]):
            assert main(["inspect", str(path), *options]) == 0
            out, err = capsys.readouterr()
            assert err == ""
            printed.append(out)
        return Description(json.loads(printed[1]), printed[0])

    return inspect


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Callable[[Path, str], None]:
    """`solo inspect` on a path that it refuses: exit status 2 and one line of error, nothing else."""

    def refused(path: Path, said: str) -> None:
        for options in ([], ["--json"]):
            assert main(["inspect", str(path), *options]) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert err.startswith(f"solo inspect: {path}: ")
            assert err.count("\n") == 1
            assert err[:-1].isprintable()
            assert len(err) < 600
            assert said in err

    return refused


Describe = Callable[[Path], Description]
Refuse = Callable[[Path, str], None]


@pytest.fixture(scope="module")
def rich() -> BundleContent:
    """A bundle with every optional field of a manifest."""
    parity = {
        "max_score_difference": 5.5e-7,
        "shapes": [[1, 160, 224], [2, 224, 160]],
        "pictures": {"astronaut.jpg": {"matched": 12, "lowest_mask_iou": 0.99912}, "cat.jpg": {"matched": 3}},
        "mask_ap": {"fp32": {"ap": 16.3, "ap50": 36.2}, "fp16": {"ap": float("nan"), "ap50": 36.1}},
        "passed": True,
    }
    provenance = {"checkpoint_sha256": "ab" * 32, "tools": {"python": "3.11.7", "onnx": "1.23"}, "ran_on_gpu": False}
    card = {"MODEL_CARD.md": b"# card"}
    return replace(
        bundle_content(tiny_network("solo", quick_spec("solo"))), parity=parity, provenance=provenance, extra_files=card
    )


@cache
def _decoupled() -> SoloNetwork:
    return tiny_network("decoupled", quick_spec("decoupled"))


def _own_checkpoint(path: Path, **options: Any) -> Path:
    network = _decoupled()
    spec, meta = json.dumps(network.spec.to_dict()), {"mmdet_version": "3.3.0", "epoch": 36}
    torch.save({"spec": spec, "state_dict": network.state_dict(), "meta": meta}, path, **options)
    return path


def _engine(path: Path, **changes: Any) -> Path:
    header = EngineHeader(
        onnx_sha256="ab" * 32,
        tensorrt_version="10.4.0.26",
        compute_capability="7.0",
        gpu_name="Tesla V100-SXM2-16GB",
        precision="fp16",
        profiles=({"images": ShapeRange((1, 512, 864, 3), (2, 512, 864, 3), (8, 512, 864, 3))},),
        plan_bytes=len(PLAN),
        plan_sha256=hashlib.sha256(PLAN).hexdigest(),
    )
    return write_engine(path, replace(header, **changes), PLAN)


def _model(dtype: int = TensorProto.FLOAT, *nodes: onnx.NodeProto, **options: Any) -> onnx.ModelProto:
    """One addition of 64 weights to `x`, and further nodes."""
    add = helper.make_node("Add", ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", dtype, ["batch", 64])
    y = helper.make_tensor_value_info("y", dtype, [None, 64])
    weights = helper.make_tensor("w", dtype, [64], [0] * 64)
    graph = helper.make_graph([add, *nodes], "tiny", [x], [y], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **options)


def _saved(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


# --- checkpoints


@pytest.mark.parametrize("name", ["model.pth", "model.onnx"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_is_known_by_its_content(describe: Describe, tmp_path: Path, name: str, zipped: bool) -> None:
    path = _own_checkpoint(tmp_path / name, _use_new_zipfile_serialization=zipped)
    shown = describe(path)
    assert next(iter(shown.facts)) == "kind"
    assert (shown.facts["kind"], shown.line("kind")) == ("checkpoint", "checkpoint")
    assert shown.facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() == shown.line("sha256")


def test_a_checkpoint_is_described_by_network_and_provenance(describe: Describe, tmp_path: Path) -> None:
    shown = describe(_own_checkpoint(tmp_path / "model.pth"))
    network, expected = shown.facts["network"], _decoupled()
    assert shown.facts["layout"] == shown.line("layout") == "own"
    assert (network["variant"], network["backbone"]) == ("decoupled", "efficientnet_lite0")
    assert (network["head_depth"], network["head_channels"], network["input_size"]) == (2, 32, "192x128")
    assert shown.line("grids") == "9, 8, 7"
    assert shown.line("classes") == "3"
    assert shown.line("class_names") == "cat, dog, traffic light"
    assert shown.facts["provenance"].items() >= {"mmdet_version": "3.3.0", "epoch": 36}.items()
    assert shown.line("mmdet_version") == "3.3.0"
    millions = sum(p.numel() for p in expected.parameters()) / 1e6
    assert shown.facts["parameters_millions"] == pytest.approx(millions, abs=1e-3)
    assert shown.facts["tensors"] == sum("num_batches" not in k for k in expected.state_dict())


def test_class_names_that_are_not_used_are_reported(describe: Describe, tmp_path: Path) -> None:
    network = SoloNetwork(replace(tiny_network("solo").spec, norm_groups=32))
    state = {_published_name(name, "mmdet", "solo"): value for name, value in network.state_dict().items()}
    torch.save({"meta": {"CLASSES": ("dent", "scratch")}, "state_dict": state}, tmp_path / "a.pth")
    shown = describe(tmp_path / "a.pth")
    assert shown.facts["unused_class_names"].startswith(
        "the network has 3 classes, and the file has 2 names (dent, scratch)"
    )
    assert shown.line("unused_class_names").startswith("the network has 3 classes")
    assert "unused_class_names" not in describe(_own_checkpoint(tmp_path / "own.pth")).facts


def test_a_checkpoint_is_described_with_its_export_command(describe: Describe, tmp_path: Path) -> None:
    path = _own_checkpoint(tmp_path / "my model.pth")
    words = shlex.split(describe(path).facts["export"])
    assert words == ["solo", "export", str(path), "-o", "my model", "--size", "192x128"]


def test_the_suggested_bundle_is_never_the_checkpoint_itself(describe: Describe, tmp_path: Path) -> None:
    assert "-o weights_bundle --size 192x128" in describe(_own_checkpoint(tmp_path / "weights")).facts["export"]


def test_a_long_list_of_classes_is_shortened_for_people_only(
    describe: Describe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = _decoupled()
    names = tuple(f"thing {i}" for i in range(3))
    spec = json.dumps(replace(network.spec, class_names=names).to_dict())
    torch.save({"spec": spec, "state_dict": network.state_dict()}, tmp_path / "a.pth")
    monkeypatch.setattr(facts, "SHOWN_ITEMS", 2)
    shown = describe(tmp_path / "a.pth")
    assert shown.line("class_names") == "thing 0, thing 1, ... (3 in all)"
    assert shown.facts["network"]["class_names"] == list(names)


def test_a_checkpoint_of_another_network_is_refused_with_the_readers_message(refuse: Refuse, tmp_path: Path) -> None:
    torch.save({"state_dict": {"roi_head.weight": torch.ones(3)}}, tmp_path / "mask_rcnn.pth")
    refuse(tmp_path / "mask_rcnn.pth", "contains no SOLO head")


def test_safetensors_are_read_as_a_checkpoint(refuse: Refuse, tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refuse(tmp_path / "a", "contains no SOLO head")


class _Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.target,)

    def __init__(self, target: str) -> None:
        self.target = target


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(refuse: Refuse, tmp_path: Path, zipped: bool) -> None:
    attack = {"state_dict": {"w": torch.ones(1)}, "meta": _Attack(str(tmp_path / "ran"))}
    torch.save(attack, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(attack["meta"]))
    for name in ("evil.pth", "bare.pth"):
        refuse(tmp_path / name, name)
    assert not (tmp_path / "ran").exists()


# --- bundles


@pytest.fixture(scope="module")
def zipped(rich: BundleContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("zipped") / "b.zip", rich).rename(
        tmp_path_factory.mktemp("z") / "b.pth"
    )


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_bundle_is_known_by_its_content(
    describe: Describe, rich: BundleContent, zipped: Path, tmp_path: Path, form: str
) -> None:
    path = zipped if form == "zip" else write_bundle(tmp_path / "b", rich)
    shown = describe(path)
    assert next(iter(shown.facts)) == "kind"
    assert (shown.line("kind"), shown.line("form"), shown.line("name")) == ("bundle", form, "tiny-solo")
    assert shown.facts["version"] == shown.line("version") == read_bundle(path).version
    assert shown.facts["precision"] == shown.line("precision") == "fp32"


def test_a_bundle_is_described_by_inputs_and_outputs_of_its_graphs(
    describe: Describe, bundle_path: Path, network: SoloNetwork
) -> None:
    shown, bundle = describe(bundle_path), read_bundle(bundle_path)
    for name in ("categories.onnx", "masks.onnx"):
        graph = onnx.load_model_from_string(bundle.files[name]).graph
        for side, values in (("inputs", graph.input), ("outputs", graph.output)):
            found = shown.facts[name][side]
            assert list(found) == [value.name for value in values]
            for value in values:
                tensor = value.type.tensor_type
                assert found[value.name]["shape"] == [d.dim_param or d.dim_value for d in tensor.shape.dim]
                dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
                assert found[value.name]["dtype"] == str(dtype)
    assert shown.line("images") == "uint8 (batch, height, width, 3)"
    assert shown.line("scores") == f"float32 (batch, {network.spec.num_cells}, 3)"
    assert set(shown.facts["kernels"]["shapes"]) == set(bundle.kernels)


def test_a_bundle_is_described_by_files_kernels_provenance_and_parity(
    describe: Describe, rich: BundleContent, tmp_path: Path
) -> None:
    shown = describe(write_bundle(tmp_path / "b", rich))
    assert shown.facts["files"]["MODEL_CARD.md"] == {"bytes": 6}
    assert shown.line("MODEL_CARD.md") == "6 bytes"
    assert shown.facts["kernels"]["shapes"]["level0"] == [81, 32]
    assert "level0 81x32, level0_bias 81, " in shown.text
    assert shown.line("checkpoint_sha256") == "ab" * 32
    assert shown.line("tools") == "python 3.11.7, onnx 1.23"
    assert shown.line("max_score_difference") == "5.5e-07"
    assert shown.line("shapes").startswith("level0")
    assert "shapes                1x160x224, 2x224x160\n" in shown.text
    assert shown.line("astronaut.jpg") == "matched 12, lowest_mask_iou 0.9991"
    assert shown.line("fp16") == "ap nan, ap50 36.1"
    assert shown.line("passed") == "yes"
    assert shown.facts["parity"] == rich.parity | {
        "mask_ap": {"fp32": {"ap": 16.3, "ap50": 36.2}, "fp16": {"ap": "NaN", "ap50": 36.1}}
    }


@pytest.mark.parametrize(("ran", "said"), [(False, "never run on a GPU"), (True, "it has run"), ("yes", "never run")])
def test_a_bundle_has_run_on_a_gpu_only_where_it_says_so(
    describe: Describe, rich: BundleContent, tmp_path: Path, ran: object, said: str
) -> None:
    shown = describe(write_bundle(tmp_path / "b", replace(rich, provenance={"ran_on_gpu": ran})))
    assert shown.facts["runs_on"]["ONNX Runtime, CPU"] == "yes"
    assert said in shown.facts["runs_on"]["CUDA, TensorRT"]
    assert said in shown.text


def test_a_zip_whose_names_are_not_utf8_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("n\u00e4me", b"")
    content = (tmp_path / "b.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(content.replace("\u00e4".encode(), b"\x9a\x9a"))
    refuse(tmp_path / "b.zip", "is a damaged zip")


def test_int8_bundles_are_for_cpus(describe: Describe, rich: BundleContent, tmp_path: Path) -> None:
    shown = describe(write_bundle(tmp_path / "b", replace(rich, precision="int8")))
    assert shown.facts["int8_for"] == "cpu"
    assert shown.facts["runs_on"]["CUDA, TensorRT"].startswith("no: this form of INT8 is for CPUs")


def test_int8_bundles_for_tensorrt_say_so(describe: Describe, rich: BundleContent, tmp_path: Path) -> None:
    shown = describe(write_bundle(tmp_path / "b", replace(rich, precision="int8", int8_for="tensorrt")))
    assert shown.facts["int8_for"] == "tensorrt"
    assert not shown.facts["runs_on"]["CUDA, TensorRT"].startswith("no")


def test_bundles_of_other_precisions_have_no_int8_form(describe: Describe, rich: BundleContent, tmp_path: Path) -> None:
    assert "int8_for" not in describe(write_bundle(tmp_path / "b", rich)).facts


def test_a_bundle_without_parity_says_so(describe: Describe, solo_bundle: Path) -> None:
    assert "\nparity\n  nothing recorded\n" in describe(solo_bundle).text


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_inspecting_bundles_and_engines_imports_neither_torch_nor_onnx(
    solo_bundle: Path, tmp_path: Path, options: list[str]
) -> None:
    code = (
        "import sys; from solo_models.cli import main\n"
        f"status = [main(['inspect', path, *{options}]) for path in sys.argv[1:]]\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'cv2', 'fastapi'} & set(sys.modules)\n"
        "sys.exit(f'{status} {heavy}' if any(status) or heavy else 0)"
    )
    command = [sys.executable, "-c", code, str(solo_bundle), str(_engine(tmp_path / "e"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def _overwrite(name: str, new: bytes) -> Callable[[Path], None]:
    def damage(bundle: Path) -> None:
        (bundle / name).write_bytes(new)

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_overwrite("masks.onnx", b"x"), "masks.onnx: has 1 bytes"),
        (_overwrite("manifest.json", b"{"), "manifest.json: is not JSON"),
        (_overwrite("manifest.json", b"{}"), "manifest.json: format: must be"),
        (lambda bundle: (bundle / "kernels.npz").unlink(), "kernels.npz: is missing"),
        (lambda bundle: (bundle / "manifest.json").unlink(), "manifest.json: is missing; this bundle is not complete"),
    ],
)
def test_a_damaged_bundle_is_refused(
    refuse: Refuse, solo_bundle: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(shutil.copytree(solo_bundle, tmp_path / "b"))
    refuse(tmp_path / "b", f"{tmp_path / 'b'}: {said}")


def test_a_bundle_with_another_file_as_graph_is_refused(refuse: Refuse, rich: BundleContent, tmp_path: Path) -> None:
    refuse(write_bundle(tmp_path / "b", replace(rich, masks=b"no graph")), "masks.onnx: not an ONNX graph")


def test_a_zip_with_its_folder_on_top_is_a_bundle(describe: Describe, solo_bundle: Path, tmp_path: Path) -> None:
    zipped_folder(solo_bundle, tmp_path / "b.zip")
    shown = describe(tmp_path / "b.zip")
    assert (shown.line("kind"), shown.line("form"), shown.line("name")) == ("bundle", "zip", "tiny-solo")


def test_a_cut_off_zip_is_refused(refuse: Refuse, zipped: Path, tmp_path: Path) -> None:
    shutil.copy(zipped, tmp_path / "b.zip")
    os.truncate(tmp_path / "b.zip", 100_000)
    refuse(tmp_path / "b.zip", "is a damaged zip")


@pytest.mark.parametrize("at", [0, 20, 43, 100_000])  # 43: where the first member's compressed bytes begin
def test_a_damaged_zip_is_refused(refuse: Refuse, zipped: Path, tmp_path: Path, at: int) -> None:
    shutil.copy(zipped, tmp_path / "b.zip")
    with (tmp_path / "b.zip").open("r+b") as file:
        file.seek(at)
        file.write(bytes([255] * 64))
    refuse(tmp_path / "b.zip", "")


# --- ONNX files


def test_an_onnx_file_of_ours_says_so(describe: Describe, solo_bundle: Path, tmp_path: Path) -> None:
    shutil.copy(solo_bundle / "categories.onnx", tmp_path / "renamed.zip")
    shown = describe(tmp_path / "renamed.zip")
    assert next(iter(shown.facts)) == "kind"
    assert (shown.line("kind"), shown.line("graph")) == ("onnx", "categories")
    assert shown.facts["from_solo_export"] is True
    assert shown.facts["opset"] == {"ai.onnx": 17}
    assert shown.facts["precision"] == shown.line("precision") == "fp32"
    assert shown.facts["inputs"]["image_hw"] == {"dtype": "int64", "shape": ["batch", 2]}
    assert shown.facts["operators"]["counts"]["Sigmoid"] == 5
    assert shown.facts["operators"]["nodes"] == sum(shown.facts["operators"]["counts"].values())
    assert shown.facts["sha256"] == hashlib.sha256((solo_bundle / "categories.onnx").read_bytes()).hexdigest()


def test_an_onnx_file_of_others_is_described_in_full(describe: Describe, tmp_path: Path) -> None:
    model = _model(producer_name="pytorch", producer_version="2.9")
    helper.set_model_props(model, {"stride": "32", "names": '{"0": "cat"}', "author": "nobody", "notes": "x" * 500})
    shown = describe(_saved(tmp_path / "m", model))
    assert (shown.facts["from_solo_export"], shown.line("from_solo_export")) == (False, "no")
    assert (shown.line("producer"), shown.line("ir_version"), shown.line("ai.onnx")) == (
        "pytorch 2.9",
        "8",
        "17",
    )
    assert shown.line("x") == "float32 (batch, 64)"
    assert shown.line("y") == "float32 (?, 64)"
    assert shown.line("counts") == "Add 1"
    assert shown.facts["weights"] == {"float32": {"tensors": 1, "bytes": 256}}
    assert shown.line("float32") == "tensors 1, 256 bytes"
    assert shown.facts["metadata"] == {"stride": 32, "names": {"0": "cat"}, "author": "nobody", "notes": "x" * 500}
    assert shown.line("names") == "0 cat"
    assert "(500 characters)" in shown.text
    assert "x" * 200 not in shown.text


@pytest.mark.parametrize(
    ("dtype", "nodes", "precision"),
    [
        (TensorProto.FLOAT, [], "fp32"),
        (TensorProto.FLOAT16, [], "fp16"),
        (TensorProto.BFLOAT16, [], "bf16"),
        (TensorProto.FLOAT, [helper.make_node("QuantizeLinear", ["y", "s", "z"], ["q"])], "int8"),
        (TensorProto.INT64, [], "unknown: no weights"),
    ],
)
def test_the_precision_follows_from_weights_and_quantization(
    describe: Describe, tmp_path: Path, dtype: int, nodes: list[onnx.NodeProto], precision: str
) -> None:
    assert describe(_saved(tmp_path / "m", _model(dtype, *nodes))).facts["precision"] == precision


def test_branches_and_constants_are_counted(describe: Describe, tmp_path: Path) -> None:
    value = helper.make_tensor("c", TensorProto.FLOAT16, [3], [0] * 3)
    constant = helper.make_node("Constant", [], ["c"], value=value)
    branch = helper.make_graph([constant, helper.make_node("Relu", ["c"], ["r"])], "branch", [], [])
    choose = helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch)
    shown = describe(_saved(tmp_path / "m", _model(TensorProto.FLOAT, choose)))
    assert shown.facts["operators"] == {"nodes": 6, "counts": {"Constant": 2, "Relu": 2, "Add": 1, "If": 1}}
    assert shown.facts["weights"]["float16"] == {"tensors": 2, "bytes": 12}


def test_weights_that_old_files_list_as_inputs_are_not_inputs(describe: Describe, tmp_path: Path) -> None:
    model = _model()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [64]))
    assert list(describe(_saved(tmp_path / "m", model)).facts["inputs"]) == ["x"]


def test_an_input_that_is_not_a_tensor_is_listed(describe: Describe, tmp_path: Path) -> None:
    model = _model()
    model.graph.input.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [1]))
    assert describe(_saved(tmp_path / "m", model)).facts["inputs"]["s"] == {"dtype": "type 0", "shape": []}


def test_control_characters_of_a_file_do_not_reach_the_terminal(describe: Describe, tmp_path: Path) -> None:
    model = _model(producer_name="\x1b[2J")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "\x1b]0;title\x07"
    helper.set_model_props(model, {"a\x1b\nkind  bundle": '{"\x1b": "\\u001b[31m"}', "b": "\x9b31m"})
    text = describe(_saved(tmp_path / "m", model)).text
    assert all(c.isprintable() for c in text.replace("\n", ""))
    assert [line.split()[1] for line in text.splitlines() if line.startswith("kind")] == ["onnx"]


@pytest.mark.parametrize("keep", [3, 10, 40, 100])
def test_a_cut_off_onnx_file_is_refused(refuse: Refuse, tmp_path: Path, keep: int) -> None:
    (tmp_path / "m.onnx").write_bytes(_model(producer_name="somebody").SerializeToString()[:keep])
    refuse(tmp_path / "m.onnx", "damaged")


def test_no_flipped_byte_of_an_onnx_file_breaks_the_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = _model(producer_name="somebody").SerializeToString()
    for at in range(len(content)):
        (tmp_path / "m").write_bytes(content[:at] + bytes([content[at] ^ 0x91]) + content[at + 1 :])
        status = main(["inspect", str(tmp_path / "m")])
        out, err = capsys.readouterr()
        assert (status, bool(out), err.count("\n")) in ((0, True, 0), (2, False, 1))


def test_an_onnx_file_above_two_gib_is_refused_unread(refuse: Refuse, tmp_path: Path) -> None:
    path = _saved(tmp_path / "m.onnx", _model())
    os.truncate(path, (2 << 30) + 1)  # a sparse file
    refuse(path, "has 2147483649 bytes; an ONNX file has at most 2147483648")


# --- engines


def test_an_engine_is_described_by_its_header_and_requirements(describe: Describe, tmp_path: Path) -> None:
    shown = describe(_engine(tmp_path / "renamed.onnx"))
    assert next(iter(shown.facts)) == "kind"
    assert shown.line("kind") == "engine"
    assert (shown.line("precision"), shown.line("ran_on_gpu"), shown.line("onnx_sha256")) == ("fp16", "no", "ab" * 32)
    assert shown.facts["plan"]["sha256"] == hashlib.sha256(PLAN).hexdigest()
    assert shown.facts["needs"] == {"tensorrt": "10.4.0.26", "gpu": "Tesla V100-SXM2-16GB", "compute_capability": "7.0"}
    assert shown.line("gpu") == "Tesla V100-SXM2-16GB"
    assert shown.facts["plan"]["profiles"][0]["images"]["max"] == [8, 512, 864, 3]
    assert shown.line("images") == "min 1x512x864x3, opt 2x512x864x3, max 8x512x864x3"
    assert shown.facts["usable_here"].startswith("not checked")


def test_an_engine_that_has_run_says_so(describe: Describe, tmp_path: Path) -> None:
    assert describe(_engine(tmp_path / "e", ran_on_gpu=True)).line("ran_on_gpu") == "yes"


def test_a_bare_plan_is_described_as_fit_for_its_builder_only(describe: Describe, tmp_path: Path) -> None:
    (tmp_path / "plan").write_bytes(PLAN)
    shown = describe(tmp_path / "plan")
    assert (shown.facts["kind"], shown.facts["bytes"]) == ("engine", len(PLAN))
    assert shown.facts["sha256"] == hashlib.sha256(PLAN).hexdigest()
    assert "only be read by the TensorRT version and the GPU that built it" in " ".join(shown.text.split())


def test_a_damaged_engine_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    path = _engine(tmp_path / "e")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    refuse(path, "plan_sha256: differs from the plan's")
    path.write_bytes(content[:-1])
    refuse(path, "plan_bytes: is 12, the file holds 11")
    path.write_bytes(content[:8] + b"\xff" * 8 + content[16:])
    refuse(path, "header length: 18446744073709551615 is above")
    path.write_bytes(b"SOLOENG9" + content[8:])
    refuse(path, "another version of the format")


# --- neither


def test_a_missing_file_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    refuse(tmp_path / "nothing", "does not exist")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\xff\xd8\xff\xe0 a photograph", "is no checkpoint, bundle, ONNX file or engine"),
        (b"PK\x03\x04 the rest is gone", "is a damaged zip"),
        (b"{}", "is no checkpoint"),
    ],
)
def test_a_file_of_unknown_kind_is_refused(refuse: Refuse, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    refuse(tmp_path / "a.onnx", said)


def test_a_zip_of_something_else_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("photos/manifest.json", "{}")
    refuse(tmp_path / "a.zip", "a zip with neither manifest.json (a bundle) nor data.pkl (a checkpoint)")


def test_a_path_that_is_neither_file_nor_folder_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refuse(tmp_path / "pipe", "is neither a file nor a folder")


def test_an_error_is_one_line_without_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "a\n\x1b[2Jb")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err[:-1].isprintable()


@pytest.mark.parametrize(("absent", "said"), [("onnx", "an ONNX file"), ("torch", "a checkpoint")])
def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str, said: str
) -> None:
    path = _saved(tmp_path / "m", _model()) if absent == "onnx" else _own_checkpoint(tmp_path / "m")
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.delitem(sys.modules, "solo_models.checkpoint", raising=False)
    refuse(path, f"reading {said} needs {absent}: {install_command('export')}")
