"""Contenders side by side: started, warmed up, measured in interleaved rounds, asked for their memory, stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from solo_server.bench import machine
from solo_server.bench.child import Child, Start
from solo_server.bench.errors import EndedEarly
from solo_server.bench.figures import Figures, Ratio, figures_of, ratio_to
from solo_server.bench.progress import Progress
from solo_server.bench.protocol import Hello
from solo_server.bench.samples import Plan, Sample, take_rounds

INTERRUPTED = "interrupted"


@dataclass(slots=True)
class Contender:
    """One contender as it is being measured."""

    label: str
    hello: Hello
    warm_up_ms: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    peak_rss_mib: float | None = None

    def figures(self) -> Figures | None:
        """`None` before the first sample."""
        return figures_of(self.samples, machine.cores(), self.peak_rss_mib) if self.samples else None

    def ratio_to(self, first: Contender) -> Ratio | None:
        """`None` before both have samples."""
        if not (self.samples and first.samples):
            return None
        return ratio_to(first.samples, self.samples, (first.peak_rss_mib, self.peak_rss_mib))


@dataclass(slots=True)
class Measurement:
    """All contenders. ended_early: why not all rounds are there."""

    plan: Plan
    contenders: list[Contender] = field(default_factory=list)
    load_before: list[float] = field(default_factory=machine.load_average)
    load_after: list[float] = field(default_factory=list)
    ended_early: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: figures, ratios to the first contender, every sample."""
        return {
            **asdict(self.plan),
            "load_average": {"before": self.load_before, "after": self.load_after},
            "ended_early": self.ended_early,
            "contenders": [self._contender(c) for c in self.contenders],
        }

    def _contender(self, contender: Contender) -> dict[str, Any]:
        figures, ratio = contender.figures(), contender.ratio_to(self.contenders[0])
        return {
            "name": contender.label,
            **{k: v for k, v in asdict(contender.hello).items() if k != "name"},
            "warm_up_ms": contender.warm_up_ms,
            "figures": asdict(figures) if figures else None,
            "against_first": asdict(ratio) if ratio and contender is not self.contenders[0] else None,
            "samples": [asdict(sample) for sample in contender.samples],
        }


def measure(starts: Sequence[Start], plan: Plan) -> Measurement:
    """Run the plan. A contender that dies, or Ctrl-C, ends it; what was measured is kept.

    Raises:
        BenchError: a contender cannot be started or refuses the order.
    """
    result = Measurement(plan)
    with ExitStack() as running:
        children = [running.enter_context(Child(start)) for start in starts]
        labels = _distinct([child.label for child in children])
        result.contenders = [Contender(label, child.hello) for label, child in zip(labels, children, strict=True)]
        try:
            _take_all(children, result)
        except EndedEarly as problem:
            result.ended_early = str(problem)
        except KeyboardInterrupt:
            result.ended_early = INTERRUPTED
        result.load_after = machine.load_average()
    return result


def _take_all(children: Sequence[Child], result: Measurement) -> None:
    total = len(children) * result.plan.tasks * (result.plan.rounds + 1)
    with Progress(total, sys.stderr) as progress:
        done = 0

        def taken(place: int, sample: Sample) -> None:
            nonlocal done
            done += 1
            contender = result.contenders[place]
            contender.samples.append(sample)
            progress.show(done, f"round {sample.round + 1}/{result.plan.rounds}  {contender.label}")

        for contender, child in zip(result.contenders, children, strict=True):
            for task in range(result.plan.tasks):
                contender.warm_up_ms.append(child.ask(task).total_ms)
                done += 1
                progress.show(done, f"warm-up  {contender.label}")
        take_rounds(children, result.plan, taken)
    for contender, child in zip(result.contenders, children, strict=True):
        contender.peak_rss_mib = child.stop()


def _distinct(labels: Sequence[str]) -> list[str]:
    """The same names, numbered where one occurs twice."""
    return [
        f"{name} #{labels[: i + 1].count(name)}" if labels.count(name) > 1 else name for i, name in enumerate(labels)
    ]
