"""The simulation behind `fleet.py`: events in order of time, pods with slots and a bounded queue, an autoscaler.

Assumptions. An image takes a time drawn from the measured ones, on a slot of its own (one core); slots do not disturb each
other. A pod refuses an image when `max_waiting` images are in it; callers do not send it again. The balancer knows the pods
that are ready; `least` also how many images each holds, as ingress controllers with least connections do, `random` is what
kube-proxy does. The autoscaler follows Kubernetes' algorithm with a metric that is a mean of 30 s and 15 s old. A removed pod
answers what it holds. A lost node loses what its pods hold and what is sent to them until the balancer notices, after five
seconds; other pods replace them after 70 s, as with the chart (40 s until Kubernetes gives a node up, 30 s of toleration). The
network takes no time.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

TICK_S = 15.0  # how often the autoscaler decides
LAG_S, WINDOW_S = 15.0, 30.0  # age of its metric, and the time that it averages
TOLERANCE = 0.1  # it does nothing for smaller differences
UP_S, DOWN_S = 30.0, 60.0  # its policies: at most twice as many, or two more, in 30 s; one less in 60 s
NOTICED_S, REPLACED_S = 5.0, 70.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """nodes: pods are spread over them; slots: images at a time in a pod; start_s: from its creation until a pod is ready."""

    nodes: int
    slots: int
    max_waiting: int
    start_s: float
    balancer: Literal["least", "random"]


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """lowest, highest: pods; target: images in a pod, on average; down_after_s: how long fewer pods must be enough."""

    lowest: int
    highest: int
    target: float
    down_after_s: float

    def wanted(self, pods: int, mean_images: float) -> int:
        """Pods by Kubernetes' formula, within the limits; `pods` where the metric is within the tolerance of the target."""
        ratio = mean_images / self.target
        number = pods if abs(ratio - 1) <= TOLERANCE else math.ceil(pods * ratio)
        return max(self.lowest, min(self.highest, number))


@dataclass(frozen=True, slots=True)
class Events:
    """When a node is lost, and when another one becomes slow, in seconds; never where infinite."""

    node_lost_s: float = math.inf
    node_slow_s: float = math.inf
    slow_factor: float = 1.0


@dataclass(slots=True)
class Outcome:
    """What happened. answers_s: times from acceptance to answer, by the minute of the answer; lost: images of lost nodes."""

    arrived: int = 0
    refused: int = 0
    lost: int = 0
    pod_seconds: float = 0.0
    most_pods: int = 0
    answers_s: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def answered(self) -> int:
        """Number of answers."""
        return sum(map(len, self.answers_s.values()))

    def quantile_ms(self, share: float) -> float:
        """A quantile of the answers' times, in milliseconds; 0 without answers."""
        return _quantile(sorted(itertools.chain.from_iterable(self.answers_s.values())), share)

    @property
    def worst_minute_ms(self) -> float:
        """The highest p99 of a minute, in milliseconds."""
        return max((_quantile(sorted(times), 0.99) for times in self.answers_s.values()), default=0.0)


@dataclass(slots=True)
class _Pod:
    node: int
    ready_s: float
    created_s: float
    busy: int = 0
    queue: deque[float] = field(default_factory=deque)  # times of acceptance
    is_lost: bool = False  # with its node
    is_known_lost: bool = False

    @property
    def images(self) -> int:
        return self.busy + len(self.queue)


def simulate(
    fleet: Fleet,
    scaler: Autoscaler,
    events: Events,
    rate: Callable[[float], float],
    service_s: Sequence[float],
    until_s: float,
    seed: int,
) -> Outcome:
    """Run until `until_s`, then until every accepted image has its answer. rate: images/s that arrive at a time."""
    return _Simulation(fleet, scaler, events, rate, service_s, until_s, random.Random(seed)).run()  # noqa: S311


class _Simulation:
    def __init__(
        self,
        fleet: Fleet,
        scaler: Autoscaler,
        events: Events,
        rate: Callable[[float], float],
        service_s: Sequence[float],
        until_s: float,
        random_numbers: random.Random,
    ) -> None:
        self._fleet, self._scaler, self._events = fleet, scaler, events
        self._rate, self._service_s, self._until_s, self._random = rate, service_s, until_s, random_numbers
        self._highest_rate = max(rate(until_s * step / 2000) for step in range(2001))
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = itertools.count()
        self._pods: list[_Pod] = []
        self._samples: deque[tuple[float, float]] = deque()
        self._recommended: deque[tuple[float, int]] = deque()
        self._lost_nodes: set[int] = set()
        self._last_down_s = -math.inf
        self._scaled_up: deque[tuple[float, int]] = deque()
        self._outcome = Outcome()

    def run(self) -> Outcome:
        for _ in range(self._scaler.lowest):
            self._add_pod(-self._fleet.start_s)
        self._at(0.0, self._arrive)
        self._at(1.0, self._sample)
        self._at(TICK_S, self._scale)
        self._at(self._events.node_lost_s, self._lose_node)
        while self._heap:
            at_s, _, event = heapq.heappop(self._heap)
            event(at_s)
        for pod in self._pods:
            self._outcome.pod_seconds += max(0.0, self._until_s - max(0.0, pod.created_s))
        return self._outcome

    def _at(self, at_s: float, event: Callable[[float], None]) -> None:
        if at_s < math.inf:
            heapq.heappush(self._heap, (at_s, next(self._number), event))

    def _arrive(self, now_s: float) -> None:
        """One arrival of a Poisson process of the highest rate, kept with the share that the present rate is of it."""
        next_s = now_s + self._random.expovariate(self._highest_rate)
        if next_s < self._until_s:
            self._at(next_s, self._arrive)
        if self._random.random() * self._highest_rate >= self._rate(now_s):
            return
        self._outcome.arrived += 1
        pod = self._choose(now_s)
        if pod is None or pod.images >= self._fleet.max_waiting:
            self._outcome.refused += 1
        elif pod.is_lost:
            self._outcome.lost += 1
            pod.queue.append(now_s)  # the connection hangs
        else:
            pod.queue.append(now_s)
            self._work(pod, now_s)

    def _choose(self, now_s: float) -> _Pod | None:
        ready = [pod for pod in self._pods if pod.ready_s <= now_s and not pod.is_known_lost]
        if not ready:
            return None
        if self._fleet.balancer == "random":
            return self._random.choice(ready)
        fewest = min(pod.images for pod in ready)
        return self._random.choice([pod for pod in ready if pod.images == fewest])

    def _work(self, pod: _Pod, now_s: float) -> None:
        while pod.queue and pod.busy < self._fleet.slots:
            accepted_s = pod.queue.popleft()
            pod.busy += 1
            is_slow = pod.node == 1 and now_s >= self._events.node_slow_s
            takes_s = self._random.choice(self._service_s) * (self._events.slow_factor if is_slow else 1.0)
            self._at(now_s + takes_s, lambda at_s, accepted_s=accepted_s: self._answer(pod, accepted_s, at_s))  # type: ignore[misc]

    def _answer(self, pod: _Pod, accepted_s: float, now_s: float) -> None:
        if pod.is_lost:
            return
        pod.busy -= 1
        self._outcome.answers_s[int(now_s // 60)].append(now_s - accepted_s)
        self._work(pod, now_s)

    def _sample(self, now_s: float) -> None:
        """What Prometheus sees: images in the pods that are ready, on average."""
        if now_s < self._until_s:
            self._at(now_s + 1.0, self._sample)
        ready = [pod for pod in self._pods if pod.ready_s <= now_s and not pod.is_lost]
        if ready:
            self._samples.append((now_s, sum(pod.images for pod in ready) / len(ready)))
        while self._samples and self._samples[0][0] < now_s - LAG_S - WINDOW_S:
            self._samples.popleft()

    def _scale(self, now_s: float) -> None:
        """Kubernetes' autoscaler: up at once within its policies, down to the most that was wanted in `down_after_s`."""
        if now_s + TICK_S < self._until_s:
            self._at(now_s + TICK_S, self._scale)
        metric = [value for at_s, value in self._samples if at_s <= now_s - LAG_S]
        if not metric:
            return
        wanted = self._scaler.wanted(len(self._pods), sum(metric) / len(metric))
        self._recommended.append((now_s, wanted))
        while self._recommended[0][0] < now_s - self._scaler.down_after_s:
            self._recommended.popleft()
        while self._scaled_up and self._scaled_up[0][0] <= now_s - UP_S:
            self._scaled_up.popleft()
        present = len(self._pods)
        if wanted > present:
            before = present - sum(number for _, number in self._scaled_up)
            added = max(0, min(wanted, max(2 * before, before + 2)) - present)
            self._scaled_up.append((now_s, added))
            for _ in range(added):
                self._add_pod(now_s)
        elif max(number for _, number in self._recommended) < present and now_s - self._last_down_s >= DOWN_S:
            self._last_down_s = now_s
            self._remove(self._pods[-1], now_s)

    def _add_pod(self, now_s: float) -> None:
        nodes = [node for node in range(self._fleet.nodes) if node not in self._lost_nodes]
        node = min(nodes, key=lambda node: sum(pod.node == node for pod in self._pods))
        self._pods.append(_Pod(node, now_s + self._fleet.start_s, now_s))
        self._outcome.most_pods = max(self._outcome.most_pods, len(self._pods))

    def _remove(self, pod: _Pod, now_s: float) -> None:
        """Send no more to the pod; it answers what it holds."""
        self._outcome.pod_seconds += now_s - max(0.0, pod.created_s)
        self._pods.remove(pod)

    def _lose_node(self, now_s: float) -> None:
        """Node 0 is gone."""
        self._lost_nodes.add(0)
        for pod in [pod for pod in self._pods if pod.node == 0]:
            pod.is_lost = True
            self._outcome.lost += pod.images
        self._at(now_s + NOTICED_S, self._notice)
        self._at(now_s + REPLACED_S, self._replace_lost)

    def _notice(self, _: float) -> None:
        for pod in self._pods:
            pod.is_known_lost = pod.is_lost

    def _replace_lost(self, now_s: float) -> None:
        for pod in [pod for pod in self._pods if pod.is_lost]:
            self._remove(pod, now_s)
            self._add_pod(now_s)


def _quantile(values: list[float], share: float) -> float:
    """Of sorted seconds, in milliseconds."""
    return 1e3 * values[min(len(values) - 1, math.ceil(share * len(values)) - 1)] if values else 0.0
