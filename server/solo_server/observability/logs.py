"""The server's log: one line a record, as text or as JSON, written by a separate thread.

    any thread ─► one line ─► bounded queue ─► writer thread: all queued lines ─► stderr
                                  └ full, or stderr cannot be written: the line is lost and counted

So neither a full disk nor a pipe that nobody reads delays a response. When lines can be written again, one says how many were lost.
What clients send (header values, file names) can never start a new line: text is escaped, JSON is JSON.
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
"""Id of the request that the current task serves; every line that the task logs has it."""
QUEUED_LINES = 10_000
"""Most lines that wait for the writer: a few megabytes."""
CLOSE_SECONDS = 2.0
MAX_LINES = 100  # written before the next rest
BLOCK_BYTES = 4096  # PIPE_BUF of Linux
REST_SECONDS = 0.05
"""The writer sleeps so long after each call: waking it up costs more than a line."""


@dataclass(frozen=True, slots=True)
class Access:
    """One answered request. route: the path's template; code: `ok` or a problem's code; ms: until the response's last byte."""

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
    """The record of an answered request. It is made for each request, so it leaves out the place in the code and the thread."""
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__.update(_ACCESS_RECORD)
    record.levelno, record.levelname, record.created = level, logging.getLevelName(level), time()
    record.msecs, record.args, record.access = record.created % 1 * 1e3, (access.method, access.route), access
    return record


_ACCESS_RECORD = logging.LogRecord(ACCESS.name, logging.INFO, "", 0, "%s %s", None, None).__dict__
_ACCESS_FIELDS = tuple(field.name for field in fields(Access))


class Output(Protocol):
    """What lines are written to: an unbuffered binary file."""

    def write(self, line: memoryview, /) -> int | None:
        """How many bytes were written, perhaps not all; `None` if a non-blocking file takes none now."""
        ...


class LogWriter(logging.Handler):
    """Formats records immediately and writes the lines later: the first one soon, those that arrive meanwhile together."""

    def __init__(self, form: str, output: Output, queued_lines: int = QUEUED_LINES, worker: int | None = None) -> None:
        super().__init__()
        self._line = partial(json_line if form == "json" else text_line, worker=worker)
        self._output, self._max_queued = output, queued_lines
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._queued = self._done = 0  # lines; the writer counts the second
        self._unreported = 0
        self._counting = threading.Lock()
        self.lost_lines = 0
        threading.Thread(target=self._write_all, name="solo-log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line. Never waits, never raises. (`logging.Handler` calls it from one thread at a time.)"""
        if self._queued - self._done < self._max_queued:
            line = self._line(record)
            self._queued += 1
            self._lines.put(line)
        else:
            self._lose(1)

    def close(self) -> None:
        """Wait until all is written, but at most two seconds: perhaps nobody reads."""
        deadline = monotonic() + CLOSE_SECONDS
        while self._done < self._queued and monotonic() < deadline:
            sleep(0.005)
        super().close()

    def _lose(self, count: int) -> None:
        with self._counting:
            self.lost_lines += count
            self._unreported += count

    def _write_all(self) -> None:
        while True:
            lines = [self._lines.get()]
            while len(lines) < MAX_LINES and not self._lines.empty():
                lines.append(self._lines.get())
            written = self._written(lines) if self._report_lost() else 0
            if written < len(lines):
                self._lose(len(lines) - written)
            self._done += len(lines)
            if len(lines) < MAX_LINES:
                sleep(REST_SECONDS)

    def _report_lost(self) -> bool:
        with self._counting:
            count, self._unreported = self._unreported, 0
        if count == 0 or self._written([self._line(_record_of_lost(count))]):
            return True
        with self._counting:
            self._unreported += count
        return False

    def _written(self, lines: list[bytes]) -> int:
        """How many of the first lines could be written."""
        written = 0
        for block in _blocks(lines):
            count = self._written_block(block)
            written += count
            if count < len(block):
                break
        return written

    def _written_block(self, lines: list[bytes]) -> int:
        left = memoryview(b"".join(lines))
        try:
            while left:
                taken = self._output.write(left)
                if taken is None:
                    sleep(0.02)
                left = left[taken or 0 :]
        except (OSError, ValueError):  # disk full, pipe without a reader, closed
            pass
        ends = list(accumulate(map(len, lines)))
        return bisect_right(ends, ends[-1] - len(left))


def _blocks(lines: list[bytes]) -> Iterator[list[bytes]]:
    """Lines to write with one call each: no more bytes than a pipe writes atomically, unless a single line has more."""
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
    """Send every logger's records to `output`, by default stderr, instead of to the handlers set before.

    worker: a number that every line gets, where several processes write to one log.

    `logging.shutdown`, which Python calls when a process ends, waits for the last lines.
    """
    writer = LogWriter(form, output or io.FileIO(2, "w", closefd=False), worker=worker)
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    root.addHandler(writer)
    root.setLevel(level.upper())
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line shows them
    return writer


def lost_lines() -> int:
    """How many lines were lost since the start."""
    return sum(h.lost_lines for h in logging.getLogger().handlers if isinstance(h, LogWriter))


def json_line(record: logging.LogRecord, worker: int | None = None) -> bytes:
    """One JSON object: time, level, logger, message; worker, request_id, the fields of `Access` and error if present."""
    content: dict[str, Any] = {
        "time": _time(record),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": _without_surrogates(_message(record)),
    }
    if worker is not None:
        content["worker"] = worker
    request_id = REQUEST_ID.get()
    if request_id is not None:
        content["request_id"] = request_id
    access = getattr(record, "access", None)
    if isinstance(access, Access):
        content |= {name: getattr(access, name) for name in _ACCESS_FIELDS}
    if record.exc_info:
        content["error"] = _without_surrogates("".join(traceback.format_exception(*record.exc_info)))
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def text_line(record: logging.LogRecord, worker: int | None = None) -> bytes:
    """Time, level, worker (`w0`), logger, message, request id; the lines of a traceback follow, indented."""
    request_id = REQUEST_ID.get()
    suffix = "" if request_id is None else f" [{request_id}]"
    process = "" if worker is None else f"w{worker} "
    lines = [f"{_time(record)} {record.levelname} {process}{record.name} {_printable(_message(record))}{suffix}"]
    if record.exc_info:
        trace = "".join(traceback.format_exception(*record.exc_info)).split("\n")
        lines += [f"    {_printable(line)}" for line in trace if line]
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
    except Exception:  # a __str__ may raise anything: the line still says where to look
        return f"{record.msg!r} cannot be formatted with its arguments ({record.pathname}:{record.lineno})"


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


def _without_surrogates(text: str) -> str:
    """Lone surrogates as escapes: JSON cannot hold them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _record_of_lost(count: int) -> logging.LogRecord:
    message = "%d lines of this log were lost: they could not be written, or not fast enough"
    return logging.LogRecord("solo_server.observability.logs", logging.WARNING, __file__, 0, message, (count,), None)
