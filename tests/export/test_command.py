"""`solo export` writes a whole bundle or nothing, and says in one line why not."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import solo_export.parity as parity
import torch
from conftest import deformable_spec, encoded, picture, tiny_network
from solo_export import command
from solo_export.source import is_bundle
from solo_models.bundle import read_bundle
from solo_models.cli import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = tiny_network("decoupled_light")
    path = tmp_path_factory.mktemp("checkpoint") / "people.pth"
    torch.save({"spec": json.dumps(network.spec.to_dict()), "state_dict": network.state_dict()}, path)
    return path


def test_a_checkpoint_becomes_a_bundle(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ant\nbee\n\ncow\n")
    (tmp_path / "NOTE.md").write_text("hello")
    options = ["--size", "96x160", "--classes", str(tmp_path / "names.txt"), "--include", str(tmp_path / "NOTE.md")]
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "b.zip"), *options]) == 0
    bundle = read_bundle(tmp_path / "b.zip")
    assert (bundle.name, bundle.spec.class_names) == ("people", ("ant", "bee", "cow"))
    assert (bundle.spec.preprocess.long_side, bundle.spec.preprocess.short_side) == (160, 96)
    assert bundle.files["NOTE.md"] == b"hello"
    assert bundle.parity["graphs"]["max_score_difference"] < 1e-4
    assert bundle.provenance["layout"] == "own"
    assert bundle.provenance["ran_on_gpu"] is False
    pictures = bundle.parity["pictures"]
    assert (pictures["source"], pictures["pictures"]) == ("built-in", 2)
    assert pictures["matched"] == pictures["instances"] > 0
    assert pictures["extra"] == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_names_file_of_any_editor_gives_the_same_names(encoding: str, end: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(end.join(["ant", " red bee ", "", "\u732b", ""]).encode(encoding))
    assert command._class_names(tmp_path / "names.txt") == ("ant", "red bee", "\u732b")


def test_a_zipped_bundle_may_have_its_folder_on_top(solo_bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    packed = shutil.make_archive(str(tmp_path / "b"), "zip", solo_bundle.parent, solo_bundle.name)
    assert is_bundle(Path(packed))
    assert not is_bundle(checkpoint)
    assert not is_bundle(tmp_path / "nothing")


def _check_refused(arguments: list[str], said: str, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(output.parent.iterdir())
    assert main(["export", *arguments, "-o", str(output)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("solo export: ")
    assert said in last
    assert sorted(output.parent.iterdir()) == before


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures and their annotations, one of them in a folder below."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for i, name in enumerate(("a.png", "b.png", "more/c.jpg")):
        (folder / name).write_bytes(encoded(picture(90 + 10 * i, 120, i), "JPEG" if name.endswith("jpg") else "PNG"))
    images = [{"id": 1, "file_name": "a.png", "height": 90, "width": 120}]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(("cat", "dog", "traffic light"))]
    box = {"bbox": [10, 10, 40, 30], "area": 1200, "segmentation": [[10, 10, 50, 10, 50, 40, 10, 40]]}
    annotations = [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, **box}]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def test_half_precision_is_said_and_checked(checkpoint: Path, tmp_path: Path) -> None:
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "b"), "--precision", "fp16"]) == 0
    bundle = read_bundle(tmp_path / "b")
    assert bundle.precision == "fp16"
    assert bundle.parity["pictures"]["agreement"] > 0.9
    assert bundle.version != read_bundle(_exported(checkpoint, tmp_path / "full")).version


def test_int8_is_calibrated_and_judged_by_mask_ap(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = ["--pictures", str(photos), "--annotations", str(photos / "annotations.json")]
    int8 = ["--precision", "int8", "--calibration", str(photos)]
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "b"), *int8, *judged]) == 0
    bundle = read_bundle(tmp_path / "b")
    assert bundle.precision == "int8"
    assert bundle.parity["calibration"] == {"source": photos.name, "pictures": 3}
    assert bundle.parity["mask_ap"].keys() == {"pictures", "before", "after"}
    said = capsys.readouterr().err
    assert "calibration: 100%" in said
    assert "mask AP" in said


def test_a_damaged_picture_is_named_and_left_out(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (tmp_path / "photos" / "whole.png").write_bytes(encoded(picture(96, 128)))
    pictures = str(tmp_path / "photos")
    int8 = ["--precision", "int8", "--calibration", pictures, "--pictures", pictures, "--tolerance", "100"]
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "b"), *int8]) == 0
    assert "left out broken.jpg: " in capsys.readouterr().err
    parity = read_bundle(tmp_path / "b").parity
    assert (parity["calibration"]["pictures"], parity["pictures"]["pictures"]) == (1, 1)


def test_a_bundle_can_be_exported_in_another_precision(checkpoint: Path, tmp_path: Path) -> None:
    full = _exported(checkpoint, tmp_path / "full")
    assert main(["export", str(full), "-o", str(tmp_path / "half"), "--precision", "fp16", "--name", "small"]) == 0
    from_bundle, version = read_bundle(tmp_path / "half"), read_bundle(full).version
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "direct"), "--precision", "fp16"]) == 0
    assert from_bundle.files["categories.onnx"] == read_bundle(tmp_path / "direct").files["categories.onnx"]
    assert (from_bundle.name, from_bundle.provenance["bundle_version"]) == ("small", version)
    assert version in from_bundle.parity["against"]


def test_a_single_file_runs_in_plain_onnx_runtime(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "network.onnx"
    assert main(["export", str(checkpoint), "-o", str(target), "--single-file"]) == 0
    session = ort.InferenceSession(target)
    noted = session.get_modelmeta().custom_metadata_map
    assert json.loads(noted["class_names"]) == ["cat", "dog", "traffic light"]
    assert json.loads(noted["parity"])["pictures"]["extra"] == 0
    size = np.array([96, 128], np.int64)
    feeds = {"images": picture(96, 128)[None], "image_hw": size[None], "output_hw": size}
    boxes, scores, labels, masks = session.run(["boxes", "scores", "labels", "masks"], feeds)
    assert len(boxes) == len(scores) == len(labels) == len(masks) > 0
    assert masks.shape[1:] == (96, 128)


def test_a_deformable_checkpoint_becomes_a_bundle(tmp_path: Path) -> None:
    network = tiny_network("decoupled_light", deformable_spec("decoupled_light"))
    torch.save({"spec": json.dumps(network.spec.to_dict()), "state_dict": network.state_dict()}, tmp_path / "dcn.pth")
    bundle = read_bundle(_exported(tmp_path / "dcn.pth", tmp_path / "b"))
    assert (bundle.spec.deformable_stages, bundle.spec.deformable_towers) == ((2, 3, 4), True)
    assert bundle.parity["pictures"]["agreement"] > 0.98


def _exported(checkpoint: Path, output: Path) -> Path:
    assert main(["export", str(checkpoint), "-o", str(output)]) == 0
    return output


def test_what_loses_too_much_is_not_written(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    int8 = ["--precision", "int8", "--calibration", str(photos), "--tolerance", "0"]
    _check_refused([str(checkpoint), *int8], "more than 0 percent; nothing is written", tmp_path / "b", capsys)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--precision", "int8"], "--precision int8 and --calibration DIR go together"),
        (["--calibration", "{photos}"], "--precision int8 and --calibration DIR go together"),
        (["--precision", "int8", "--calibration", "{empty}"], "holds no pictures"),
        (["--precision", "int8", "--calibration", "{empty}/none"], "is no folder"),
        (["--pictures", "{broken}"], "none of 1 pictures can be decoded"),
        (["--annotations", "{photos}/annotations.json"], "--annotations needs --pictures"),
        (["--pictures", "{photos}", "--annotations", "{photos}/a.png"], "no COCO annotations"),
        (["--single-file"], "--single-file goes with a name that ends in .onnx"),
        (["--classes", "{photos}/a.png"], "is no text file"),
        (["--classes", "{photos}/annotations.json"], "3 classes, 1 names are given"),
        (["--include", "{empty}/none"], "No such file"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    checkpoint: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    folders = {name: tmp_path / name for name in ("empty", "broken")}
    for folder in folders.values():
        folder.mkdir()
    (folders["broken"] / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    places = {"photos": photos, **folders}
    _check_refused([str(checkpoint), *(o.format(**places) for o in options)], said, tmp_path / "b", capsys)


def test_an_unwritable_target_is_found_out_before_any_work(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "file" / "b")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "cannot be written" in said[0]
    (tmp_path / "folder").mkdir()
    _check_refused([str(checkpoint), "--force"], "is a folder but no bundle", tmp_path / "folder", capsys)
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "x.onnx")]) == 2
    assert "--single-file" in capsys.readouterr().err


def test_a_damaged_or_lossy_bundle_is_no_source(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "half"), "--precision", "fp16"]) == 0
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
    said = capsys.readouterr().err.strip().splitlines()
    if status:  # some bytes do not matter
        assert status == 2
        assert said[-1].startswith("solo export: ")
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


def test_an_existing_bundle_needs_force(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "b")]) == 0
    _check_refused([str(checkpoint)], "--force", tmp_path / "b", capsys)
    assert main(["export", str(checkpoint), "-o", str(tmp_path / "b"), "--force", "--name", "again"]) == 0
    assert read_bundle(tmp_path / "b").name == "again"


def test_what_is_not_solo_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"roi_head.weight": torch.ones(3)}}, tmp_path / "mask_rcnn.pth")
    _check_refused([str(tmp_path / "mask_rcnn.pth")], "no SOLO head", tmp_path / "b", capsys)


def test_a_missing_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _check_refused([str(tmp_path / "none.pth")], "does not exist", tmp_path / "b", capsys)


@pytest.mark.parametrize("size", ["512", "axb", "0x5"])
def test_a_bad_size_is_wrong_usage(checkpoint: Path, tmp_path: Path, size: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", str(checkpoint), "-o", str(tmp_path / "b"), "--size", size])
    assert caught.value.code == 2
