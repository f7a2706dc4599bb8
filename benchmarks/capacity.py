"""How many replicas, cores, GPUs and nodes a rate of images needs, and what they may promise. docs/scale.md explains the figures.

    python benchmarks/capacity.py --rate 10000 --measured benchmarks/results/bench_demo.json \\
        --contender "demo-person int8 openvino"
    python benchmarks/capacity.py --rate 10000 --replica-rate 270 --slots 8 --cores 8 --gpus 1 --memory-mib 4096 --node-gpus 8

A replica computes `slots` images at a time, each in slots / rate seconds. Images arrive at random (Poisson) and are divided
at random among the replicas. Waiting times: the formula of Erlang for M/M/c, halved, since an image always takes about the
same time (Allen and Cunneen's approximation of M/D/c). `fleet.py` simulates what this leaves out: growth, failures,
autoscaling.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MAX_UTILISATION = 0.95  # beyond it, waiting times depend on the smallest change of the load


@dataclass(frozen=True, slots=True)
class Replica:
    """What one replica does and needs.

    images_per_s: with all slots busy; slots: images at a time; memory_mib: peak of the process, without waiting images.
    """

    images_per_s: float
    slots: int
    cores: int
    memory_mib: float
    gpus: int = 0

    @property
    def service_s(self) -> float:
        """How long a slot takes for an image."""
        return self.slots / self.images_per_s


@dataclass(frozen=True, slots=True)
class Node:
    """What a machine has for replicas."""

    cores: int
    memory_mib: float
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Demand:
    """What callers send and expect.

    images_per_s: at the peak; utilisation: the share of their capacity that replicas are planned for; image_bytes, answer_bytes:
    on the wire; latency_s: the longest that a caller waits.
    """

    images_per_s: float
    utilisation: float
    image_bytes: float
    answer_bytes: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demand needs.

    replicas: of which nodes hold replicas_per_node each, spare nodes included; max_waiting: SOLO_MAX_WAITING of a replica for the
    latency; p50_ms, p99_ms: from acceptance to answer; gbit_in, gbit_out: at the peak, for all nodes together.
    """

    replicas: int
    replicas_per_node: int
    nodes: int
    cores: int
    gpus: int
    memory_gib: float
    gbit_in: float
    gbit_out: float
    max_waiting: int
    p50_ms: float
    p99_ms: float


def plan(replica: Replica, node: Node, demand: Demand, spare_nodes: int) -> Plan:
    """The smallest fleet for a demand that also carries it while `spare_nodes` nodes are lost.

    Raises:
        ValueError: a node holds no replica, the utilisation is out of range, or one image alone takes longer than callers wait.
    """
    if not 0 < demand.utilisation <= MAX_UTILISATION:
        raise ValueError(f"--utilisation must be above 0 and at most {MAX_UTILISATION}, not {demand.utilisation}")
    if demand.latency_s <= replica.service_s:
        raise ValueError(
            f"--latency-ms {demand.latency_s * 1e3:.0f} is not above the {replica.service_s * 1e3:.0f} ms of an image alone"
        )
    per_node = _fitting(replica, node)
    needed = math.ceil(demand.images_per_s / (replica.images_per_s * demand.utilisation))
    nodes = math.ceil(needed / per_node) + spare_nodes
    load = demand.images_per_s / needed
    return Plan(
        replicas=nodes * per_node,
        replicas_per_node=per_node,
        nodes=nodes,
        cores=nodes * node.cores,
        gpus=nodes * per_node * replica.gpus,
        memory_gib=round(nodes * per_node * replica.memory_mib / 1024, 1),
        gbit_in=round(demand.images_per_s * demand.image_bytes * 8 / 1e9, 2),
        gbit_out=round(demand.images_per_s * demand.answer_bytes * 8 / 1e9, 2),
        max_waiting=max(replica.slots, math.floor(demand.latency_s * replica.images_per_s)),
        p50_ms=round(1e3 * answer_s(replica, load, 0.5), 1),
        p99_ms=round(1e3 * answer_s(replica, load, 0.99), 1),
    )


def answer_s(replica: Replica, load: float, quantile: float) -> float:
    """The quantile of the time from acceptance to answer, in seconds. load: images/s that arrive at the replica."""
    waits = erlang_c(replica.slots, load * replica.service_s)
    if waits <= 1 - quantile:
        return replica.service_s
    return replica.service_s + math.log(waits / (1 - quantile)) / (2 * (replica.images_per_s - load))


def erlang_c(slots: int, offered: float) -> float:
    """The probability that an image has to wait (Erlang's C formula). offered: arriving images/s times seconds an image.

    Raises:
        ValueError: at least as much is offered as the slots can do.
    """
    if offered >= slots:
        raise ValueError(f"{offered:.2f} slots are needed, there are {slots}")
    blocked = 1.0
    for busy in range(1, slots + 1):  # Erlang's B formula, by recursion
        blocked = offered * blocked / (busy + offered * blocked)
    return blocked / (1 - offered / slots * (1 - blocked))


def measured(file: Path, contender: str) -> Replica:
    """A replica as `solo bench pipeline` has measured it, with a slot for each core.

    Raises:
        ValueError: the file has no such contender; names those that it has.
        OSError: the file cannot be read.
    """
    content: dict[str, Any] = json.loads(file.read_bytes())
    found = {entry["name"]: entry["figures"] for entry in content.get("contenders", [])}
    if contender not in found:
        raise ValueError(f"{file}: has no contender {contender!r}; it has {', '.join(found) or 'none'}")
    cores = int(content["hardware"]["cores"])
    return Replica(found[contender]["fps"], cores, cores, found[contender]["peak_rss_mib"])


def _fitting(replica: Replica, node: Node) -> int:
    """How many replicas a node holds."""
    limits = [node.cores // replica.cores, int(node.memory_mib // replica.memory_mib)]
    if replica.gpus:
        limits.append(node.gpus // replica.gpus)
    if min(limits) < 1:
        raise ValueError("a node is too small for a replica: compare cores, memory and GPUs of both")
    return min(limits)


def _replica(arguments: argparse.Namespace) -> Replica:
    if arguments.measured is not None:
        return measured(arguments.measured, arguments.contender)
    if arguments.replica_rate is None:
        raise ValueError("say how fast a replica is: --replica-rate, or --measured with --contender")
    slots = arguments.slots or arguments.cores
    return Replica(arguments.replica_rate, slots, arguments.cores, arguments.memory_mib, arguments.gpus)


def main(words: list[str] | None = None) -> int:
    """Print the plan; exit status 2 for values that cannot be."""
    arguments = _parser().parse_args(words)
    try:
        replica = _replica(arguments)
        node = Node(arguments.node_cores, arguments.node_memory_gib * 1024, arguments.node_gpus)
        demand = Demand(arguments.rate, arguments.utilisation, arguments.image_kb * 1e3, arguments.answer_kb * 1e3,
                        arguments.latency_ms / 1e3)  # fmt: skip
        found = plan(replica, node, demand, arguments.spare_nodes)
    except (ValueError, OSError) as problem:
        print(f"capacity: {problem}", file=sys.stderr)
        return 2
    if arguments.json:
        print(
            json.dumps(
                {"replica": asdict(replica), "node": asdict(node), "demand": asdict(demand), "plan": asdict(found)}
            )
        )
        return 0
    width = max(map(len, asdict(found)))
    for name, value in asdict(found).items():
        print(f"{name.replace('_', ' '):<{width}}  {value}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, required=True, help="images a second at the peak")
    parser.add_argument(
        "--measured", type=Path, metavar="FILE.json", help="a replica as `solo bench pipeline -o` measured it"
    )
    parser.add_argument("--contender", default="", metavar="NAME", help="which contender of that file")
    parser.add_argument("--replica-rate", type=float, metavar="X", help="images a second of one replica")
    parser.add_argument("--slots", type=int, default=0, help="images at a time in a replica (default: its cores)")
    parser.add_argument("--cores", type=int, default=2, help="of a replica (default 2)")
    parser.add_argument("--gpus", type=int, default=0, help="of a replica (default 0)")
    parser.add_argument("--memory-mib", type=float, default=1024, help="of a replica (default 1024)")
    parser.add_argument("--utilisation", type=float, default=2 / 3, help="planned share of the capacity (default 2/3)")
    parser.add_argument("--latency-ms", type=float, default=1000, help="the longest that a caller waits (default 1000)")
    parser.add_argument("--image-kb", type=float, default=150, help="of an image on the wire (default 150)")
    parser.add_argument("--answer-kb", type=float, default=5, help="of an answer (default 5)")
    parser.add_argument("--node-cores", type=int, default=64, help="(default 64)")
    parser.add_argument("--node-memory-gib", type=float, default=256, help="(default 256)")
    parser.add_argument("--node-gpus", type=int, default=0, help="(default 0)")
    parser.add_argument("--spare-nodes", type=int, default=1, help="nodes that may be lost at the peak (default 1)")
    parser.add_argument("--json", action="store_true", help="print JSON with all values")
    return parser


if __name__ == "__main__":
    sys.exit(main())
