"""`solo serve --workers 2` with real processes: killed, stopped, orphaned, refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.images import encoded, smooth_image
from support.small_app import samples, value

BODY = encoded(smooth_image(150, 200), "JPEG")
OLD, NEW = {"x-api-key": "old-0123456789abcdef"}, {"x-api-key": "new-0123456789abcdef"}
WAIT_S = 90


@dataclass
class Server:
    """The supervisor's process, and the log of all processes."""

    process: subprocess.Popen[str]
    lines: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> None:
        for line in self.process.stderr or []:
            self.lines.append(json.loads(line) if line.startswith("{") else {"message": line, "logger": ""})

    @property
    def url(self) -> str:
        matches = (re.search(r"(http://[\d.]+:\d+)  ", line["message"]) for line in list(self.lines))
        return next((match[1] for match in matches if match), "")

    def pids(self) -> dict[int, list[int]]:
        """The process ids of each worker that have been ready, oldest first."""
        found: dict[int, list[int]] = {}
        for line in list(self.lines):
            if match := re.fullmatch(r"worker (\d+) \(pid (\d+)\) is ready", line["message"]):
                found.setdefault(int(match[1]), []).append(int(match[2]))
        return found

    def worker_of(self, request_id: str) -> int:
        """Which worker answered a request."""

        def line() -> list[int]:
            access = (li for li in list(self.lines) if li["logger"] == "solo_server.access")
            return [li["worker"] for li in access if li.get("request_id") == request_id]

        until(lambda: bool(line()))
        return line()[0]


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


@contextmanager
def serving(bundle: Path, *arguments: object, **more: str) -> Iterator[Server]:
    """Two workers, both ready."""
    command = [sys.executable, "-m", "solo_models.cli", "serve", bundle, "--port", 0, "--workers", 2, *arguments]
    environment = (
        {k: v for k, v in os.environ.items() if not k.startswith("SOLO_")} | {"SOLO_LOG_FORMAT": "json"} | more
    )
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True, env=environment) as process:
        server = Server(process)
        reader = threading.Thread(target=server.read)
        reader.start()
        try:
            until(lambda: (bool(server.url) and len(server.pids()) == 2) or process.poll() is not None)
            yield server
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(WAIT_S)
            process.kill()  # its workers end when it has
            reader.join()
    assert not any("error" in line for line in server.lines), server.lines


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(OLD["x-api-key"])
    return file


@pytest.fixture(scope="module")
def server(solo_bundle: Path, keys: Path) -> Iterator[Server]:
    with serving(solo_bundle, "--api-keys-file", keys) as server:
        yield server


@contextmanager
def callers(server: Server, count: int, headers: dict[str, str] = OLD) -> Iterator[list[httpx.Client]]:
    """Clients with one long-lived connection each."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(httpx.Client(base_url=server.url, headers=headers, timeout=60)) for _ in range(count)
        ]


def segment(caller: httpx.Client) -> str:
    """Send a request, and return its id."""
    request_id = uuid.uuid4().hex
    answer = caller.post("/segment", content=BODY, headers={"x-request-id": request_id})
    assert answer.status_code == 200, answer.text
    return request_id


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if Path("/proc").exists()
        else True
    )


def test_long_lived_connections_are_spread_evenly_over_the_workers(server: Server) -> None:
    with callers(server, 8) as all_of_them:
        answered = [segment(caller) for caller in all_of_them]
        again = [segment(caller) for caller in all_of_them]
        first, second = ([server.worker_of(i) for i in ids] for ids in (answered, again))
    assert Counter(first) == {0: 4, 1: 4}
    assert first == second


def test_one_scrape_has_the_metrics_of_all_workers_and_keeps_counts_when_one_dies(server: Server) -> None:
    def scrape() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return samples(httpx.get(f"{server.url}/metrics", headers=OLD, timeout=60).text)

    def images() -> float:
        return value(scrape(), "solo_images_total", model="tiny-solo", outcome="ok") or 0.0

    def restarts() -> float:
        return value(scrape(), "solo_worker_restarts_total") or 0.0

    before, restarts_before, started = images(), restarts(), len(server.pids()[1])
    with callers(server, 2) as both:
        assert {server.worker_of(segment(caller)) for caller in both for _ in range(3)} == {0, 1}
    assert [images() for _ in range(4)] == [before + 6] * 4  # whichever worker answers
    os.kill(server.pids()[1][-1], signal.SIGKILL)
    until(lambda: len(server.pids()[1]) == started + 1)
    until(lambda: value(scrape(), "solo_workers_ready") == 2)
    with callers(server, 2) as both:
        assert {server.worker_of(segment(caller)) for caller in both} == {0, 1}
    assert images() == before + 8
    assert restarts() == restarts_before + 1
    found = scrape()
    assert value(found, "solo_workers") == 2
    assert value(found, "solo_ready") == 1
    assert value(found, "solo_waiting_images") == 0
    assert (value(found, "process_resident_memory_bytes") or 0) > 2 << 20
    assert any(name == "solo_model_info" for name, _ in found)


def test_clients_of_one_worker_notice_nothing_when_another_is_killed_under_load(server: Server) -> None:
    stop, lost = threading.Event(), Counter[int]()
    answered: list[list[str]] = [[] for _ in range(8)]

    def call(number: int, caller: httpx.Client) -> None:
        while not stop.is_set():
            try:
                answered[number].append(segment(caller))
            except httpx.TransportError:
                lost[number] += 1

    with callers(server, 8) as all_of_them, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call, number, caller) for number, caller in enumerate(all_of_them)]
        try:
            until(lambda: all(len(ids) > 2 for ids in answered))
            worker_of = [server.worker_of(ids[0]) for ids in answered]
            so_far, victim, started = [len(ids) for ids in answered], worker_of[0], len(server.pids()[worker_of[0]])
            os.kill(server.pids()[victim][-1], signal.SIGKILL)
            until(lambda: all(len(ids) > before + 2 for ids, before in zip(answered, so_far, strict=True)))
            until(lambda: len(server.pids()[victim]) == started + 1)
            with callers(server, 8) as more:
                taken = Counter(server.worker_of(segment(caller)) for caller in more)
        finally:
            stop.set()
        for done in calls:
            done.result()
    assert set(worker_of) == {0, 1}
    for number, worker in enumerate(worker_of):
        assert lost[number] <= (1 if worker == victim else 0)  # whose request was with the one that was killed
    assert taken[victim] >= 4  # the other one has those that stayed
    assert any(f"worker {victim} (pid" in li["message"] and "killed by SIGKILL" in li["message"] for li in server.lines)


def test_keys_are_rotated_in_all_workers_by_one_sighup(server: Server, keys: Path) -> None:
    with callers(server, 4, NEW) as all_of_them:
        assert [caller.get("/model").status_code for caller in all_of_them] == [401] * 4
        keys.write_text(NEW["x-api-key"])
        server.process.send_signal(signal.SIGHUP)

        def read_by() -> set[int]:
            return {li["worker"] for li in list(server.lines) if li["message"].startswith("API keys: 1 read")}

        until(lambda: read_by() == {0, 1})
        assert [caller.get("/model").status_code for caller in all_of_them] == [200] * 4
        assert all(caller.get("/model", headers=OLD).status_code == 401 for caller in all_of_them)


def test_accepted_requests_are_answered_after_sigterm_and_no_process_is_left(solo_bundle: Path) -> None:
    """Accepted requests: their heads have been answered by 100 Continue; their bodies are sent after the signal."""
    with serving(solo_bundle) as server:
        host, port = server.url.removeprefix("http://").split(":")
        head = f"POST /segment HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {len(BODY)}\r\n\r\n"
        with ExitStack() as stack:
            raws = [stack.enter_context(socket.create_connection((host, int(port)), timeout=60)) for _ in range(6)]
            for raw in raws:
                raw.sendall(head.encode())
                assert raw.recv(4096).startswith(b"HTTP/1.1 100")
            server.process.send_signal(signal.SIGTERM)
            until(lambda: _is_refused(server.url))
            for raw in raws:
                raw.sendall(BODY)
            assert {raw.recv(65536).partition(b"\r\n")[0] for raw in raws} == {b"HTTP/1.1 200 OK"}
        assert server.process.wait(WAIT_S) == 0
        assert not any(alive(pid) for pids in server.pids().values() for pid in pids)


def _is_refused(url: str) -> bool:
    try:
        httpx.get(f"{url}/healthz", timeout=10)
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False


def test_workers_end_when_their_supervisor_is_killed_and_remove_their_files(solo_bundle: Path, tmp_path: Path) -> None:
    with serving(solo_bundle, TMPDIR=str(tmp_path)) as server:
        assert len(list(tmp_path.glob("solo-metrics-*"))) == 1
        pids = [pid for pids in server.pids().values() for pid in pids]
        server.process.kill()
        until(lambda: not any(alive(pid) for pid in pids))
    said = [line["worker"] for line in server.lines if "the supervisor is gone" in line["message"]]
    assert sorted(said) == [0, 1]
    assert list(tmp_path.glob("solo-metrics-*")) == []


def test_a_bundle_that_no_worker_can_load_is_reported_once(solo_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(solo_bundle, tmp_path / "damaged")
    (tmp_path / "damaged" / "masks.onnx").write_bytes(b"x")
    with serving(tmp_path / "damaged") as server:
        assert server.process.wait(WAIT_S) == 2
    refusals = [line["message"] for line in server.lines if line["message"].startswith("solo serve: ")]
    assert len(refusals) == 1
    assert "masks.onnx" in refusals[0]
