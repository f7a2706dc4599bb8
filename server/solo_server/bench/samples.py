"""One sample: a task run by a contender, and the load from other processes during it.

Rounds are interleaved, A B C A B C, so that a slow phase of the machine affects all contenders.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter, process_time

from solo_server.bench import machine
from solo_server.bench.contender_process import ContenderProcess


@dataclass(frozen=True, slots=True)
class Sample:
    """One task run by one contender.

    run, round, task: its position; a run has several rounds, a round has each task once. total_ms, stages_ms, cpu_s: measured by
    the contender. wall_s: measured by the parent. foreign_cpu_s: processor seconds used by other processes, in ticks of 10 ms, so
    it can be slightly negative; `None` if the system does not provide it.
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
        """How often each contender runs each task."""
        return self.runs * self.repeats


def take_sample(child: ContenderProcess, run: int, number: int, task: int) -> Sample:
    """Run one task and measure the load from other processes."""
    busy, own, start = machine.busy_s(), process_time(), perf_counter()
    reply = child.run_task(task)
    wall_s, own = perf_counter() - start, process_time() - own
    now = machine.busy_s()
    foreign = None if busy is None or now is None else round(now - busy - own - reply.cpu_s - reply.aside_cpu_s, 4)
    return Sample(
        run=run,
        round=number,
        task=task,
        total_ms=reply.total_ms,
        stages_ms=reply.stages_ms,
        instances=reply.instances,
        cpu_s=reply.cpu_s,
        wall_s=round(wall_s, 4),
        foreign_cpu_s=foreign,
    )
