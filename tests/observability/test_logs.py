"""The log: one line a record, no line can be forged, and serving goes on whatever happens to the log's file."""

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from solo_server.observability.logs import REQUEST_ID, Access, LogWriter, configure, json_line, lost_lines, text_line

ACCESS = Access("POST", "/segment", 200, "ok", 54.321, 1000, 2000, 1, 7)


class Full:
    """A file on a disk that is full until it is not."""

    def __init__(self) -> None:
        self.is_full, self.written = True, b""

    def write(self, line: memoryview, /) -> int:
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.written += bytes(line)
        return len(line)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    switches = {name: getattr(logging, name) for name in ("logThreads", "logProcesses", "logMultiprocessing")}
    root.handlers[:] = []  # pytest's own must not be closed
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, on in switches.items():
        setattr(logging, name, on)


def record(message: Any, *values: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("solo_server", logging.INFO, "service.py", 12, message, values, None)
    made.created = 1_700_000_000.25
    made.__dict__.update(extra)
    return made


def failed_record() -> logging.LogRecord:
    try:
        raise ValueError("first\n2026-01-01 INFO forged")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
        return made


def test_lines_have_the_workers_number_if_there_are_several() -> None:
    assert json.loads(json_line(record("x"), worker=0))["worker"] == 0
    assert "worker" not in json.loads(json_line(record("x")))
    assert text_line(record("x"), worker=3).split()[1:3] == [b"INFO", b"w3"]
    output = Full()
    output.is_full = False
    writer = LogWriter("json", output, worker=2)
    writer.emit(record("x"))
    writer.close()
    assert json.loads(output.written)["worker"] == 2


def test_a_json_line_is_one_object_with_time_level_logger_and_message() -> None:
    line = json_line(record("%d images", 3))
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "info",
        "logger": "solo_server",
        "message": "3 images",
    }


def test_an_access_line_has_its_fields_and_the_requests_id() -> None:
    token = REQUEST_ID.set("abc-1")
    try:
        fields = json.loads(json_line(record("", access=ACCESS)))
        text = text_line(record("", access=ACCESS))
    finally:
        REQUEST_ID.reset(token)
    assert fields["message"].startswith("POST /segment 200 ok 54.3 ms")
    assert {k: fields[k] for k in ("method", "route", "status", "code", "ms", "bytes_in", "bytes_out")} == {
        "method": "POST", "route": "/segment", "status": 200, "code": "ok", "ms": 54.321, "bytes_in": 1000, "bytes_out": 2000,
    }  # fmt: skip
    assert (fields["images"], fields["instances"], fields["request_id"]) == (1, 7, "abc-1")
    assert text == (
        b"2023-11-14T22:13:20.250+00:00 INFO solo_server POST /segment 200 ok 54.3 ms, 1000 bytes in, 2000 out, "
        b"images: 1, instances: 7 [abc-1]\n"
    )


@pytest.mark.parametrize("sent", ["a\nINFO forged", "a\r\x1b[2J", "a\u2028b", "a\x85b", "\udcff", "a\x00"])
def test_what_clients_send_never_starts_a_line_nor_controls_a_terminal(sent: str) -> None:
    text = text_line(record("file %s", sent)).decode()
    assert text.count("\n") == 1
    assert text[:-1].isprintable()
    line = json_line(record("file %s", sent))
    assert line.count(b"\n") == 1
    assert json.loads(line)["message"].startswith("file ")


def test_a_traceback_is_indented_as_text_and_a_field_as_json() -> None:
    first, *rest = text_line(failed_record()).decode().splitlines()
    assert first.endswith("INFO solo_server failed")
    assert len(rest) > 2
    assert all(line.startswith("    ") for line in rest)
    fields = json.loads(json_line(failed_record()))
    assert fields["error"].startswith("Traceback")
    assert "ValueError: first" in fields["error"]


def test_a_record_that_cannot_be_formatted_still_makes_a_line() -> None:
    assert b"'%d' cannot be formatted with its arguments (service.py:12)" in text_line(record("%d", "many"))
    assert json.loads(json_line(record("%d", "many")))["level"] == "info"


def test_lines_arrive_complete_and_in_order_through_a_file_that_takes_a_few_bytes_at_a_time() -> None:
    class Narrow(Full):
        def write(self, line: memoryview, /) -> int:
            self.written += bytes(line[:3])
            return min(3, len(line))

    output = Narrow()
    writer = LogWriter("json", output)
    for number in range(20):
        writer.emit(record("%d", number))
    writer.close()
    assert [json.loads(line)["message"] for line in output.written.splitlines()] == [str(n) for n in range(20)]
    assert writer.lost_lines == 0


def test_lines_are_written_together_but_never_more_than_a_pipe_writes_atomically() -> None:
    """So lines of several workers do not mix, and a pipe that nobody reads ends with a complete line."""
    written: list[bytes] = []

    class Watched(Full):
        def write(self, line: memoryview, /) -> int:
            written.append(bytes(line))
            return len(line)

    writer = LogWriter("json", Watched())
    for number in range(200):
        writer.emit(record("%d", number))
    writer.emit(record("x" * 5000))
    writer.close()
    assert len(written) < 100
    assert all(block.endswith(b"\n") for block in written)
    assert [len(block) <= 4096 for block in written] == [True] * (len(written) - 1) + [False]
    messages = [json.loads(line)["message"] for line in b"".join(written).splitlines()]
    assert messages == [*map(str, range(200)), "x" * 5000]


def test_a_file_that_would_block_is_tried_again() -> None:
    class Slow(Full):
        def __init__(self) -> None:
            super().__init__()
            self.is_full, self.answers = False, [None, None]

        def write(self, line: memoryview, /) -> int | None:  # type: ignore[override]  # as a non-blocking file does
            return self.answers.pop() if self.answers else super().write(line)

    output = Slow()
    writer = LogWriter("json", output)
    writer.emit(record("x"))
    writer.close()
    assert (output.written.count(b"\n"), writer.lost_lines) == (1, 0)


def test_a_full_disk_loses_lines_and_the_log_says_so_later() -> None:
    output = Full()
    writer = LogWriter("json", output)
    for _ in range(3):
        writer.emit(record("lost"))
    writer.close()
    assert (output.written, writer.lost_lines) == (b"", 3)
    output.is_full = False
    writer.emit(record("back"))
    writer.close()
    lost, back = (json.loads(line) for line in output.written.splitlines())
    assert lost["message"].startswith("3 lines of this log were lost")
    assert (lost["level"], back["message"], writer.lost_lines) == ("warning", "back", 3)


def test_a_closed_file_loses_lines_and_nothing_else() -> None:
    output = io.BytesIO()
    output.close()
    writer = LogWriter("text", output)
    writer.emit(record("x"))
    writer.close()
    assert writer.lost_lines == 1


def test_a_pipe_that_nobody_reads_delays_nothing() -> None:
    released = threading.Event()

    class Stalled(Full):
        def write(self, line: memoryview, /) -> int:
            released.wait()
            return len(line)

    writer = LogWriter("text", Stalled(), queued_lines=4)
    start = monotonic()
    for _ in range(100):
        writer.emit(record("x"))
    assert monotonic() - start < 1
    assert writer.lost_lines >= 95  # four are queued, one is being written
    released.set()
    writer.close()


def test_configured_every_logger_writes_there_from_its_level_on(root: logging.Logger) -> None:
    output = Full()
    output.is_full = False
    writer = configure("json", "warning", output)
    assert root.handlers == [writer]
    logging.getLogger("anyone").info("no")
    logging.getLogger("anyone").warning("yes")
    writer.close()
    assert [json.loads(line)["message"] for line in output.written.splitlines()] == ["yes"]


def test_lost_lines_are_counted_for_the_metrics(root: logging.Logger) -> None:
    assert lost_lines() == 0
    writer = configure("text", "info", Full())
    logging.getLogger("anyone").info("lost")
    writer.close()
    assert lost_lines() == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_process_whose_log_is_on_a_full_disk_ends_normally() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        done = subprocess.run([sys.executable, "-c", _PROGRAM], stderr=full, stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (0, b"served\n")


def test_a_process_whose_log_nobody_reads_ends_normally() -> None:
    reader, pipe = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "-c", _PROGRAM], stderr=pipe, stdout=subprocess.PIPE, check=False)
    finally:
        os.close(pipe)
    assert (done.returncode, done.stdout) == (0, b"served\n")


def test_the_last_lines_are_written_before_the_process_ends() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, check=False)
    assert len(done.stderr.splitlines()) == 1000


_PROGRAM = """
import logging
from solo_server.observability.logs import configure
configure()
for number in range(1000):
    logging.getLogger("solo_server").info("line %d", number)
print("served")
"""
