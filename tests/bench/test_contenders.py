"""Contenders as processes: the protocol, our workers, and what happens when one breaks."""

import os
import sys
from pathlib import Path

import pytest
from solo_models import arithmetic
from solo_server.bench import measure as measuring
from solo_server.bench.child import Child, Start
from solo_server.bench.errors import BenchError, EndedEarly
from solo_server.bench.measure import INTERRUPTED, measure
from solo_server.bench.samples import Plan, Sample, take_one
from solo_server.bench.verbs.engine import WORKER as ENGINE
from solo_server.bench.verbs.pipeline import WORKER as PIPELINE
from support.images import encoded, smooth_image
from support.specs import tiny_spec

FAKE = Path(__file__).parent / "fake_peer.py"


def _fake(mode: str = "", name: str = "fake") -> Start:
    environment = {**os.environ, "FAKE_PEER": mode, "FAKE_NAME": name}
    return Start((sys.executable, str(FAKE)), {"weights": "none"}, environment, role="--peer fake")


def _ours(worker: str, bundle: Path, **order: object) -> Start:
    model = {"bundle": str(bundle), "engine": None, "precision": None, "threads": 1}
    return Start((sys.executable, "-m", worker), {**model, **order}, os.environ, role="tiny")


def test_a_contender_says_who_it_is_answers_and_tells_its_memory() -> None:
    with Child(_fake()) as child:
        assert child.label == "fake"
        assert child.hello.details["order"] == {"weights": "none"}
        answer = child.ask(2)
        assert (answer.total_ms, answer.instances, answer.stages_ms["after_towers"]) == (5.0, 4, 2.0)
        assert child.stop() == 12.5


@pytest.mark.parametrize(
    ("mode", "message"), [("refuse", "--peer fake: no such weights"), ("garbage", "not of the protocol")]
)
def test_a_contender_that_cannot_begin_is_refused_in_its_own_words(mode: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        Child(_fake(mode))


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(BenchError, match="--peer x: /no/such/python cannot be started"):
        Child(Start(("/no/such/python",), {}, os.environ, role="--peer x"))


def test_a_death_is_told_with_its_status_and_last_words() -> None:
    with Child(_fake("die:1")) as child:
        child.ask(0)
        with pytest.raises(EndedEarly, match=r"ended with status 7: .*MemoryError: no more"):
            child.ask(0)


def test_rounds_are_interleaved_and_a_death_keeps_what_was_measured() -> None:
    result = measure([_fake(name="A"), _fake("die:4", name="B")], Plan(runs=2, repeats=2, tasks=2))
    assert [(s.run, s.round, s.task) for s in result.contenders[0].samples] == [
        (0, 0, 0),
        (0, 0, 1),
        (0, 1, 0),
        (0, 1, 1),
    ]
    assert [s.round for s in result.contenders[1].samples] == [0, 0]  # its first two answers were the warm-up
    assert "MemoryError" in (result.ended_early or "")
    assert result.to_dict()["contenders"][0]["samples"][3]["total_ms"] == 4.0


def test_contenders_of_one_name_are_numbered() -> None:
    result = measure([_fake(), _fake()], Plan(1, 1, 1))
    assert [c.label for c in result.contenders] == ["fake #1", "fake #2"]
    assert result.contenders[1].peak_rss_mib == 12.5


def test_ctrl_c_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(child: Child, run: int, number: int, task: int) -> Sample:
        if number == 1:
            raise KeyboardInterrupt
        return take_one(child, run, number, task)

    monkeypatch.setattr(measuring, "take_one", interrupted)
    result = measure([_fake()], Plan(1, 3, 1))
    assert result.ended_early == INTERRUPTED
    assert len(result.contenders[0].samples) == 1


def test_our_pipeline_as_a_contender(solo_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(smooth_image(90, 120)))
    with Child(_ours(PIPELINE, solo_bundle, images=[str(tmp_path / "a.png")])) as child:
        assert child.hello.details["variant"] == "solo"
        sample = take_one(child, 0, 0, 0)
        assert sample.instances > 0
        assert {"decode", "preprocess"} <= set(sample.stages_ms)
        assert sum(sample.stages_ms.values()) <= sample.total_ms * 1.01
        assert sample.cpu_s > 0
        peak = child.stop()
        assert peak is None or peak > 20


def test_an_image_that_is_none_is_named_before_anything_is_measured(solo_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_text("no image")
    with pytest.raises(BenchError, match=r"b\.jpg: not a supported image"):
        Child(_ours(PIPELINE, solo_bundle, images=[str(tmp_path / "b.jpg")]))


def test_our_network_alone_as_a_contender(solo_bundle: Path) -> None:
    with Child(_ours(ENGINE, solo_bundle, batches=[1, 2], padded_hw=[64, 96])) as child:
        needed = arithmetic.needed(tiny_spec("solo"), (64, 96))
        assert child.hello.gflop["total"] == pytest.approx(needed.total, abs=1e-3)
        answer = child.ask(1)
        assert set(answer.stages_ms) == {"categories", "towers", *(f"tower {i}" for i in range(5))}
        assert answer.total_ms == pytest.approx(answer.stages_ms["categories"] + answer.stages_ms["towers"], abs=0.01)
