"""The capacity model, against queues whose waiting times are known."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.paths import ROOT

sys.path.append(str(ROOT / "benchmarks"))

from capacity import Demand, Node, Replica, answer_s, erlang_c, main, measured, plan

REPLICA = Replica(images_per_s=20.0, slots=2, cores=2, memory_mib=500.0)
NODE = Node(cores=16, memory_mib=8000.0)
DEMAND = Demand(images_per_s=200.0, utilisation=0.5, image_bytes=125_000.0, answer_bytes=5000.0, latency_s=1.0)


def test_a_single_slot_waits_as_often_as_it_is_busy() -> None:
    assert erlang_c(1, 0.3) == pytest.approx(0.3)


def test_two_slots_wait_as_in_the_textbook() -> None:
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)  # M/M/2 at half load


def test_more_than_the_slots_can_do_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2\.00 slots are needed, there are 2"):
        erlang_c(2, 2.0)


def test_an_idle_replica_answers_after_the_time_of_an_image() -> None:
    assert answer_s(REPLICA, 0.0, 0.99) == REPLICA.service_s == 0.1


def test_a_plan_as_worked_out_by_hand() -> None:
    found = plan(REPLICA, NODE, DEMAND, spare_nodes=1)
    assert found.replicas_per_node == 8  # 16 cores; memory would allow 16
    assert (found.nodes, found.replicas) == (4, 32)  # 20 replicas at half of 20 images/s need 3 nodes, and a spare one
    assert (found.cores, found.gpus, found.memory_gib) == (64, 0, 15.6)
    assert (found.gbit_in, found.gbit_out) == (0.2, 0.01)
    assert found.max_waiting == 20
    assert (found.p50_ms, found.p99_ms) == (100.0, 275.3)  # a third of the images waits: 0.1 s + ln(100 / 3) / 20


def test_memory_and_gpus_limit_a_node_too() -> None:
    assert plan(replace(REPLICA, memory_mib=3000.0), NODE, DEMAND, 0).replicas_per_node == 2
    assert plan(replace(REPLICA, gpus=1), replace(NODE, gpus=3), DEMAND, 0).replicas_per_node == 3


@pytest.mark.parametrize(
    ("replica", "demand", "word"),
    [
        (REPLICA, replace(DEMAND, utilisation=1.0), "utilisation"),
        (REPLICA, replace(DEMAND, latency_s=0.1), "latency-ms"),
        (replace(REPLICA, cores=32), DEMAND, "too small"),
        (replace(REPLICA, gpus=1), DEMAND, "too small"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(replica: Replica, demand: Demand, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        plan(replica, NODE, demand, 0)


def test_a_measured_replica_is_read_from_a_result(tmp_path: Path) -> None:
    figures = {"fps": 21.5, "peak_rss_mib": 302.0}
    file = tmp_path / "bench.json"
    file.write_text(json.dumps({"hardware": {"cores": 2}, "contenders": [{"name": "int8", "figures": figures}]}))
    assert measured(file, "int8") == Replica(21.5, 2, 2, 302.0)
    with pytest.raises(ValueError, match="it has int8"):
        measured(file, "fp32")


def test_the_command_prints_the_plan_and_names_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rate", "200", "--replica-rate", "20", "--utilisation", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["replicas"] == 64  # a node of 64 cores holds 32
    assert main(["--rate", "200"]) == 2
    assert "--replica-rate" in capsys.readouterr().err
