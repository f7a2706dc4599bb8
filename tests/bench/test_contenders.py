"""Contenders as processes: the protocol, our workers, and failures."""

import os
import sys
from pathlib import Path

import pytest
from solo_models import arithmetic
from solo_server.bench import measure as measuring
from solo_server.bench.contender_process import ContenderProcess, LaunchSpec
from solo_server.bench.errors import BenchError, EndedEarly
from solo_server.bench.measure import INTERRUPTED, measure
from solo_server.bench.samples import Plan, Sample, take_sample
from solo_server.bench.subcommands.engine import WORKER as ENGINE
from solo_server.bench.subcommands.pipeline import WORKER as PIPELINE
from support.images import encoded, smooth_image
from support.specs import tiny_spec

FAKE = Path(__file__).parent / "fake_peer.py"


def _fake(mode: str = "", name: str = "fake") -> LaunchSpec:
    environment = {**os.environ, "FAKE_PEER": mode, "FAKE_NAME": name}
    return LaunchSpec((sys.executable, str(FAKE)), {"weights": "none"}, environment, role="--peer fake")


def _ours(worker: str, bundle: Path, **setup: object) -> LaunchSpec:
    model = {"bundle": str(bundle), "engine": None, "precision": None, "threads": 1}
    return LaunchSpec((sys.executable, "-m", worker), {**model, **setup}, os.environ, role="tiny")


def test_a_contender_sends_hello_replies_and_its_peak_memory() -> None:
    with ContenderProcess(_fake()) as child:
        assert child.label == "fake"
        assert child.hello.details["setup"] == {"weights": "none"}
        reply = child.run_task(2)
        assert (reply.total_ms, reply.instances, reply.stages_ms["after_towers"]) == (5.0, 4, 2.0)
        assert child.stop() == 12.5


@pytest.mark.parametrize(
    ("mode", "message"), [("refuse", "--peer fake: no such weights"), ("garbage", "which is not the protocol")]
)
def test_a_contender_that_cannot_start_is_reported_with_its_message(mode: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        ContenderProcess(_fake(mode))


def test_a_missing_program_is_named() -> None:
    with pytest.raises(BenchError, match="--peer x: /no/such/python cannot be started"):
        ContenderProcess(LaunchSpec(("/no/such/python",), {}, os.environ, role="--peer x"))


def test_a_death_is_reported_with_status_and_last_output() -> None:
    with ContenderProcess(_fake("die:1")) as child:
        child.run_task(0)
        with pytest.raises(EndedEarly, match=r"ended with status 7: .*MemoryError: no more"):
            child.run_task(0)


def test_rounds_are_interleaved_and_a_death_keeps_the_results_so_far() -> None:
    result = measure([_fake(name="A"), _fake("die:4", name="B")], Plan(runs=2, repeats=2, tasks=2))
    assert [(s.run, s.round, s.task) for s in result.contenders[0].samples] == [
        (0, 0, 0),
        (0, 0, 1),
        (0, 1, 0),
        (0, 1, 1),
    ]
    assert [s.round for s in result.contenders[1].samples] == [0, 0]  # its first two replies were the warm-up
    assert "MemoryError" in (result.ended_early or "")
    assert result.to_dict()["contenders"][0]["samples"][3]["total_ms"] == 4.0


def test_contenders_with_the_same_name_are_numbered() -> None:
    result = measure([_fake(), _fake()], Plan(1, 1, 1))
    assert [c.label for c in result.contenders] == ["fake #1", "fake #2"]
    assert result.contenders[1].peak_rss_mib == 12.5


def test_ctrl_c_keeps_the_results_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(child: ContenderProcess, run: int, number: int, task: int) -> Sample:
        if number == 1:
            raise KeyboardInterrupt
        return take_sample(child, run, number, task)

    monkeypatch.setattr(measuring, "take_sample", interrupted)
    result = measure([_fake()], Plan(1, 3, 1))
    assert result.ended_early == INTERRUPTED
    assert len(result.contenders[0].samples) == 1


def test_our_pipeline_as_a_contender(solo_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(smooth_image(90, 120)))
    with ContenderProcess(_ours(PIPELINE, solo_bundle, images=[str(tmp_path / "a.png")])) as child:
        assert child.hello.details["variant"] == "solo"
        sample = take_sample(child, 0, 0, 0)
        assert sample.instances > 0
        assert {"decode", "preprocess"} <= set(sample.stages_ms)
        assert sum(sample.stages_ms.values()) <= sample.total_ms * 1.01
        assert sample.cpu_s > 0
        peak = child.stop()
        assert peak is None or peak > 20


def test_our_network_alone_as_a_contender(solo_bundle: Path) -> None:
    with ContenderProcess(_ours(ENGINE, solo_bundle, batches=[1, 2], padded_hw=[64, 96])) as child:
        needed = arithmetic.needed(tiny_spec("solo"), (64, 96))
        assert child.hello.gflop["total"] == pytest.approx(needed.total, abs=1e-3)
        reply = child.run_task(1)
        assert set(reply.stages_ms) == {"categories", "towers", *(f"tower {i}" for i in range(5))}
        assert reply.total_ms == pytest.approx(reply.stages_ms["categories"] + reply.stages_ms["towers"], abs=0.01)
