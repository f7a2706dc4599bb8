"""`solo bench engine`: the network alone, without decoding and post-processing, relative to the machine's peak."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

from solo_models import arithmetic
from solo_models.sizes import size_text
from solo_models.spec import ModelSpec

from solo_server.bench import arguments as shared
from solo_server.bench.contender_process import LaunchSpec
from solo_server.bench.contenders import ContenderChoice, Workload, with_blas_threads
from solo_server.bench.engine_figures import Rate, best_matmul_gflop_per_s, rates_of
from solo_server.bench.errors import BenchError
from solo_server.bench.finish import Outcome, finish
from solo_server.bench.measure import Contender, Measurement, measure
from solo_server.bench.result import document
from solo_server.bench.samples import Plan
from solo_server.bench.table import aligned, foreign_shares, noise
from solo_server.system.cores import cores

SUMMARY = "measure the network alone: categories, and the mask towers of all levels"
WORKER = "solo_server.bench.workers.engine"
PROBE = "solo_server.bench.workers.matmul"
HEADINGS = ("contender", "batch", "part", "ms", "images/s", "GFLOP", "GFLOP/s", "of best", "time", "rounds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo bench engine`."""
    parser.add_argument(
        "--size",
        type=shared.padded_hw,
        metavar="LONGxSHORT[:portrait]",
        help="padded network input, such as 704x512 (default: the bundle's, landscape)",
    )
    parser.add_argument(
        "--batch", type=shared.positive_list, default=(1,), metavar="1,2,4", help="batch sizes (default 1)"
    )
    shared.add_contenders(parser)
    shared.add_rounds(parser, repeats=2)
    shared.add_outputs(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write; exit status."""
    chosen = ContenderChoice.read(arguments)
    padded_hw = padded_size(chosen.bundle.spec, arguments.size)
    plan = Plan(arguments.runs, arguments.repeats, len(arguments.batch))
    setup = {"batches": list(arguments.batch), "padded_hw": list(padded_hw)}
    measured = measure(chosen.launch_specs(Workload(WORKER, setup)), plan, _probe(arguments.threads))
    result = EngineResult(measured, arguments.batch, arithmetic.reference(chosen.bundle.spec, padded_hw).total)
    settings = {**setup, "threads": arguments.threads}
    content = document("engine", settings, result.to_dict())
    return finish(Outcome(content, result.text(), measured.ended_early), arguments)


def padded_size(spec: ModelSpec, requested: tuple[int, int] | None) -> tuple[int, int]:
    """The requested padded size, or that of the largest landscape image.

    Raises:
        BenchError: a side is not a multiple of the bundle's padding.
    """
    multiple = spec.preprocess.pad_multiple
    if requested is None:
        sides = (spec.preprocess.short_side, spec.preprocess.long_side)
        return (-(-sides[0] // multiple) * multiple, -(-sides[1] // multiple) * multiple)
    if requested[0] % multiple or requested[1] % multiple:
        raise BenchError(f"--size {size_text(requested)}: both sides must be multiples of {multiple}")
    return requested


class EngineResult:
    """A measurement by contender and batch size. reference_gflop: arithmetic of the full head, which the peers run."""

    def __init__(self, measured: Measurement, batches: tuple[int, ...], reference_gflop: float) -> None:
        self._measured, self._batches = measured, batches
        self._reference = {"total": reference_gflop}
        self._best = best_matmul_gflop_per_s(measured.probe_samples)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the measurement with figures and rates of each batch size."""
        measurement = self._measured.to_dict()
        for entry, contender in zip(measurement["contenders"], self._measured.contenders, strict=True):
            entry["batches"] = [
                {
                    "batch": batch,
                    **self._measured.figures_dict(contender, task),
                    "rates": [asdict(rate) for rate in self._rates(contender, task)],
                }
                for task, batch in enumerate(self._batches)
            ]
        probe = [sample.stages_ms for sample in self._measured.probe_samples]
        return {"best_matmul_gflop_per_s": self._best, "matmul_ms": probe, **measurement}

    def text(self) -> str:
        """Tables for the terminal."""
        rows: list[tuple[str, ...]] = [HEADINGS]
        for task, batch in enumerate(self._batches):
            for contender in self._measured.contenders:
                rows += [self._row(contender, task, batch, rate) for rate in self._rates(contender, task)]
        best = "not measured" if self._best is None else f"{self._best:.0f} GFLOP/s"
        lines = [aligned(rows), "", f"best float32 matrix product: {best} on {cores()} cores"]
        return "\n".join([*lines, *noise(foreign_shares(self._measured))])

    def _rates(self, contender: Contender, task: int) -> list[Rate]:
        figures = contender.figures(task)
        if figures is None:
            return []
        return rates_of(figures, self._batches[task], contender.hello.gflop or self._reference, self._best)

    def _row(self, contender: Contender, task: int, batch: int, rate: Rate) -> tuple[str, ...]:
        is_total = rate.part == "total"
        first = self._measured.contenders[0]
        ratio = contender.ratio_to(first, task) if is_total and contender is not first else None
        return (
            contender.label if is_total else "",
            str(batch) if is_total else "",
            rate.part,
            f"{rate.ms:.1f}",
            f"{batch / rate.ms * 1e3:.2f}" if is_total else "",
            f"{rate.gflop:.1f}",
            f"{rate.gflop_per_s:.0f}",
            "" if rate.share is None else f"{rate.share:.0%}",
            f"{ratio.time:.2f}x" if ratio else "",
            f"{ratio.time_min:.2f}..{ratio.time_max:.2f}" if ratio else "",
        )


def _probe(threads: int) -> LaunchSpec:
    return LaunchSpec((sys.executable, "-m", PROBE), {}, with_blas_threads(threads or cores()), role="matrix product")
