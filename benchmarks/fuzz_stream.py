"""Sends random messages to `WS /stream`: none may cause an internal failure, block other callers, or leave a stream open.

    python benchmarks/fuzz_stream.py http://127.0.0.1:8000 [-n 500] [--seed 0]

Each case opens a stream with a random handshake, sends some of: frames, broken images, texts, fragments, pings, floods, heads that
lie about their size, random bytes; then it closes, resets, or waits for the server. After each case
`POST /segment` must answer within 5 s. The same seed gives the same bytes. Exit status 1 if something was at fault.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic, perf_counter, sleep

import httpx
from fuzz_images import LIMIT_S, images, mutants
from solo_server.bench.load.server_process import Address

WAIT_S = 20.0
"""Until streams of clients that have gone are closed."""
READ_BYTES = 8 << 20
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
QUERIES = (
    "",
    "?score_threshold=0.3",
    "?timeout_ms=200",
    "?score_threshold=x",
    "?unknown=1",
    "?model=none",
    "?classes=%00",
)


def main() -> int:
    """Fuzz one server, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="URL of a running server without keys")
    parser.add_argument("-n", "--count", type=int, default=500, help="number of streams")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    fuzzed = fuzz_streams(arguments.url, arguments.count, arguments.seed)
    for name, value in fuzzed.to_dict().items():
        print(f"{name:<12} {value}")
    return 1 if fuzzed.faults else 0


@dataclass(slots=True)
class FuzzedStreams:
    """answers: counts of statuses of handshakes, types and codes of messages, close codes. faults: what went wrong, in words."""

    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    streams: int = 0

    def to_dict(self) -> dict[str, object]:
        """For the record."""
        return {"count": self.streams, "slowest_s": round(self.slowest_s, 3), "faults": self.faults,
                "answers": dict(sorted(self.answers.items()))}  # fmt: skip


def fuzz_streams(url: str, count: int, seed: int, patience_s: float = 0.1) -> FuzzedStreams:
    """Open `count` random streams, one after the other. patience_s: longest wait for answers between two messages."""
    address, choose, fuzzed = Address.parse(url), random.Random(seed), FuzzedStreams()  # noqa: S311 - no secret
    bodies = [*images(), *mutants(images(), max(20, count // 5), seed)]
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(count):
            received = _play(address, choose, bodies, patience_s)
            fuzzed.streams += 1
            _note(fuzzed, number, received)
            start = perf_counter()
            status = client.post("/segment", content=bodies[0]).status_code
            seconds = perf_counter() - start
            fuzzed.slowest_s = max(fuzzed.slowest_s, seconds)
            if status != 200 or seconds > LIMIT_S:
                fuzzed.faults.append(f"stream {number}: then /segment answered {status} in {seconds:.2f} s")
        if not _all_closed(client):
            fuzzed.faults.append(f"streams are open {WAIT_S:.0f} s after their clients have gone")
    return fuzzed


def _play(address: Address, choose: random.Random, bodies: list[bytes], patience_s: float) -> bytes:
    """One stream; what the server sent, as far as it was read."""
    received = bytearray()
    with socket.create_connection((address.host, address.port), timeout=LIMIT_S) as raw, suppress(OSError):
        raw.sendall(_handshake(choose))
        for _ in range(choose.randint(0, 8)):
            raw.settimeout(0.3)
            raw.sendall(_message(choose, bodies))
            if choose.random() < 0.6:  # else the client does not read
                _read(raw, received, choose.random() * patience_s)
        _leave(raw, received, choose)
    return bytes(received)


def _leave(raw: socket.socket, received: bytearray, choose: random.Random) -> None:
    how = choose.choice(("close", "half", "reset", "drop"))
    if how == "close":
        raw.sendall(_frame(choose, CLOSE, struct.pack(">H", choose.choice((1000, 1001, 1012, 3000, 4999)))))
        _read(raw, received, 1.0)
    elif how == "half":
        raw.shutdown(socket.SHUT_WR)
        _read(raw, received, 1.0)
    elif how == "reset":
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _read(raw: socket.socket, received: bytearray, seconds: float) -> None:
    deadline = monotonic() + seconds
    raw.settimeout(max(0.01, seconds))
    with suppress(TimeoutError):
        while monotonic() < deadline and len(received) < READ_BYTES and (chunk := raw.recv(1 << 18)):
            received += chunk


def _handshake(choose: random.Random) -> bytes:
    """A complete one, most of the time."""
    lines = {
        b"Host": b"127.0.0.1", b"Connection": b"Upgrade", b"Upgrade": b"websocket", b"Sec-WebSocket-Version": b"13",
        b"Sec-WebSocket-Key": b"dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Protocol": b"solo.v1",
        b"Sec-WebSocket-Extensions": b"permessage-deflate; client_max_window_bits",
    }  # fmt: skip
    query = "" if choose.random() < 0.8 else choose.choice(QUERIES)
    if choose.random() < 0.15:
        name = choose.choice([*lines, b"Content-Length", b"Origin", b"Transfer-Encoding"])
        lines[name] = choose.choice((b"", b"x", b"chunked", b"5", bytes(choose.randrange(33, 127) for _ in range(40))))
    head = b"".join(b"%b: %b\r\n" % line for line in lines.items())
    return b"GET /stream%b HTTP/1.1\r\n%b\r\n" % (query.encode(), head)


def _message(choose: random.Random, bodies: list[bytes]) -> bytes:
    """One or several frames of the WebSocket protocol, or what looks like them."""
    image = struct.pack(">I", choose.getrandbits(32)) + choose.choice(bodies)
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: _frame(choose, BINARY, image),
        lambda: _frame(choose, BINARY, image),
        lambda: _frame(choose, BINARY, image) * choose.randint(2, 30),
        lambda: _fragments(choose, image),
        lambda: _frame(choose, BINARY, image[: choose.randint(0, 8)]),
        lambda: _frame(choose, TEXT, choose.randbytes(choose.randint(0, 50))) * choose.randint(1, 12),
        lambda: _frame(choose, choose.choice((PING, PONG)), choose.randbytes(choose.randint(0, 130))),
        lambda: _frame(choose, PING, b"") * choose.randint(100, 5000),
        lambda: _frame(choose, choose.randrange(16), choose.randbytes(10), is_last=choose.random() < 0.5),
        lambda: _frame(choose, BINARY, image)[: choose.randint(1, len(image))],
        lambda: bytes([0x80 | BINARY, 0xFF]) + struct.pack(">Q", choose.getrandbits(64)) + choose.randbytes(100),
        lambda: choose.randbytes(choose.randint(1, 3000)),
    )
    return choose.choice(kinds)()


def _fragments(choose: random.Random, message: bytes) -> bytes:
    """A message in pieces, with pings between them; sometimes without its end."""
    cuts = sorted(choose.randrange(len(message)) for _ in range(choose.randint(1, 20)))
    pieces = [message[start:end] for start, end in zip([0, *cuts], [*cuts, len(message)], strict=True)]
    sent = b""
    for number, piece in enumerate(pieces):
        is_last = number == len(pieces) - 1 and choose.random() < 0.8
        sent += _frame(choose, BINARY if number == 0 else CONTINUATION, piece, is_last=is_last)
        if choose.random() < 0.2:
            sent += _frame(choose, PING, b"between")
    return sent


def _frame(choose: random.Random, opcode: int, payload: bytes, *, is_last: bool = True) -> bytes:
    """RFC 6455, 5.2, masked as a client's."""
    head, size, mask = bytes([opcode | (0x80 if is_last else 0)]), len(payload), choose.randbytes(4)
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += b"\xfe" + struct.pack(">H", size)
    else:
        head += b"\xff" + struct.pack(">Q", size)
    keys = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ keys).to_bytes(size, "big")


def _note(fuzzed: FuzzedStreams, number: int, received: bytes) -> None:
    """Count what the server sent; a message that is no JSON, or an internal failure, is a fault."""
    head, _, rest = received.partition(b"\r\n\r\n")
    status = head[9:12].decode(errors="replace")
    fuzzed.answers[f"handshake {status or 'not read'}"] += 1
    if status.startswith("5") and b"not_ready" not in rest and b"overloaded" not in rest:
        fuzzed.faults.append(f"stream {number}: {head[:200]!r}")
    while status == "101" and len(rest) >= 2:
        opcode, size, at = rest[0] & 15, rest[1], 2
        if size in (126, 127):
            at = 4 if size == 126 else 10
            size = int.from_bytes(rest[2:at], "big")
        payload, rest = rest[at : at + size], rest[at + size :]
        if len(payload) < size:
            break
        if opcode == TEXT:
            message = json.loads(payload)
            code = message.get("problem", {}).get("code", "")
            fuzzed.answers[f"{message['type']} {code}".strip()] += 1
            if code == "internal":
                fuzzed.faults.append(f"stream {number}: {message}")
        elif opcode == CLOSE:
            fuzzed.answers[f"close {int.from_bytes(payload[:2], 'big') or ''}".strip()] += 1


def _all_closed(client: httpx.Client) -> bool:
    deadline = monotonic() + WAIT_S
    while monotonic() < deadline:
        if "\nsolo_streams_open 0.0" in client.get("/metrics").text:
            return True
        sleep(0.2)
    return False


if __name__ == "__main__":
    sys.exit(main())
