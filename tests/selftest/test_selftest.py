"""The self-test reports equal paths as equal, the right stage where one path is wrong, and a missing GPU as missing."""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from solo_models.bundle import Bundle
from solo_server.backends.gpu.driver.base import Device
from solo_server.backends.gpu.network import DeviceNetwork
from solo_server.backends.gpu.tensorrt.network import TensorRtNetwork
from solo_server.errors import DeviceLost, DeviceOutOfMemory, SettingsError
from solo_server.pipeline.image import prepare
from solo_server.selftest import command, measuring, opening
from solo_server.selftest import document as document_module
from solo_server.selftest.command import full_report, sizes_up_to, write_report
from solo_server.selftest.differences import NETWORK_STAGES, STAGES
from solo_server.selftest.document import (
    FAIL,
    NOT_RUN,
    PASS,
    Document,
    failed_part,
    judged_part,
    with_parts,
    without_names,
)
from solo_server.selftest.examine import PARTS, examine
from solo_server.selftest.gpu_path import GpuPath
from solo_server.selftest.images import NamedImage, load_images
from solo_server.selftest.matching import match
from solo_server.selftest.measuring import TimingPlan
from solo_server.selftest.opening import SMALL_BUFFER_LIMITS, GpuOpener, GpuSetup, OpenedGpu
from solo_server.selftest.parity import Parity
from solo_server.selftest.probe import no_gpu_message
from solo_server.selftest.roofline import GPUS, known_gpu, least_ms
from solo_server.selftest.stage_snapshot import Measured, Ranked, StageSnapshot
from solo_server.selftest.timing import BatchTimes, statistics_of, summary
from solo_server.types import Instance, PreparedImage, Query, Rle
from support.gpu.fake_device import FakeDevice
from support.gpu.fake_tensorrt import FakeTensorRt
from support.gpu.small_network import small_bundle, small_engines, small_profiles
from support.images import smooth_image
from support.paths import ROOT

HW = (64, 96)
PLAN = TimingPlan(sizes=(1, 2), batches=2, seconds=0.1, image_hw=HW)


def _ignore(_: str) -> None:
    """Drops lines of progress."""


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle()


@pytest.fixture(scope="module")
def opened(bundle: Bundle) -> Iterator[OpenedGpu]:
    """The GPU path on the fake device, with the kernels that a GPU would run."""
    device = FakeDevice(seed=5)
    trt, profiles = FakeTensorRt(device), small_profiles(bundle, 2)

    def network(instrumented: Device) -> DeviceNetwork:
        return TensorRtNetwork(trt, instrumented, small_engines(bundle, profiles), slots=1)

    opener = GpuOpener(bundle, 2, _ignore, {"asked": "tensorrt", "max_batch": 2}, HW)
    ready = opener.open(GpuSetup(device, network, b"cubin", is_fake=True))
    yield ready
    ready.gpu.backend.close()
    device.close()


@pytest.fixture(scope="module")
def named(bundle: Bundle) -> NamedImage:
    return NamedImage("some.png", prepare(smooth_image(90, 61), bundle.spec.preprocess))


@pytest.fixture(scope="module")
def report(opened: OpenedGpu, named: NamedImage) -> Iterator[Document]:
    """With fewer repetitions than on a GPU: the emulator takes half a second for an image."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "PAPER_RUNS", 1)
        patch.setattr(measuring, "WARM_BATCHES", 1)
        yield full_report(opened, [named], PLAN, _ignore)


@pytest.fixture(scope="module")
def snapshot(opened: OpenedGpu, named: NamedImage) -> StageSnapshot:
    return opened.gpu.snapshots([named.prepared], [Query()])[0]


def test_lists_of_an_earlier_batch_are_not_read_for_a_batch_without_candidates(
    opened: OpenedGpu, named: NamedImage
) -> None:
    """Later kernels do not run then; on an H200 the lists of the image before were read as this image's."""
    assert len(opened.gpu.snapshots([named.prepared], [Query()])[0].best.cells) > 0
    found = opened.gpu.snapshots([named.prepared], [Query(score_threshold=1.0)])[0]
    assert (len(found.candidates.cells), found.instances) == (0, ())
    assert (len(found.best.cells), len(found.kept.cells)) == (0, 0)


class WrongPath:
    """A GPU path that returns a changed snapshot."""

    def __init__(self, snapshot: StageSnapshot) -> None:
        self._snapshot = snapshot

    def snapshots(self, images: Sequence[PreparedImage], queries: Sequence[Query]) -> list[StageSnapshot]:
        return [self._snapshot]


def _wrong_score(snapshot: StageSnapshot) -> StageSnapshot:
    scores = snapshot.kept.scores.copy()
    scores[0] += 0.01
    first, *others = snapshot.instances
    instances = (replace(first, score=float(scores[0])), *others)
    return replace(snapshot, kept=replace(snapshot.kept, scores=scores), instances=instances)


def _wrong_answered_score(snapshot: StageSnapshot) -> StageSnapshot:
    first, *others = snapshot.instances
    return replace(snapshot, instances=(replace(first, score=first.score - 0.01), *others))


def _wrong_mask(snapshot: StageSnapshot) -> StageSnapshot:
    """The smallest mask covers all of the image."""
    smallest = min(range(len(snapshot.instances)), key=lambda i: snapshot.instances[i].area)
    height, width = snapshot.instances[smallest].mask.size
    whole = Rle((height, width), _counts([0, height * width]))
    changed = replace(snapshot.instances[smallest], mask=whole, area=height * width, box_xywh=(0, 0, width, height))
    return replace(snapshot, instances=(*snapshot.instances[:smallest], changed, *snapshot.instances[smallest + 1 :]))


def _missing_instance(snapshot: StageSnapshot) -> StageSnapshot:
    return replace(snapshot, instances=snapshot.instances[1:])


def _not_kept(snapshot: StageSnapshot) -> StageSnapshot:
    kept = Ranked(snapshot.kept.cells[1:], snapshot.kept.labels[1:], snapshot.kept.scores[1:])
    return replace(snapshot, kept=kept, instances=snapshot.instances[1:])


def _wrong_best_score(snapshot: StageSnapshot) -> StageSnapshot:
    scores = snapshot.best.scores.copy()
    scores[-1] *= 0.9
    return replace(snapshot, best=replace(snapshot.best, scores=scores))


def _wrong_area(snapshot: StageSnapshot) -> StageSnapshot:
    areas = snapshot.measured.areas.copy()
    areas[areas.argmax()] += 9
    return replace(snapshot, measured=replace(snapshot.measured, areas=areas))


def _wrong_maskness(snapshot: StageSnapshot) -> StageSnapshot:
    maskness = snapshot.measured.maskness.copy()
    maskness[snapshot.measured.areas.argmax()] *= 0.9
    return replace(snapshot, measured=Measured(snapshot.measured.cells, snapshot.measured.areas, maskness))


def _lost_candidate(snapshot: StageSnapshot) -> StageSnapshot:
    found = snapshot.candidates
    return replace(
        snapshot, candidates=replace(found, cells=found.cells[1:], labels=found.labels[1:], scores=found.scores[1:])
    )


def _swapped_candidates(snapshot: StageSnapshot) -> StageSnapshot:
    found, order = snapshot.candidates, np.arange(len(snapshot.candidates.cells))
    order[:2] = order[1::-1]
    return replace(
        snapshot,
        candidates=replace(found, cells=found.cells[order], labels=found.labels[order], scores=found.scores[order]),
    )


def _network(snapshot: StageSnapshot, **changes: Any) -> StageSnapshot:
    return replace(snapshot, network=replace(snapshot.network, **changes))


def _wrong_category_score(snapshot: StageSnapshot) -> StageSnapshot:
    scores = snapshot.network.scores.copy()
    scores[np.unravel_index(scores.argmax(), scores.shape)] -= 0.05
    return _network(snapshot, scores=scores)


def _scores_not_finite(snapshot: StageSnapshot) -> StageSnapshot:
    scores = snapshot.network.scores.copy()
    scores[0, 0] = np.nan
    return _network(snapshot, scores=scores)


def _wrong_level(snapshot: StageSnapshot) -> StageSnapshot:
    first, *others = snapshot.network.levels
    return _network(snapshot, levels=(first[:, ::-1].copy(), *others))


def _wrong_tower(snapshot: StageSnapshot) -> StageSnapshot:
    level = min(snapshot.network.features)
    towers = tuple(tower * np.float32(1.1) for tower in snapshot.network.features[level])
    return _network(snapshot, features={**snapshot.network.features, level: towers})


def _counts(runs: list[int]) -> str:
    """COCO's text of runs: five bits a character, low ones first (differences only from the fourth run on)."""
    text = ""
    for run in runs:
        while True:
            digit, run = run & 31, run >> 5
            more = run != (-1 if digit & 16 else 0)
            text += chr((digit | 32 if more else digit) + 48)
            if not more:
                break
    return text


FAULTS: list[tuple[Callable[[StageSnapshot], StageSnapshot], str, str]] = [
    (_wrong_score, "post-processing", "kept"),
    (_wrong_answered_score, "post-processing", "instances"),
    (_wrong_mask, "post-processing", "instances"),
    (_missing_instance, "post-processing", "instances"),
    (_not_kept, "post-processing", "kept"),
    (_wrong_best_score, "post-processing", "best"),
    (_wrong_area, "post-processing", "areas"),
    (_wrong_maskness, "post-processing", "maskness"),
    (_lost_candidate, "post-processing", "candidates"),
    (_swapped_candidates, "post-processing", "candidates"),
    (_wrong_level, "network", "level features"),
    (_wrong_category_score, "network", "scores"),
    (_scores_not_finite, "network", "scores"),
    (_wrong_tower, "network", "mask features"),
]


@pytest.fixture(scope="module")
def both(bundle: Bundle, opened: OpenedGpu) -> Parity:
    return Parity(bundle, opened.gpu)


@pytest.mark.parametrize(("plant", "part", "stage"), FAULTS, ids=[plant.__name__.strip("_") for plant, _, _ in FAULTS])
def test_a_planted_fault_fails_the_part_and_names_the_stage(
    both: Parity,
    named: NamedImage,
    snapshot: StageSnapshot,
    plant: Callable[[StageSnapshot], StageSnapshot],
    part: str,
    stage: str,
) -> None:
    both._gpu = WrongPath(plant(snapshot))  # type: ignore[assignment]
    compared = [c for c in both.compare_image(named) if c.part == part]
    judgement = judged_part(compared)
    assert judgement["verdict"] == FAIL
    assert judgement["first_stage"] == stage
    assert named.name in judgement["said"]


def test_equal_paths_pass(both: Parity, named: NamedImage, snapshot: StageSnapshot) -> None:
    both._gpu = WrongPath(snapshot)  # type: ignore[assignment]
    compared = list(both.compare_image(named))
    assert [c.part for c in compared] == ["network", "post-processing", "answers"]
    assert [judged_part([c])["verdict"] for c in compared] == [PASS] * 3
    assert tuple(d.stage for d in compared[0].differences) == NETWORK_STAGES
    assert tuple(d.stage for d in compared[1].differences) == STAGES
    assert compared[2].differences[0].figures["matched"] >= 20


def test_mask_towers_that_did_not_run_are_reported(both: Parity, named: NamedImage, snapshot: StageSnapshot) -> None:
    both._gpu = WrongPath(_network(snapshot, features={}))  # type: ignore[assignment]
    judgement = judged_part([c for c in both.compare_image(named) if c.part == "post-processing"])
    assert "were not run" in judgement["said"]


def test_the_whole_self_test_passes_on_the_fake_device(report: Document) -> None:
    assert report["verdict"] == PASS, {name: part["said"] for name, part in report["parts"].items()}
    assert tuple(report["parts"]) == PARTS
    assert [report["parts"][name]["verdict"] for name in PARTS] == [PASS] * 5 + ["MEASURED"] * 3


def test_a_fake_device_is_never_taken_for_a_gpu(
    report: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report["device"] == "fake"
    assert report["hardware"]["gpu"] is None
    assert not report["parts"]["paper"]["paper"]["is_comparable"]
    assert "least_ms" not in report["parts"]["paper"]["roofline"]
    assert write_report(report, tmp_path / "report.json") == 0
    printed = capsys.readouterr().out
    assert "NO GPU: a fake device" in printed
    assert "says nothing of any GPU" in printed


def test_the_report_is_complete_json(report: Document, tmp_path: Path) -> None:
    write_report(report, tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["format"] == "solo-selftest"
    for name in ("verdict", "command", "date", "versions", "engine", "bundle", "tolerances"):
        assert read[name]
    sizes = read["parts"]["batches"]["sizes"]
    assert list(sizes) == ["1", "2"]
    for size in sizes.values():
        for words in ("h2d_latency_ms", "gpu_compute_time_ms", "d2h_latency_ms", "latency_ms"):
            assert set(size[words]) == {"min", "max", "mean", "median", "p90", "p95", "p99"}
            assert size[words]["median"] > 0
        assert {"network: categories", "network: masks", "count_candidates", "measure_cells"} <= set(size["stages_ms"])
    assert read["parts"]["memory"]["memory"]["device_bytes"]["scores"] > 0


def test_the_report_has_the_fields_that_its_description_lists(report: Document) -> None:
    text = (document_module.__doc__ or "").partition("Names of hosts")[0]
    listed = re.findall(r"^ {4}(\w+(?:, \w+)*) {2,}", text, re.MULTILINE)
    assert {name for line in listed for name in line.split(", ")} == {*report, "log"}  # the command adds the log


def test_the_report_has_no_names_of_this_machine(report: Document) -> None:
    text = json.dumps(report)
    assert str(Path.home()) not in text
    assert str(ROOT) not in text


def test_passes_and_windows_were_needed_for_the_small_buffers(opened: OpenedGpu, named: NamedImage) -> None:
    gpu = opened.open_small_buffers()
    try:
        times = gpu.time([named.prepared], [Query()])
        assert len(gpu.segment([named.prepared], [Query()])[0]) > 3 * SMALL_BUFFER_LIMITS.instances_at_once
    finally:
        gpu.backend.close()
    assert times.stages_ms["write_runs"] > 0


class LossyPath(GpuPath):
    """Drops the best instance of every image."""

    def segment(self, images: Sequence[PreparedImage], queries: Sequence[Query]) -> list[tuple[Instance, ...]]:
        return [instances[1:] for instances in super().segment(images, queries)]


def test_a_path_that_loses_instances_ends_with_status_1(
    opened: OpenedGpu, report: Document, named: NamedImage, tmp_path: Path
) -> None:
    true = opened.gpu
    lossy = LossyPath(true.spec, true.backend, true.device, is_fake=True)
    compared = [c for c in Parity(opened.bundle, lossy).compare_image(named) if c.part != "network"]
    parts = {part: judged_part([c for c in compared if c.part == part]) for part in ("post-processing", "answers")}
    assert [part["first_stage"] for part in parts.values()] == ["instances"] * 2
    assert "missing" in parts["post-processing"]["said"]
    whole = with_parts({name: value for name, value in report.items() if name not in ("parts", "verdict")}, parts)
    assert write_report(whole, tmp_path / "report.json") == 1


def test_a_lost_gpu_ends_the_test_and_fails(opened: OpenedGpu, named: NamedImage) -> None:
    class LostPath:
        spec, backend, watched, is_fake = opened.gpu.spec, opened.gpu.backend, opened.gpu.device, True

        def snapshots(self, images: Sequence[PreparedImage], queries: Sequence[Query]) -> list[StageSnapshot]:
            raise DeviceLost("cuEventSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS")

    lost = replace(opened, gpu=LostPath())  # type: ignore[arg-type]
    parts = examine(lost, [named], PLAN, _ignore)
    assert parts["network"]["verdict"] == FAIL
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in parts["network"]["said"]
    assert [parts[name]["verdict"] for name in PARTS[1:]] == [NOT_RUN] * 7


def test_a_part_that_raises_fails_and_shows_where() -> None:
    try:
        raise IndexError("index 7 is out of bounds")
    except IndexError as problem:
        part = failed_part(problem, "run")
    assert part["verdict"] == FAIL
    assert part["failure"]["lines"][-1].startswith("test_selftest.py:")


def test_a_path_that_cannot_be_opened_fails_with_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = FakeDevice()

    def refuse(*_: object, **__: object) -> None:
        raise DeviceOutOfMemory("cuMemAlloc (features, 9 bytes): CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(opening, "_device", lambda _: device)
    monkeypatch.setattr(opening, "kernels_cubin", lambda *_: b"cubin")
    monkeypatch.setattr(opening, "open_device_network", refuse)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    output = tmp_path / "report.json"
    assert command.run(parser.parse_args(["--engine", "tensorrt", "-o", str(output)])) == 1
    read = json.loads(output.read_text())
    assert read["verdict"] == FAIL
    assert list(read["parts"]) == ["open"]
    assert read["parts"]["open"]["first_stage"] == "open"
    assert "CUDA_ERROR_OUT_OF_MEMORY" in read["parts"]["open"]["said"]
    assert read["engine"]["seconds"]["kernels"] >= 0
    assert any("kernels: done" in line for line in read["log"])
    assert "DeviceOutOfMemory" in capsys.readouterr().out
    device.close()


def test_without_a_gpu_the_command_says_what_it_looked_for(tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    words = [sys.executable, "-m", "solo_models.cli", "selftest", "--engine", "tensorrt", "-o", str(output)]
    hidden = {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=_environment() | hidden)
    assert done.returncode == 3, done.stderr
    for word in ("no GPU was found", "NVIDIA driver", "cuda-bindings", "tensorrt", "nothing was tested"):
        assert word in done.stderr
    assert not output.exists()


@pytest.mark.parametrize("words", [["--max-batch", "0"], ["--images", "nowhere"], ["no-bundle"]])
def test_bad_input_ends_with_status_2(words: list[str], tmp_path: Path) -> None:
    given = [sys.executable, "-m", "solo_models.cli", "selftest", "--engine", "cuda", *words]
    done = subprocess.run(given, capture_output=True, text=True, check=False, env=_environment(), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("solo selftest: ")


def test_the_message_without_a_gpu_names_what_is_missing() -> None:
    said = no_gpu_message("cuda", "the NVIDIA driver shows no GPU here")
    assert "the NVIDIA driver shows no GPU here" in said
    assert "onnxruntime-gpu" in said
    assert "tensorrt" not in said


def test_the_verdict_is_pass_only_where_no_part_fails() -> None:
    head: Document = {"format": "solo-selftest"}
    assert with_parts(head, {"a": {"verdict": "MEASURED"}, "b": {"verdict": PASS}})["verdict"] == PASS
    assert with_parts(head, {"a": {"verdict": FAIL}, "b": {"verdict": PASS}})["verdict"] == FAIL


def test_paths_and_hosts_are_taken_out_of_texts() -> None:
    texts = {"a": "cannot write /home/me/.cache/solo/x.engine: full", "b": ["a/b stays", "~/secret/name"]}
    assert without_names(texts) == {"a": "cannot write .../x.engine: full", "b": ["a/b stays", ".../name"]}
    host = platform.node()
    if len(host) > 3 and host != "localhost":
        assert host not in without_names(f"on {host} here")


def test_instances_match_by_class_and_mask() -> None:
    def instance(class_id: int, runs: list[int], score: float = 0.5) -> Instance:
        return Instance(class_id, score, (0, 0, 4, 4), runs[1], Rle((4, 4), _counts(runs)))

    expected = [instance(0, [0, 16]), instance(1, [0, 8, 8]), instance(0, [0, 4, 12])]
    found = [instance(1, [0, 9, 7], 0.4), instance(0, [0, 16]), instance(2, [0, 4, 12])]
    agreement = match(expected, found)
    assert [(pair.expected, pair.found, pair.pixels) for pair in agreement.pairs] == [(0, 1, 0), (1, 0, 1)]
    assert agreement.pairs[0].is_identical
    assert agreement.pairs[1].score_difference == pytest.approx(0.1)
    assert (agreement.missing, agreement.extra) == ((2,), (2,))


def test_two_empty_masks_are_the_same() -> None:
    nothing = Instance(0, 0.5, (0, 0, 0, 0), 0, Rle((4, 4), _counts([16])))
    assert match([nothing], [nothing]).pairs[0].iou == 1.0


def test_statistics_are_those_of_the_values() -> None:
    values = [float(i) for i in range(1, 101)]
    found = statistics_of(values)
    assert (found["min"], found["max"], found["mean"], found["median"]) == (1.0, 100.0, 50.5, 50.5)
    assert (found["p90"], found["p99"]) == (91.0, 100.0)
    assert statistics_of([3.0])["p99"] == 3.0


def test_latency_is_copies_and_computing() -> None:
    times = BatchTimes(1.0, 4.0, 2.0, 0.5, {"project": 2.0}, 10.0)
    figures = summary([times, times], 4)
    assert figures["latency_ms"]["mean"] == 7.5
    assert figures["gpu_compute_time_ms"]["mean"] == 6.0
    assert figures["throughput_qps"] == 100.0
    assert figures["images_per_second"] == 400.0


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("Tesla V100-SXM2-16GB", "V100 SXM2"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM5"),
        ("NVIDIA A10G", None),
        ("Tesla V100-PCIE-16GB", None),
        ("fake GPU (emulated on the CPU)", None),
    ],
)
def test_only_known_gpus_have_data_sheets(name: str, title: str | None) -> None:
    known = known_gpu(name)
    assert (known.title if known else None) == title


def test_no_network_can_beat_the_peak() -> None:
    v100 = GPUS[0]
    assert least_ms(345.8, v100, "fp32") == pytest.approx(22.0, abs=0.1)
    assert least_ms(345.8, v100, "fp16") == pytest.approx(2.77, abs=0.01)


def test_generated_images_are_the_same_everywhere_and_a_folder_must_hold_some(bundle: Bundle, tmp_path: Path) -> None:
    rules = bundle.spec.preprocess
    names = [one.name for one in load_images(None, rules)]
    assert "astronaut.jpg" in names
    assert sum(name.startswith("generated") for name in names) == 3
    with pytest.raises(SettingsError, match="has no files with the endings"):
        load_images(tmp_path, rules)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(SettingsError, match=r"--images: broken\.png"):
        load_images(tmp_path, rules)


def test_batches_grow_to_the_largest() -> None:
    assert sizes_up_to(16).sizes == (1, 2, 4, 8, 16)
    assert sizes_up_to(1).sizes == (1,)
    assert sizes_up_to(12).sizes == (1, 2, 4, 8, 12)


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
