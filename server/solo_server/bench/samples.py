"""One sample: a task that a contender did, and what the rest of the machine did meanwhile.

Rounds are interleaved, A B C A B C, so that a slow minute of the machine slows all contenders.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter, process_time

from solo_server.bench import machine
from solo_server.bench.contender_process import ContenderProcess


@dataclass(frozen=True, slots=True)
class Sample:
    """One task done by one contender.

    run, round, task: where it stands; a run holds several rounds, a round each task once. total_ms, stages_ms, cpu_s: as the
    contender measured them. wall_s: as the parent saw it; foreign_cpu_s: processor seconds that neither of the two used
    meanwhile, in ticks of 10 ms and so a little below zero at times, `None` where the system does not tell.
    """

    run: int
    round: int
    task: int
    total_ms: float
    stages_ms: dict[str, float]
    instances: int
    cpu_s: float
    wall_s: float
    foreign_cpu_s: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """`runs` of `repeats` rounds over `tasks` tasks."""

    runs: int
    repeats: int
    tasks: int

    @property
    def rounds(self) -> int:
        """How often each contender takes each task."""
        return self.runs * self.repeats


def take_sample(child: ContenderProcess, run: int, number: int, task: int) -> Sample:
    """Have one task done, with an eye on the rest of the machine."""
    busy, own, start = machine.busy_s(), process_time(), perf_counter()
    answer = child.run_task(task)
    wall_s, own = perf_counter() - start, process_time() - own
    now = machine.busy_s()
    foreign = None if busy is None or now is None else round(now - busy - own - answer.cpu_s - answer.aside_cpu_s, 4)
    return Sample(
        run=run,
        round=number,
        task=task,
        total_ms=answer.total_ms,
        stages_ms=answer.stages_ms,
        instances=answer.instances,
        cpu_s=answer.cpu_s,
        wall_s=round(wall_s, 4),
        foreign_cpu_s=foreign,
    )
