"""`solo serve --workers N`: one process that accepts connections, and N workers that serve them.

    listener ─► accepted ─► the ready worker with the fewest connections ─► `solo_server.processes.worker_channel`
    a worker ends ─► it is replaced: at once, or after 1, 2, 4 ... 60 s if it was never ready

Handing out each connection keeps workers evenly busy; with a shared accept or SO_REUSEPORT, long-lived connections would not be
spread evenly. Connections that a worker has not confirmed when it dies go to another worker: nothing of them was read.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections import deque
from collections.abc import Awaitable, Callable

from solo_server.exit_codes import FAILED, MEANINGS, REFUSED
from solo_server.processes.worker_handle import Start, WorkerHandle, by_preference, read_available

LOG = logging.getLogger("solo_server")
LONGEST_DELAY_S = 60.0
MAX_ACCEPTS = 64  # in one turn of the event loop
ACCEPT_PAUSE_S = 1.0
KILL_AFTER_S = 8.0
"""After the time to drain: for sending the last responses and traces, and for writing the log."""
NORMAL_ENDS = (0, 130, -signal.SIGTERM, -signal.SIGINT)
"""Exit statuses of workers that were asked to end; the last two are of workers that were still starting."""


class Delays:
    """How long to wait before the next start: not at all, or 1, 2, 4 ... s while starts fail one after another."""

    def __init__(self) -> None:
        self._failures = 0

    def after(self, *, ready: bool) -> float:
        """Seconds. ready: the worker that ended had been ready once."""
        self._failures = 0 if ready else self._failures + 1
        return min(2.0 ** (self._failures - 1), LONGEST_DELAY_S) if self._failures else 0.0


def exit_text(status: int) -> str:
    """How a process ended, for the log."""
    if status < 0:
        known = {int(number): number.name for number in signal.Signals}
        return f"was killed by {known.get(-status, f'signal {-status}')}"
    meaning = MEANINGS.get(status)
    return f"ended with status {status}" + (f" ({meaning})" if meaning else "")


class Supervisor:
    """Owns the listener and the workers.

    on_ready: called once, when the first worker is ready, with the path that takes images; on_end, on_restart: called for each
    worker that ends or is replaced, for metrics; pause: waits a number of seconds.
    """

    def __init__(
        self,
        listener: socket.socket,
        count: int,
        start: Start,
        drain_seconds: float,
        on_ready: Callable[[str], None] = lambda path: None,
        on_end: Callable[[int], None] = lambda number: None,
        on_restart: Callable[[], None] = lambda: None,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._listener, self._count, self._start = listener, count, start
        self._drain_seconds, self._pause = drain_seconds, pause
        self._on_ready, self._on_end, self._on_restart = on_ready, on_end, on_restart
        self._workers: dict[int, WorkerHandle] = {}
        self._waiting: deque[socket.socket] = deque()  # accepted, not handed to a worker yet
        self._turn = 0
        self._is_listening = self._has_been_ready = False
        self._stopping = asyncio.Event()
        self._status = 0
        self.refusal = ""

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT. The exit status: 0; 2 if a worker refused to start (`refusal`); 1 if one was killed."""
        self._loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._on_stop_signal, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        await asyncio.gather(*(self._keep(number) for number in range(self._count)))
        for connection in self._waiting:
            connection.close()
        return self._status

    def stop(self) -> None:
        """Accept no more connections; workers finish their requests."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._update_listening()
        self._listener.close()
        for worker in self._workers.values():
            worker.send_signal(signal.SIGTERM)
        for worker in self._workers.values():
            self._limit_shutdown(worker)

    async def _keep(self, number: int) -> None:
        """Keep worker `number` running: start it, wait for its end, start the next."""
        delays, is_first = Delays(), True
        while not self._stopping.is_set():
            try:
                worker = await self._start_worker(number)
            except OSError as problem:  # no memory, no descriptors, too many processes
                LOG.error("worker %d cannot be started: %s", number, problem)
                await self._wait(delays.after(ready=False))
                continue
            status = await worker.process.wait()
            self._remove(worker)
            if self._stopping.is_set():
                self._check_end(worker, status)
                return
            if status == REFUSED and is_first and not worker.has_been_ready:
                self._status, self.refusal = REFUSED, worker.refusal
                self.stop()
                return
            delay, is_first = delays.after(ready=worker.has_been_ready), False
            when = f"in {delay:.0f} s" if delay else "now"
            end = exit_text(status) + (f": {worker.refusal}" if worker.refusal else "")
            LOG.error("worker %d (pid %d) %s; its replacement starts %s", number, worker.process.pid, end, when)
            await self._wait(delay)
            if not self._stopping.is_set():
                self._on_restart()

    async def _start_worker(self, number: int) -> WorkerHandle:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            try:
                process = await self._start(number, theirs)
            except OSError:
                ours.close()
                raise
        worker = self._workers[number] = WorkerHandle(number, process, ours)
        self._loop.add_reader(ours, self._receive, worker)
        if self._stopping.is_set():  # stopped while the worker was being started
            worker.send_signal(signal.SIGTERM)
            self._limit_shutdown(worker)
        return worker

    def _receive(self, worker: WorkerHandle) -> None:
        """Read what a worker has sent. At the channel's end, the connections that it has not confirmed go to others."""
        received = read_available(worker.channel)
        was_unready = worker.unready is not None
        if received is None:
            self._loop.remove_reader(worker.channel)
            worker.is_leaving = True
        else:
            worker.process_lines(received)
        if worker.is_leaving:
            self._limit_shutdown(worker)
        self._take_back(worker)
        if was_unready and worker.unready is None:
            LOG.info("worker %d (pid %d) is ready", worker.number, worker.process.pid)
            if not self._has_been_ready:
                self._has_been_ready = True
                self._on_ready(worker.path)
        self._hand_out()

    def _remove(self, worker: WorkerHandle) -> None:
        """A worker has ended: read its last lines, then forget it."""
        self._loop.remove_reader(worker.channel)
        while received := read_available(worker.channel):
            worker.process_lines(received)
        worker.channel.close()
        worker.is_leaving = True
        self._take_back(worker)
        del self._workers[worker.number]
        self._on_end(worker.number)
        self._hand_out()

    def _take_back(self, worker: WorkerHandle) -> None:
        """Connections that a leaving worker has not confirmed go to others."""
        if worker.is_leaving:
            self._waiting.extend(worker.unconfirmed)
            worker.unconfirmed.clear()

    def _accept(self) -> None:
        for _ in range(MAX_ACCEPTS):
            if not self._is_listening:
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as problem:  # no descriptors, no memory
                LOG.error("no connection can be accepted: %s", problem.strerror)
                self._loop.remove_reader(self._listener)
                self._is_listening = False
                self._loop.call_later(ACCEPT_PAUSE_S, self._update_listening)
                return
            self._waiting.append(connection)
            self._hand_out()

    def _hand_out(self) -> None:
        """Hand out waiting connections; accept no more while one has to wait."""
        while self._waiting and self._hand_over(self._waiting[0]):
            self._waiting.popleft()
        self._update_listening()

    def _hand_over(self, connection: socket.socket) -> bool:
        self._turn += 1
        return any(worker.hand_over(connection, self._turn) for worker in by_preference(self._workers.values()))

    def _update_listening(self) -> None:
        """Accept connections, or leave them in the system's queue while no worker can take them."""
        can_take = any(worker.can_take for worker in self._workers.values())
        is_listening = can_take and not self._waiting and not self._stopping.is_set()
        if is_listening and not self._is_listening:
            self._loop.add_reader(self._listener, self._accept)
        elif self._is_listening and not is_listening:
            self._loop.remove_reader(self._listener)
        self._is_listening = is_listening

    def _on_stop_signal(self, number: int) -> None:
        """SIGTERM or the first SIGINT: drain. A further SIGINT: workers end without waiting for their requests."""
        if self._stopping.is_set() and number == signal.SIGINT:
            for worker in self._workers.values():
                worker.send_signal(signal.SIGINT)
        elif not self._stopping.is_set():
            LOG.info("shutting down: workers have %d s to finish their requests", self._drain_seconds)
            self.stop()

    def _on_hangup(self) -> None:
        """Pass SIGHUP on to the workers that have a handler already; the others have yet to read keys and models."""
        for worker in self._workers.values():
            if worker.can_take:
                worker.send_signal(signal.SIGHUP)

    def _limit_shutdown(self, worker: WorkerHandle) -> None:
        """Kill a leaving worker that does not end in time: a driver may hold a process for ever."""
        if not worker.has_time_limit:
            worker.has_time_limit = True
            self._loop.call_later(self._drain_seconds + KILL_AFTER_S, self._kill, worker)

    def _kill(self, worker: WorkerHandle) -> None:
        if self._workers.get(worker.number) is worker:
            LOG.error("worker %d (pid %d) does not end in time and is killed", worker.number, worker.process.pid)
            worker.send_signal(signal.SIGKILL)

    def _check_end(self, worker: WorkerHandle, status: int) -> None:
        """Note how a worker ended that was asked to end."""
        if status not in NORMAL_ENDS and self._status == 0:
            LOG.error("worker %d (pid %d) %s", worker.number, worker.process.pid, exit_text(status))
            self._status = FAILED

    async def _wait(self, seconds: float) -> None:
        """Wait, but no longer than until the supervisor stops."""
        if seconds == 0:
            return
        waits = {asyncio.ensure_future(self._pause(seconds)), asyncio.create_task(self._stopping.wait())}
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
