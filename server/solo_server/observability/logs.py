"""The server's log: one line a record, as text or as JSON, written by a thread of its own.

    any thread ─► one line ─► bounded queue ─► writer thread, all that is there ─► stderr
                                  └ full, or stderr cannot be written: the line is lost and counted

So neither a full disk nor a pipe that nobody reads stops an answer. When lines can be written again, one says how many were lost.
What callers send (header values, file names) can never begin a line of its own: text is escaped, JSON is JSON.
"""

from __future__ import annotations

import io
import logging
import queue
import threading
import traceback
from bisect import bisect_right
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import accumulate
from time import monotonic, sleep, time
from typing import Any, Protocol

import orjson

ACCESS = logging.getLogger("solo_server.access")
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that the running code serves; every line it logs has it."""
QUEUED_LINES = 10_000
"""Lines that wait for the writer: some megabytes at most."""
CLOSE_SECONDS = 2.0
AT_ONCE = 100  # lines between two rests
BLOCK_BYTES = 4096  # PIPE_BUF of Linux
REST_SECONDS = 0.05
"""Of the writer after each call: waking it up costs more than a line."""


@dataclass(frozen=True, slots=True)
class Access:
    """One answered request. route: the path's template; code: `ok` or a problem's code; ms: from the head to the last byte."""

    method: str
    route: str
    status: int
    code: str
    ms: float
    bytes_in: int
    bytes_out: int
    images: int
    instances: int


def access_record(level: int, access: Access) -> logging.LogRecord:
    """The record of an answered request. It is made for each, so where in the code and in which thread is not looked up."""
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__.update(_ACCESS_RECORD)
    record.levelno, record.levelname, record.created = level, logging.getLevelName(level), time()
    record.msecs, record.args, record.access = record.created % 1 * 1e3, (access.method, access.route), access
    return record


_ACCESS_RECORD = logging.LogRecord(ACCESS.name, logging.INFO, "", 0, "%s %s", None, None).__dict__
_ACCESS_FIELDS = tuple(field.name for field in fields(Access))


class Output(Protocol):
    """Where lines go: an unbuffered binary file."""

    def write(self, line: memoryview, /) -> int | None:
        """How many bytes were taken, perhaps not all; `None` where a non-blocking file takes none just now."""
        ...


class LogWriter(logging.Handler):
    """Turns records into lines at once, and writes them later: the first one soon, those that come in the meantime together."""

    def __init__(self, form: str, output: Output, queued_lines: int = QUEUED_LINES, worker: int | None = None) -> None:
        super().__init__()
        self._line = partial(json_line if form == "json" else text_line, worker=worker)
        self._output, self._most = output, queued_lines
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._queued = self._done = 0  # lines; the second are the writer's
        self._unsaid = 0
        self._counting = threading.Lock()
        self.lost_lines = 0
        threading.Thread(target=self._write_all, name="solo-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line. Never waits, never raises. (One thread at a time is in here: see `logging.Handler`.)"""
        if self._queued - self._done < self._most:
            line = self._line(record)
            self._queued += 1
            self._lines.put(line)
        else:
            self._lose(1)

    def close(self) -> None:
        """Wait until all is written, for two seconds at most: nobody may be reading."""
        deadline = monotonic() + CLOSE_SECONDS
        while self._done < self._queued and monotonic() < deadline:
            sleep(0.005)
        super().close()

    def _lose(self, count: int) -> None:
        with self._counting:
            self.lost_lines += count
            self._unsaid += count

    def _write_all(self) -> None:
        while True:
            lines = [self._lines.get()]
            while len(lines) < AT_ONCE and not self._lines.empty():
                lines.append(self._lines.get())
            written = self._written(lines) if self._tell_lost() else 0
            if written < len(lines):
                self._lose(len(lines) - written)
            self._done += len(lines)
            if len(lines) < AT_ONCE:
                sleep(REST_SECONDS)

    def _tell_lost(self) -> bool:
        with self._counting:
            count, self._unsaid = self._unsaid, 0
        if count == 0 or self._written([self._line(_record_of_lost(count))]):
            return True
        with self._counting:
            self._unsaid += count
        return False

    def _written(self, lines: list[bytes]) -> int:
        """How many of the lines could be written, the first ones."""
        written = 0
        for block in _blocks(lines):
            count = self._written_together(block)
            written += count
            if count < len(block):
                break
        return written

    def _written_together(self, lines: list[bytes]) -> int:
        left = memoryview(b"".join(lines))
        try:
            while left:
                taken = self._output.write(left)
                if taken is None:
                    sleep(0.02)
                left = left[taken or 0 :]
        except (OSError, ValueError):  # disk full, nobody at the pipe's other end, closed
            pass
        ends = list(accumulate(map(len, lines)))
        return bisect_right(ends, ends[-1] - len(left))


def _blocks(lines: list[bytes]) -> Iterator[list[bytes]]:
    """Lines for one call each: no more bytes than a pipe takes whole or not at all, unless a line alone has more."""
    block, size_bytes = list[bytes](), 0
    for line in lines:
        if block and size_bytes + len(line) > BLOCK_BYTES:
            yield block
            block, size_bytes = [], 0
        block.append(line)
        size_bytes += len(line)
    yield block


def configure(
    form: str = "text", level: str = "info", output: Output | None = None, worker: int | None = None
) -> LogWriter:
    """Send every logger's records to `output`, or else to stderr, in place of wherever they went before.

    worker: the number that every line tells, where several processes write to one log.

    `logging.shutdown`, which Python calls when a process ends, waits for the last lines.
    """
    writer = LogWriter(form, output or io.FileIO(2, "w", closefd=False), worker=worker)
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.addHandler(writer)
    root.setLevel(level.upper())
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line has them
    return writer


def lost_lines() -> int:
    """How many lines could not be written since the start."""
    return sum(h.lost_lines for h in logging.getLogger().handlers if isinstance(h, LogWriter))


def json_line(record: logging.LogRecord, worker: int | None = None) -> bytes:
    """One JSON object: time, level, logger, message; worker, request_id, the fields of `Access` and error where there are any."""
    told: dict[str, Any] = {
        "time": _time(record),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": _sound(_message(record)),
    }
    if worker is not None:
        told["worker"] = worker
    request_id = REQUEST_ID.get()
    if request_id is not None:
        told["request_id"] = request_id
    access = getattr(record, "access", None)
    if isinstance(access, Access):
        told |= {name: getattr(access, name) for name in _ACCESS_FIELDS}
    if record.exc_info:
        told["error"] = _sound("".join(traceback.format_exception(*record.exc_info)))
    return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)


def text_line(record: logging.LogRecord, worker: int | None = None) -> bytes:
    """Time, level, worker (`w0`), logger, message, request id; lines of a traceback follow, indented."""
    request_id = REQUEST_ID.get()
    known_by = "" if request_id is None else f" [{request_id}]"
    whose = "" if worker is None else f"w{worker} "
    lines = [f"{_time(record)} {record.levelname} {whose}{record.name} {_printable(_message(record))}{known_by}"]
    if record.exc_info:
        told = "".join(traceback.format_exception(*record.exc_info)).split("\n")
        lines += [f"    {_printable(line)}" for line in told if line]
    return ("\n".join(lines) + "\n").encode()


def _message(record: logging.LogRecord) -> str:
    access = getattr(record, "access", None)
    if isinstance(access, Access):
        return (
            f"{access.method} {access.route} {access.status} {access.code} {access.ms:.1f} ms, {access.bytes_in} bytes in, "
            f"{access.bytes_out} out, images: {access.images}, instances: {access.instances}"
        )
    try:
        return record.getMessage()
    except Exception:  # whatever a __str__ does: the line still tells where to look
        return f"{record.msg!r} cannot be told with its arguments ({record.pathname}:{record.lineno})"


def _time(record: logging.LogRecord) -> str:
    second, thousandth = divmod(int(record.created * 1000), 1000)
    return f"{_second(second)}.{thousandth:03d}+00:00"


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _printable(text: str) -> str:
    """Control characters, line separators and lone surrogates as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def _sound(text: str) -> str:
    """Lone surrogates as escapes: JSON has none."""
    return text.encode("utf-8", "backslashreplace").decode()


def _record_of_lost(count: int) -> logging.LogRecord:
    message = "%d lines of this log were lost: they could not be written, or not fast enough"
    return logging.LogRecord("solo_server.observability.logs", logging.WARNING, __file__, 0, message, (count,), None)
