"""`solo serve --workers N`: one process that accepts connections, and N that answer them.

    listener ─► accepted ─► the ready worker with the fewest connections ─► `solo_server.processes.worker_channel`
    a worker ends ─► its place is filled: at once, or after 1, 2, 4 ... 60 s where it ends before it ever was ready

Handing out each connection keeps workers evenly busy, which neither a shared accept nor SO_REUSEPORT does for callers that stay
connected. What a worker has not taken yet when it dies goes to another: nothing of it was read.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections import deque
from collections.abc import Awaitable, Callable

from solo_server.exit_codes import FAILED, MEANINGS, REFUSED
from solo_server.processes.worker_handle import Start, Worker, in_order_of_choice, received_from

LOG = logging.getLogger("solo_server")
LONGEST_DELAY_S = 60.0
ACCEPTED_AT_ONCE = 64
NO_FILES_PAUSE_S = 1.0
KILL_AFTER_S = 8.0
"""Beyond the time to drain: for writing what is cut short, sending traces, writing the log."""
IN_ORDER = (0, 130, -signal.SIGTERM, -signal.SIGINT)
"""How workers end that were told to, those included that had only begun to be."""


class Delays:
    """How long to wait before the next attempt: not at all, but 1, 2, 4 ... s where attempts fail one after another."""

    def __init__(self) -> None:
        self._failures = 0

    def after(self, *, ready: bool) -> float:
        """Seconds. ready: the worker that ended had been ready."""
        self._failures = 0 if ready else self._failures + 1
        return min(2.0 ** (self._failures - 1), LONGEST_DELAY_S) if self._failures else 0.0


def told(status: int) -> str:
    """How a process ended, in words."""
    if status < 0:
        known = {int(number): number.name for number in signal.Signals}
        return f"was killed by {known.get(-status, f'signal {-status}')}"
    meaning = MEANINGS.get(status)
    return f"ended with status {status}" + (f" ({meaning})" if meaning else "")


class Supervisor:
    """Owns the listener and the workers.

    on_ready: called once, when the first worker is ready, with the path where an image can be posted; on_end, on_restart: of a
    worker, for metrics; pause: waits for so long.
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
        self._workers: dict[int, Worker] = {}
        self._waiting: deque[socket.socket] = deque()  # accepted, and nobody has taken them
        self._turn = 0
        self._is_listening = self._has_been_ready = False
        self._stopping = asyncio.Event()
        self._status = 0
        self.refusal = ""

    async def run(self) -> int:
        """Until SIGTERM or SIGINT. The exit status: 0; 2 where a worker refused to start (`refusal`); 1 where one was killed."""
        self._loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._told_to_stop, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        await asyncio.gather(*(self._keep(number) for number in range(self._count)))
        for connection in self._waiting:
            connection.close()
        return self._status

    def stop(self) -> None:
        """Accept no more; workers answer what they have."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._listen()
        self._listener.close()
        for worker in self._workers.values():
            worker.tell(signal.SIGTERM)
        for worker in self._workers.values():
            self._bound(worker)

    async def _keep(self, number: int) -> None:
        """Fill one place as long as there is to be a worker."""
        delays, is_first = Delays(), True
        while not self._stopping.is_set():
            try:
                worker = await self._begin(number)
            except OSError as problem:  # no memory, no descriptors, too many processes
                LOG.error("worker %d cannot be started: %s", number, problem)
                await self._rest(delays.after(ready=False))
                continue
            status = await worker.process.wait()
            self._bury(worker)
            if self._stopping.is_set():
                self._judge(worker, status)
                return
            if status == REFUSED and is_first and not worker.has_been_ready:
                self._status, self.refusal = REFUSED, worker.refusal
                self.stop()
                return
            delay, is_first = delays.after(ready=worker.has_been_ready), False
            when = f"in {delay:.0f} s" if delay else "now"
            why = f": {worker.refusal}" if worker.refusal else ""
            LOG.error(
                "worker %d (pid %d) %s%s; another one starts %s", number, worker.process.pid, told(status), why, when
            )
            await self._rest(delay)
            if not self._stopping.is_set():
                self._on_restart()

    async def _begin(self, number: int) -> Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            try:
                process = await self._start(number, theirs)
            except OSError:
                ours.close()
                raise
        worker = self._workers[number] = Worker(number, process, ours)
        self._loop.add_reader(ours, self._hear, worker)
        if self._stopping.is_set():  # while it was being started
            worker.tell(signal.SIGTERM)
            self._bound(worker)
        return worker

    def _hear(self, worker: Worker) -> None:
        """Whatever a worker has said; at the channel's end what it had not taken is for others."""
        received = received_from(worker.channel)
        was_unready = worker.unready is not None
        if received is None:
            self._loop.remove_reader(worker.channel)
            worker.is_leaving = True
        else:
            worker.hear(received)
        if worker.is_leaving:
            self._bound(worker)
        self._take_back(worker)
        if was_unready and worker.unready is None:
            LOG.info("worker %d (pid %d) is ready", worker.number, worker.process.pid)
            if not self._has_been_ready:
                self._has_been_ready = True
                self._on_ready(worker.path)
        self._distribute()

    def _bury(self, worker: Worker) -> None:
        """It has ended: its last words, then its place is free."""
        self._loop.remove_reader(worker.channel)
        while received := received_from(worker.channel):
            worker.hear(received)
        worker.channel.close()
        worker.is_leaving = True
        self._take_back(worker)
        del self._workers[worker.number]
        self._on_end(worker.number)
        self._distribute()

    def _take_back(self, worker: Worker) -> None:
        """What a worker that leaves has not taken is for others."""
        if worker.is_leaving:
            self._waiting.extend(worker.untaken)
            worker.untaken.clear()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
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
                self._loop.call_later(NO_FILES_PAUSE_S, self._listen)
                return
            self._waiting.append(connection)
            self._distribute()

    def _distribute(self) -> None:
        """Hand out what waits; accept no more while something has to wait."""
        while self._waiting and self._hand(self._waiting[0]):
            self._waiting.popleft()
        self._listen()

    def _hand(self, connection: socket.socket) -> bool:
        self._turn += 1
        return any(worker.give(connection, self._turn) for worker in in_order_of_choice(self._workers.values()))

    def _listen(self) -> None:
        """Accept, or leave connections to the system's queue, where nobody is there to take them."""
        there = any(worker.can_take for worker in self._workers.values())
        wanted = there and not self._waiting and not self._stopping.is_set()
        if wanted and not self._is_listening:
            self._loop.add_reader(self._listener, self._accept)
        elif self._is_listening and not wanted:
            self._loop.remove_reader(self._listener)
        self._is_listening = wanted

    def _told_to_stop(self, number: int) -> None:
        """Again by SIGINT: workers stop waiting for what they have."""
        if self._stopping.is_set() and number == signal.SIGINT:
            for worker in self._workers.values():
                worker.tell(signal.SIGINT)
        elif not self._stopping.is_set():
            LOG.info("going down: no more connections are taken, workers have %d s", self._drain_seconds)
            self.stop()

    def _hang_up(self) -> None:
        """For every worker that is far enough to have a handler; the others read everything anew anyway."""
        for worker in self._workers.values():
            if worker.can_take:
                worker.tell(signal.SIGHUP)

    def _bound(self, worker: Worker) -> None:
        """It goes down, and its place waits for it no longer than that takes; a driver may hold a process for ever."""
        if not worker.is_bounded:
            worker.is_bounded = True
            self._loop.call_later(self._drain_seconds + KILL_AFTER_S, self._kill, worker)

    def _kill(self, worker: Worker) -> None:
        if self._workers.get(worker.number) is worker:
            LOG.error("worker %d (pid %d) does not end, and is killed", worker.number, worker.process.pid)
            worker.tell(signal.SIGKILL)

    def _judge(self, worker: Worker, status: int) -> None:
        """How a worker ended that was told to."""
        if status not in IN_ORDER and self._status == 0:
            LOG.error("worker %d (pid %d) %s", worker.number, worker.process.pid, told(status))
            self._status = FAILED

    async def _rest(self, seconds: float) -> None:
        """So long, or until all is to stop."""
        if seconds == 0:
            return
        resting = {asyncio.ensure_future(self._pause(seconds)), asyncio.create_task(self._stopping.wait())}
        _, left = await asyncio.wait(resting, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
