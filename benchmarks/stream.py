"""Frames per second and latency of `WS /stream`, compared with the pipeline in process on the same frames, in interleaved rounds.

    python benchmarks/stream.py [--quick] [--busy] [--images FOLDER] [-o benchmarks/results/stream.json]

In process: images one by one, as `solo bench pipeline` measures them (`one_by_one`), and one image per core at a time
(`run_to_completion`). The stream: `in_flight` frames on the way (`paced`), one more (`one_more`), and a camera that is faster
than the server, so that frames are dropped (`camera`). Latency is from before a frame is sent to after its result is received;
in frames, it is that time multiplied by the rate. Exit status 3 if the machine is not idle.
"""

from __future__ import annotations

import argparse
import json
import statistics
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from record import write_record
from reliability_parts import in_process
from reliability_parts.figures import ratios, spread
from reliability_parts.loads import in_child, served
from reliability_parts.run_options import IDLE_SHARE, RunOptions, log, others_share
from solo_server.bench.load.server_process import Address
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

BUSY_STATUS = 3
IN_FLIGHT = 8
IN_PROCESS = {name: in_process.TASKS.index(name) for name in ("one_by_one", "run_to_completion")}
FASTER = 1.5
"""Rate of the camera, in rates of the stream that is paced."""


@dataclass(frozen=True, slots=True)
class StreamRound:
    """rate: results per second; latency_ms: median; dropped: share of the frames."""

    rate: float
    latency_ms: float
    dropped: float

    @property
    def latency_frames(self) -> float:
        """How many frames pass while one is on its way."""
        return self.latency_ms * self.rate / 1e3


def main() -> int:
    """Measure and print, or write."""
    arguments = _parser().parse_args()
    options = RunOptions(arguments.quick, arguments.images, Path(sys.executable), profile=False)
    share = others_share() or 0.0
    if share > IDLE_SHARE and not (arguments.busy or arguments.quick):
        log(f"stream: NOT IDLE: other processes use {100 * share:.0f} % of the machine; wait, or use --busy")
        return BUSY_STATUS
    found = measure(options) | {"quick": options.is_quick, "others_before": share}
    if arguments.output is not None:
        write_record(arguments.output, found)
    for name, rate in found["per_s"].items():
        more = found["streams"].get(name)
        latency = (
            f", latency {more['latency_ms']['median']} ms, {more['latency_frames']['median']} frames" if more else ""
        )
        log(f"{name:<18} {rate['median']:>7} images/s  {found['ratios'][name]['median']} of one_by_one{latency}")
    return 0


def measure(options: RunOptions) -> dict[str, Any]:
    """Run the rounds; their rates, latencies and a summary."""
    count, rounds = int(options.pick(160, 12)), int(options.pick(9, 1))
    bodies, rates, streams = list(options.images().values()), list[dict[str, float]](), list[dict[str, StreamRound]]()
    with served() as server, in_child(in_process.__file__, options.images(), IN_FLIGHT, count) as child:
        for index in IN_PROCESS.values():
            child.run_task(index)
        _streams(server.address, bodies, count)
        for number in range(rounds):
            streams.append(_streams(server.address, bodies, count))
            rates.append({name: count / child.run_task(index).total_ms * 1e3 for name, index in IN_PROCESS.items()})
            rates[-1] |= {name: stream.rate for name, stream in streams[-1].items()}
            log(f"{number + 1}/{rounds}: " + ", ".join(f"{name} {rate:.2f}" for name, rate in rates[-1].items()))
    return {"images_a_round": count, "rounds": rates, **summary(rates, streams)}


def summary(rates: Sequence[dict[str, float]], streams: Sequence[dict[str, StreamRound]]) -> dict[str, Any]:
    """Spread of the rates, of their ratios to the pipeline one by one, and of latencies."""
    columns = {name: [one[name] for one in rates] for name in rates[0]}
    return {
        "per_s": {name: spread(values, 2) for name, values in columns.items()},
        "ratios": {name: ratios(values, columns["one_by_one"]) for name, values in columns.items()},
        "streams": {
            name: {
                "latency_ms": spread([one[name].latency_ms for one in streams], 1),
                "latency_frames": spread([one[name].latency_frames for one in streams], 2),
                "dropped": spread([one[name].dropped for one in streams], 3),
            }
            for name in streams[0]
        },
    }


def _streams(address: Address, bodies: list[bytes], count: int) -> dict[str, StreamRound]:
    paced = _paced(address, bodies, count, more=0)
    return {
        "paced": paced,
        "one_more": _paced(address, bodies, count, more=1),
        "camera": _camera(address, bodies, count, FASTER * paced.rate),
    }


@contextmanager
def _open(address: Address) -> Iterator[tuple[ClientConnection, int]]:
    """A stream, and its `in_flight`."""
    url = f"ws://{address.host}:{address.port}/stream"
    with connect(url, subprotocols=[Subprotocol("solo.v1")], compression=None, max_size=None) as stream:
        yield stream, int(json.loads(stream.recv())["in_flight"])


def _send(stream: ClientConnection, sent_at: dict[int, float], number: int, bodies: list[bytes]) -> None:
    sent_at[number] = perf_counter()
    stream.send(struct.pack(">I", number) + bodies[number % len(bodies)])


def _paced(address: Address, bodies: list[bytes], count: int, more: int) -> StreamRound:
    """A new frame for each answer. more: frames on the way beyond `in_flight`."""
    sent_at, latencies = dict[int, float](), list[float]()
    with _open(address) as (stream, in_flight):
        start = perf_counter()
        for number in range(min(in_flight + more, count)):
            _send(stream, sent_at, number, bodies)
        while len(latencies) < count:
            kind, number = _received(stream)
            if kind != "result":
                raise RuntimeError(f"frame {number}: {kind}")
            latencies.append((perf_counter() - sent_at[number]) * 1e3)
            if len(sent_at) < count:
                _send(stream, sent_at, len(sent_at), bodies)
        return StreamRound(count / (perf_counter() - start), statistics.median(latencies), 0.0)


def _camera(address: Address, bodies: list[bytes], count: int, per_s: float) -> StreamRound:
    """Frames at a fixed rate, whatever the server answers, until `count` of them have results."""
    sent_at, latencies, dropped, has_ended = dict[int, float](), list[float](), 0, threading.Event()

    def film(stream: ClientConnection) -> None:
        start, number = perf_counter(), 0
        while not has_ended.is_set():
            _send(stream, sent_at, number, bodies)
            number += 1
            sleep(max(0.0, start + number / per_s - perf_counter()))

    with _open(address) as (stream, _):
        camera = threading.Thread(target=film, args=(stream,))
        start = perf_counter()
        camera.start()
        try:
            while len(latencies) < count:
                kind, number = _received(stream)
                if kind == "result":
                    latencies.append((perf_counter() - sent_at[number]) * 1e3)
                elif kind == "dropped":
                    dropped += 1
                else:
                    raise RuntimeError(f"frame {number}: {kind}")
            seconds = perf_counter() - start
        finally:
            has_ended.set()
            camera.join()
    return StreamRound(count / seconds, statistics.median(latencies), dropped / (dropped + count))


def _received(stream: ClientConnection) -> tuple[str, int]:
    """Type and frame of the next message."""
    message = json.loads(stream.recv())
    return message["type"], message["frame"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, for trying it out")
    parser.add_argument("--busy", action="store_true", help="measure although other processes use the machine")
    parser.add_argument("--images", type=Path, help="folder of photographs (default: tests/images)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
