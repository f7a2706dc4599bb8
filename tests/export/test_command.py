"""`solo export` writes a whole bundle or nothing, and says in one line why not."""

import json
from pathlib import Path

import pytest
import solo_export.parity as parity
import torch
from conftest import tiny_network
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
    assert bundle.parity["max_score_difference"] < 1e-4
    assert bundle.provenance["layout"] == "own"
    assert bundle.provenance["ran_on_gpu"] is False


def _check_refused(arguments: list[str], said: str, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(output.parent.iterdir())
    assert main(["export", *arguments, "-o", str(output)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("solo export: ")
    assert said in last
    assert sorted(output.parent.iterdir()) == before


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
