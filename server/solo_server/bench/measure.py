"""Measures contenders side by side: start, warm up, run interleaved rounds, read peak memory, stop."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from solo_server.bench import machine
from solo_server.bench.contender_process import ContenderProcess, LaunchSpec
from solo_server.bench.errors import EndedEarly
from solo_server.bench.figures import Figures, Ratio, figures_of, ratio_to
from solo_server.bench.progress import Progress
from solo_server.bench.protocol import Hello
from solo_server.bench.samples import Plan, Sample, take_sample
from solo_server.system.cores import cores

INTERRUPTED = "interrupted"


@dataclass(slots=True)
class Contender:
    """One contender, and its measurements so far."""

    label: str
    hello: Hello
    warm_up_ms: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    peak_rss_mib: float | None = None

    def figures(self, task: int | None = None) -> Figures | None:
        """Figures over all tasks, or of one; `None` before the first sample."""
        samples = self.samples_of(task)
        return figures_of(samples, cores(), self.peak_rss_mib) if samples else None

    def ratio_to(self, first: Contender, task: int | None = None) -> Ratio | None:
        """This contender relative to the first; `None` before both have samples."""
        theirs, ours = first.samples_of(task), self.samples_of(task)
        return ratio_to(theirs, ours, cores(), (first.peak_rss_mib, self.peak_rss_mib)) if theirs and ours else None

    def samples_of(self, task: int | None) -> list[Sample]:
        """The samples of one task, or all."""
        return [s for s in self.samples if task is None or s.task == task]


@dataclass(slots=True)
class Measurement:
    """All contenders. probe_samples: from the probe, one per round; ended_early: why rounds are missing, or None."""

    plan: Plan
    contenders: list[Contender] = field(default_factory=list)
    probe_samples: list[Sample] = field(default_factory=list)
    load_before: list[float] = field(default_factory=machine.load_average)
    load_after: list[float] = field(default_factory=list)
    ended_early: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the plan, and every sample of every contender."""
        return {
            **asdict(self.plan),
            "load_average": {"before": self.load_before, "after": self.load_after},
            "ended_early": self.ended_early,
            "contenders": [self._contender(c) for c in self.contenders],
        }

    def figures_dict(self, contender: Contender, task: int | None = None) -> dict[str, Any]:
        """JSON-ready figures of a contender, and its ratios to the first one."""
        figures, ratio = contender.figures(task), contender.ratio_to(self.contenders[0], task)
        return {
            "figures": asdict(figures) if figures else None,
            "against_first": asdict(ratio) if ratio and contender is not self.contenders[0] else None,
        }

    def _contender(self, contender: Contender) -> dict[str, Any]:
        return {
            "name": contender.label,
            **{k: v for k, v in asdict(contender.hello).items() if k != "name"},
            "peak_rss_mib": contender.peak_rss_mib,
            "warm_up_ms": contender.warm_up_ms,
            "samples": [asdict(sample) for sample in contender.samples],
        }


def measure(launches: Sequence[LaunchSpec], plan: Plan, probe: LaunchSpec | None = None) -> Measurement:
    """Run the plan. If a contender dies, or on Ctrl-C, the measurement ends and the results so far are kept.

    probe: a process that measures the machine itself, once per round.

    Raises:
        BenchError: a contender cannot be started or refuses its setup.
    """
    result = Measurement(plan)
    with ExitStack() as running:
        children = [running.enter_context(ContenderProcess(launch)) for launch in launches]
        probe_process = running.enter_context(ContenderProcess(probe)) if probe else None
        labels = _distinct([child.label for child in children])
        result.contenders = [Contender(label, child.hello) for label, child in zip(labels, children, strict=True)]
        try:
            _run_rounds(children, probe_process, result)
        except EndedEarly as problem:
            result.ended_early = str(problem)
        except KeyboardInterrupt:
            result.ended_early = INTERRUPTED
        result.load_after = machine.load_average()
    return result


def _run_rounds(
    children: Sequence[ContenderProcess], probe_process: ContenderProcess | None, result: Measurement
) -> None:
    plan = result.plan
    with Progress(len(children) * plan.tasks * (plan.rounds + 1), sys.stderr) as progress:
        for contender, child in zip(result.contenders, children, strict=True):
            for task in range(plan.tasks):
                contender.warm_up_ms.append(child.run_task(task).total_ms)
                progress.advance(f"warm-up  {contender.label}")
        for number in range(plan.rounds):
            for contender, child in zip(result.contenders, children, strict=True):
                for task in range(plan.tasks):
                    contender.samples.append(take_sample(child, number // plan.repeats, number, task))
                    progress.advance(f"round {number + 1}/{plan.rounds}  {contender.label}")
            if probe_process is not None:
                result.probe_samples.append(take_sample(probe_process, number // plan.repeats, number, 0))
    for contender, child in zip(result.contenders, children, strict=True):
        contender.peak_rss_mib = child.stop()


def _distinct(labels: Sequence[str]) -> list[str]:
    """The names, numbered if one occurs several times."""
    return [
        f"{name} #{labels[: i + 1].count(name)}" if labels.count(name) > 1 else name for i, name in enumerate(labels)
    ]
