"""The command `solo segment`, with a stand-in for the server's package and with a small HTTP server."""

from __future__ import annotations

import argparse
import base64
import io
import json
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from solo_client import segment

Json = dict[str, Any]
Capture = pytest.CaptureFixture[str]


class _ServerError(Exception):
    """Like the errors of solo_server.errors."""

    title, status = "Damaged image", 422

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class FakeModel:
    """Replaces `solo_server.commands.local`: returns one person for every image; the image's bytes choose the error."""

    def __init__(self, answer: Json, png: bytes) -> None:
        self.bundle: object = "not opened"
        self.engine = "not opened"
        self.several: bool | None = None
        self.max_concurrency = 1
        self.class_names: list[str] = ["person"]
        self.queries: list[dict[str, str | list[str]]] = []
        self.drawn = 0
        self._answer = answer
        self._png = png

    def open_local(self, bundle: Path | None, engine: str, *, several: bool) -> FakeModel:
        self.bundle, self.engine, self.several = bundle, engine, several
        return self

    def segment(self, body: bytes, query: dict[str, str | list[str]]) -> Json:
        self.queries.append(query)
        if body.startswith(b"interrupt"):
            raise KeyboardInterrupt
        if body.startswith(b"bug"):
            raise ZeroDivisionError
        if body.startswith(b"fail "):
            raise _ServerError(body.split()[1].decode(), "it is\nno image")
        return {} if body == b"odd" else self._answer

    def segment_and_draw(self, body: bytes, query: dict[str, str | list[str]]) -> tuple[Json, bytes]:
        self.drawn += 1
        return self.segment(body, query), self._png


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, answer: Json, png: bytes) -> FakeModel:
    fake = FakeModel(answer, png)
    module = ModuleType("solo_server.commands.local")
    module.open_local = fake.open_local  # type: ignore[attr-defined]  # a hand-made stand-in
    monkeypatch.setitem(sys.modules, "solo_server", ModuleType("solo_server"))
    monkeypatch.setitem(sys.modules, "solo_server.commands.local", module)
    return fake


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """images(name=bytes, ...) creates files name.jpg in the current folder, which is a temporary one."""
    monkeypatch.chdir(tmp_path)

    def make(**bodies: bytes) -> None:
        for name, body in bodies.items():
            (tmp_path / f"{name}.jpg").write_bytes(body)

    return make


def _solo(*words: str) -> int:
    parser = argparse.ArgumentParser()
    segment.add_arguments(parser)
    return segment.run(parser.parse_args(words))


def test_one_image_gives_its_result(
    model: FakeModel, images: Callable[..., None], answer: Json, capsys: Capture
) -> None:
    images(a=b"a")
    assert _solo("a.jpg") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == answer
    assert captured.err == ""
    assert model.bundle is None


def test_several_images_give_a_list_with_their_files(
    model: FakeModel, images: Callable[..., None], answer: Json, capsys: Capture
) -> None:
    images(a=b"a", b=b"b")
    assert _solo("b.jpg", "a.jpg") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == [{"file": "b.jpg"} | answer, {"file": "a.jpg"} | answer]
    assert captured.err.startswith("2 images, 2 instances, ")
    assert captured.err.endswith(" images/s\n")


def test_coco_gives_results_with_ids(model: FakeModel, images: Callable[..., None], capsys: Capture) -> None:
    images(**{"000000000139": b"a", "photo": b"b"})
    assert _solo(".", "--format", "coco") == 0
    entry = {"category_id": 1, "score": 0.93, "segmentation": {"size": [2, 3], "counts": "024"}}
    assert json.loads(capsys.readouterr().out) == [{"image_id": 139} | entry, {"image_id": 2} | entry]


def test_options_reach_the_model(model: FakeModel, images: Callable[..., None]) -> None:
    images(a=b"a")
    assert _solo("a.jpg", "--score-threshold", ".5", "--classes", "person, dog", "--max-instances", "7") == 0
    assert model.queries == [{"score_threshold": "0.5", "classes": ["person, dog"], "max_instances": "7"}]


def test_bundle_reaches_the_model(model: FakeModel, images: Callable[..., None]) -> None:
    images(a=b"a")
    Path("my.solo").touch()
    assert _solo("a.jpg", "--model", "my.solo") == 0
    assert (model.bundle, model.engine) == (Path("my.solo"), "auto")


def test_the_engine_of_a_local_model_can_be_chosen(model: FakeModel, images: Callable[..., None]) -> None:
    images(a=b"a")
    assert _solo("a.jpg", "--engine", "openvino") == 0
    assert (model.bundle, model.engine) == (None, "openvino")


def test_output_file_is_replaced_atomically(
    model: FakeModel, images: Callable[..., None], answer: Json, capsys: Capture
) -> None:
    images(a=b"a")
    Path("out.json").write_text("old")
    assert _solo("a.jpg", "-o", "out.json") == 0
    assert json.loads(Path("out.json").read_text()) == answer
    assert capsys.readouterr().out == ""
    assert sorted(p.name for p in Path().iterdir()) == ["a.jpg", "out.json"]


def test_output_file_has_the_usual_permissions(model: FakeModel, images: Callable[..., None]) -> None:
    images(a=b"a")
    assert _solo("a.jpg", "-o", "out.json") == 0
    assert stat.S_IMODE(Path("out.json").stat().st_mode) == stat.S_IMODE(Path("a.jpg").stat().st_mode)


def test_output_link_keeps_its_target(model: FakeModel, images: Callable[..., None]) -> None:
    images(a=b"a")
    Path("target.json").touch()
    Path("out.json").symlink_to("target.json")
    assert _solo("a.jpg", "-o", "out.json") == 0
    assert Path("out.json").is_symlink()
    assert Path("target.json").read_text().startswith("{")


def test_output_may_be_a_device(model: FakeModel, images: Callable[..., None]) -> None:
    images(a=b"a")
    assert _solo("a.jpg", "-o", "/dev/null") == 0
    assert Path("/dev/null").is_char_device()


def test_overlays_are_written_besides_the_result(
    model: FakeModel, images: Callable[..., None], png: bytes, capsys: Capture
) -> None:
    images(a=b"a", b=b"b")
    assert _solo("a.jpg", "b.jpg", "--overlay", "drawn/here", "--score-threshold", "0.5") == 0
    assert {p.name: p.read_bytes() for p in Path("drawn/here").iterdir()} == {
        "a.overlay.png": png,
        "b.overlay.png": png,
    }
    assert len(json.loads(capsys.readouterr().out)) == 2
    assert model.queries == [{"score_threshold": "0.5"}] * 2


def test_a_failed_image_is_named_and_the_run_continues(
    model: FakeModel, images: Callable[..., None], capsys: Capture
) -> None:
    images(a=b"a", b=b"fail image_damaged", c=b"c")
    assert _solo("a.jpg", "b.jpg", "c.jpg") == 1
    captured = capsys.readouterr()
    problem = {"type": "about:blank", "title": "Damaged image", "status": 422}
    problem |= {"detail": "it is no image", "code": "image_damaged"}
    entries = json.loads(captured.out)
    assert [entry["file"] for entry in entries] == ["a.jpg", "b.jpg", "c.jpg"]
    assert entries[1] == {"file": "b.jpg", "error": problem}
    first, summary = captured.err.splitlines()
    assert first == "solo segment: b.jpg: it is no image"
    assert summary.startswith("2 images, 2 instances, ")
    assert summary.endswith(", 1 failed")


def test_an_image_that_cannot_be_read_is_named(
    model: FakeModel, images: Callable[..., None], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *arguments: object) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    images(a=b"a")
    monkeypatch.setattr(Path, "open", refuse)
    assert _solo("a.jpg", "--format", "jsonl") == 1
    captured = capsys.readouterr()
    assert captured.err == "solo segment: a.jpg: Permission denied\n"
    assert json.loads(captured.out)["error"]["code"] == "unreadable"


def test_the_only_image_that_fails_writes_nothing(
    model: FakeModel, images: Callable[..., None], capsys: Capture
) -> None:
    images(a=b"fail image_damaged")
    assert _solo("a.jpg", "-o", "out.json") == 1
    assert not Path("out.json").exists()
    assert capsys.readouterr().err == "solo segment: a.jpg: it is no image\n"


def test_several_images_that_all_fail_give_their_errors(
    model: FakeModel, images: Callable[..., None], capsys: Capture
) -> None:
    images(a=b"fail image_damaged", b=b"fail image_damaged")
    assert _solo("a.jpg", "b.jpg") == 1
    assert [entry["error"]["code"] for entry in json.loads(capsys.readouterr().out)] == ["image_damaged"] * 2
    assert _solo("a.jpg", "b.jpg", "--format", "coco") == 1
    assert json.loads(capsys.readouterr().out) == []


def test_an_error_that_affects_every_image_stops_at_the_first(
    model: FakeModel, images: Callable[..., None], capsys: Capture
) -> None:
    images(a=b"fail invalid_query", b=b"b")
    assert _solo("a.jpg", "b.jpg", "--classes", "unicorn") == 2
    assert capsys.readouterr() == ("", "solo segment: it is no image\n")
    assert len(model.queries) == 1


def test_a_malformed_result_stops_the_run(model: FakeModel, images: Callable[..., None], capsys: Capture) -> None:
    images(a=b"odd")
    assert _solo("a.jpg") == 2
    assert capsys.readouterr().err == "solo segment: unexpected response: image is missing\n"


def test_results_before_a_stop_are_written(model: FakeModel, images: Callable[..., None], capsys: Capture) -> None:
    images(a=b"a", b=b"odd", c=b"c")
    assert _solo("a.jpg", "b.jpg", "c.jpg") == 2
    captured = capsys.readouterr()
    assert [entry["file"] for entry in json.loads(captured.out)] == ["a.jpg"]
    assert captured.err.splitlines()[-1] == "solo segment: unexpected response: image is missing"


def test_an_interrupt_is_one_line(model: FakeModel, images: Callable[..., None], capsys: Capture) -> None:
    images(a=b"interrupt")
    assert _solo("a.jpg") == 130
    assert capsys.readouterr() == ("", "solo segment: interrupted\n")


def test_a_bug_in_the_model_is_not_hidden(model: FakeModel, images: Callable[..., None]) -> None:
    images(a=b"bug")
    with pytest.raises(ZeroDivisionError):
        _solo("a.jpg")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.jpg"], "none.jpg: no such file or folder"),
        (["*.png"], "*.png: no such file or folder"),
        (["x" * 5000], "File name too long"),
        (["empty"], "no images found; --recursive also searches"),
        (["a.jpg", "--score-threshold", "1.5"], "--score-threshold must be from 0 to 1, not 1.5"),
        (["a.jpg", "--score-threshold", "nan"], "--score-threshold must be from 0 to 1, not nan"),
        (["a.jpg", "--score-threshold", "high"], "--score-threshold must be a number, not 'high'"),
        (["a.jpg", "--max-instances", "0"], "--max-instances must be at least 1, not 0"),
        (["a.jpg", "--max-instances", "2.5"], "--max-instances must be a whole number, not '2.5'"),
        (["a.jpg", "--classes", "a,,b"], "--classes must be names"),
        (["a.jpg", "--model", "none.solo"], "--model: none.solo: no such bundle"),
        (["a.jpg", "--url", "solo.test"], "--url must be like http://"),
        (["a.jpg", "--url", "http://solo.test", "--engine", "openvino"], "--engine is for a local model"),
        (["a.jpg", "--model-name", "cats"], "--model-name needs --url; --model is a bundle to run locally"),
        (["a.jpg", "--url", "http://solo.test", "--model-version", "1"], "--model-version needs --model-name"),
        (["a.jpg", "--url", "http://solo.test", "--model-name", ""], "--model-name must be a name, not ''"),
        (
            ["a.jpg", "--url", "http://solo.test", "--model-name", "a", "--model-version", "."],
            "--model-version must be",
        ),
        (["a.jpg", "-o", "none/out.json"], "-o: none: no such folder"),
        (["a.jpg", "-o", "empty"], "-o: empty is a folder"),
        (["a.jpg", "--overlay", "notes.txt"], "--overlay: notes.txt: File exists"),
        (["a.jpg", "--overlay", "a.jpg"], "--overlay: a.jpg: overlays are PNG files"),
        (
            ["a.jpg", "a1.jpg", "--overlay", "out.png"],
            "--overlay: out.png is one file, but there are 2 images",
        ),
        (["a.jpg", "--colour-by", "class"], "--colour-by needs --overlay"),
        (["a.jpg", "--resume"], "--resume needs --format jsonl and a file: -o FILE"),
        (["a.jpg", "--resume", "--format", "jsonl", "-o", "-"], "--resume needs --format jsonl and a file"),
        (["a.jpg", "--every", "0"], "--every must be at least 1, not 0"),
        (["a.jpg", "--max-frames", "x"], "--max-frames must be a whole number, not 'x'"),
        (["a.jpg", "--image-ids", "position"], "--image-ids needs --format coco"),
        (["a.jpg", "--categories", "c.json"], "--categories needs --format coco"),
        (["a.jpg", "--format", "coco", "--image-ids", "c.json"], "--image-ids: c.json: No such file"),
        (["a.jpg", "--format", "coco", "--categories", "c.json"], "--categories: c.json: No such file"),
        (["a.jpg", "a1.jpg", "--format", "coco"], "a.jpg and a1.jpg would have the same image_id 1; --image-ids"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    model: FakeModel, images: Callable[..., None], capsys: Capture, words: list[str], message: str
) -> None:
    images(a=b"a", a1=b"a")
    Path("notes.txt").touch()
    Path("empty").mkdir()
    assert _solo(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("solo segment: ")
    assert message in captured.err
    assert model.queries == []


def test_model_and_url_exclude_each_other(model: FakeModel, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        _solo("a.jpg", "--model", "m", "--url", "http://solo.test")
    assert caught.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_missing_server_package_says_which_extra(
    images: Callable[..., None], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(a=b"a")
    monkeypatch.setitem(sys.modules, "solo_server.commands.local", None)
    monkeypatch.setitem(sys.modules, "solo_server", None)
    assert _solo("a.jpg") == 2
    captured = capsys.readouterr().err
    assert "pip install -c constraints.txt -e '.[server]'" in captured
    assert captured.count("\n") == 1


def test_missing_httpx_says_which_extra(
    images: Callable[..., None], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(a=b"a")
    monkeypatch.setitem(sys.modules, "solo_client.client", None)
    assert _solo("a.jpg", "--url", "http://solo.test") == 2
    assert "pip install -c constraints.txt -e '.[client]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (_ServerError("bundle", "manifest.json: sha256\nis missing"), "manifest.json: sha256 is missing"),
        (ValueError("grids are wrong"), "grids are wrong"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_bundle_that_does_not_load_is_reported_in_one_line(
    model: FakeModel,
    images: Callable[..., None],
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    message: str,
) -> None:
    def refuse(bundle: Path | None, engine: str, *, several: bool) -> None:
        raise error

    images(a=b"a")
    Path("bad.solo").touch()
    monkeypatch.setattr(sys.modules["solo_server.commands.local"], "open_local", refuse)
    assert _solo("a.jpg", "--model", "bad.solo") == 2
    assert capsys.readouterr().err == f"solo segment: bad.solo: {message}\n"


@pytest.fixture
def url(answer: Json, png: bytes, problem: Callable[..., Json], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that returns that problem for `fail CODE STATUS`, and the answer or a PNG for any other image."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if body == b"hang up":
                self.close_connection = True
                return
            if body.startswith(b"fail "):
                code, status = body.decode().split()[1:]
                self._reply(int(status), "application/problem+json", json.dumps(problem(code, int(status))).encode())
            elif self.headers["Accept"] == "image/png":
                self._reply(200, "image/png", png)
            else:
                named = answer | {"model": {"name": "remote", "version": self.path}}
                if "overlay=true" in self.path:
                    named["overlay_png"] = base64.b64encode(png).decode()
                self._reply(200, "application/json", json.dumps(named).encode())

        def do_GET(self) -> None:
            self._reply(200, "application/json", json.dumps({"path": self.path, "classes": ["person"]}).encode())

        def _reply(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """No log."""

    monkeypatch.setenv("NO_PROXY", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_url_sends_images_to_the_server(url: str, images: Callable[..., None], png: bytes, capsys: Capture) -> None:
    images(a=b"a")
    assert _solo("a.jpg", "--url", url, "--classes", "person", "--overlay", ".") == 0
    captured = json.loads(capsys.readouterr().out)
    assert captured["model"] == {"name": "remote", "version": "/segment?classes=person&overlay=true"}
    assert "overlay_png" not in captured
    assert Path("a.overlay.png").read_bytes() == png


def test_url_continues_after_a_failed_image(
    url: str, images: Callable[..., None], problem: Callable[..., Json], capsys: Capture
) -> None:
    images(a=b"fail image_damaged 400", b=b"b")
    assert _solo(".", "--url", url) == 1
    captured = capsys.readouterr()
    failed, other = json.loads(captured.out)
    assert (failed["file"], other["file"]) == ("a.jpg", "b.jpg")
    assert failed["error"] == problem("image_damaged", 400)
    assert captured.err.startswith("solo segment: a.jpg: what went wrong: image_damaged (image_damaged, request r-1)\n")


def test_url_continues_after_a_broken_connection(url: str, images: Callable[..., None], capsys: Capture) -> None:
    images(a=b"hang up", b=b"b")
    assert _solo(".", "--url", url) == 1
    captured = capsys.readouterr()
    failed, other = json.loads(captured.out)
    assert (failed["file"], other["file"]) == ("a.jpg", "b.jpg")
    assert failed["error"]["code"] == "connection_lost"
    assert captured.err.startswith(f"solo segment: a.jpg: {url}/segment: ")


@pytest.mark.parametrize(
    "body",
    [
        b"fail invalid_query 422",
        b"fail not_found 404",
        b"fail model_not_found 404",
        b"fail not_ready 503",
        b"fail unauthorized 401",
    ],
)
def test_url_stops_at_an_error_that_affects_every_image(
    url: str, images: Callable[..., None], capsys: Capture, body: bytes
) -> None:
    images(a=body, b=b"b")
    assert _solo(".", "--url", url) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "holds no key"),
        (b"\xff", "cannot be read"),
        (b"a\x00b", "must be printable ASCII"),
        (b"a\nb", "holds 2 keys"),
    ],
)
def test_an_invalid_key_file_is_reported_in_one_line(
    url: str, images: Callable[..., None], capsys: Capture, tmp_path: Path, content: bytes | None, message: str
) -> None:
    images(a=b"a")
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    assert _solo("a.jpg", "--url", url, "--api-key-file", str(tmp_path / "key")) == 2
    assert message in capsys.readouterr().err


def test_an_api_key_needs_a_url(images: Callable[..., None], capsys: Capture) -> None:
    images(a=b"a")
    assert _solo("a.jpg", "--api-key-file", "key") == 2
    assert "--api-key-file needs --url" in capsys.readouterr().err


def test_an_unreachable_server_is_reported_in_one_line(url: str, images: Callable[..., None], capsys: Capture) -> None:
    images(a=b"a", b=b"b")
    assert _solo(".", "--url", "http://127.0.0.1:9") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("solo segment: http://127.0.0.1:9/segment: ")
    assert captured.err.count("\n") == 1


def test_lines_are_written_at_once_each_with_its_file(
    model: FakeModel, images: Callable[..., None], answer: Json, capsys: Capture
) -> None:
    images(a=b"a", b=b"fail image_damaged", c=b"interrupt")
    assert _solo("a.jpg", "b.jpg", "c.jpg", "--format", "jsonl") == 130
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"file": "a.jpg"} | answer
    assert second["error"]["code"] == "image_damaged"


def test_lines_before_an_interrupt_are_in_the_file(model: FakeModel, images: Callable[..., None]) -> None:
    images(a=b"a", b=b"interrupt")
    assert _solo("a.jpg", "b.jpg", "--format", "jsonl", "-o", "out.jsonl") == 130
    assert [json.loads(line)["file"] for line in Path("out.jsonl").read_text().splitlines()] == ["a.jpg"]


def test_a_jsonl_file_is_untouched_until_the_first_line(model: FakeModel, images: Callable[..., None]) -> None:
    images(a=b"fail invalid_query", b=b"b")
    Path("out.jsonl").write_text("old")
    assert _solo("a.jpg", "b.jpg", "--format", "jsonl", "-o", "out.jsonl") == 2
    assert Path("out.jsonl").read_text() == "old"


def test_a_single_image_is_a_line_with_its_file(
    model: FakeModel, images: Callable[..., None], answer: Json, capsys: Capture
) -> None:
    images(a=b"a")
    assert _solo("a.jpg", "--format", "jsonl") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"file": "a.jpg"} | answer


def test_an_interrupt_writes_no_incomplete_document(
    model: FakeModel, images: Callable[..., None], capsys: Capture
) -> None:
    images(a=b"a", b=b"interrupt")
    assert _solo("a.jpg", "b.jpg") == 130
    assert capsys.readouterr().out == ""
    assert _solo("a.jpg", "b.jpg", "-o", "out.json") == 130
    assert sorted(path.name for path in Path().iterdir()) == ["a.jpg", "b.jpg"]


def test_a_folder_is_segmented_several_images_at_a_time_in_order(
    model: FakeModel, images: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    together, segment_one = threading.Barrier(3), model.segment

    def wait_for_two_others(body: bytes, query: dict[str, str | list[str]]) -> Json:
        together.wait(30)
        return segment_one(body, query)

    images(**{f"{number:02}": b"a" for number in range(12)})
    model.max_concurrency = 3
    monkeypatch.setattr(model, "segment", wait_for_two_others)
    assert _solo(".", "--format", "jsonl") == 0
    files = [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]
    assert files == [f"{number:02}.jpg" for number in range(12)]
    assert model.several


def test_the_model_is_opened_for_a_single_image(model: FakeModel, images: Callable[..., None]) -> None:
    images(a=b"a")
    assert _solo("a.jpg") == 0
    assert model.several is False


def test_a_folder_is_sent_several_images_at_a_time(
    images: Callable[..., None], answer: Json, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    together = threading.Barrier(4)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            together.wait(30)
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """No log."""

    images(**{f"{number}": b"a" for number in range(8)})
    monkeypatch.setenv("NO_PROXY", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        assert _solo(".", "--url", f"http://127.0.0.1:{server.server_port}") == 0
        server.shutdown()
    assert [entry["file"] for entry in json.loads(capsys.readouterr().out)] == [f"{number}.jpg" for number in range(8)]


def test_an_overlay_needs_no_second_inference(model: FakeModel, images: Callable[..., None], png: bytes) -> None:
    images(a=b"a")
    assert _solo("a.jpg", "--overlay", "drawn.png") == 0
    assert Path("drawn.png").read_bytes() == png
    assert (model.drawn, len(model.queries)) == (1, 1)


def test_an_overlay_that_a_server_does_not_send_is_named(
    url: str, images: Callable[..., None], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    images(a=b"a")
    monkeypatch.setattr("base64.b64encode", lambda _: b"%%")
    assert _solo("a.jpg", "--url", url, "--overlay", "drawn.png") == 2
    assert "overlay_png is not base64" in capsys.readouterr().err
    assert not Path("drawn.png").exists()


class _Stdin(io.TextIOWrapper):
    def __init__(self, content: bytes, *, is_terminal: bool = False) -> None:
        super().__init__(io.BytesIO(content))
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def test_a_dash_reads_one_image_from_standard_input_and_writes_to_stdout(
    model: FakeModel, answer: Json, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", _Stdin(b"fail image_damaged"))
    assert _solo("-", "-o", "-", "--format", "jsonl") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["file"] == "-"
    assert captured.err == "solo segment: -: it is no image\n"
    monkeypatch.setattr(sys, "stdin", _Stdin(b"a"))
    assert _solo("-") == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_a_terminal_as_standard_input_is_refused(
    model: FakeModel, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", _Stdin(b"", is_terminal=True))
    assert _solo("-") == 2
    assert "standard input is a terminal; pipe an image into it" in capsys.readouterr().err


def test_endless_input_is_refused(model: FakeModel, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solo_client.command.reading.MAX_BYTES", 3 << 20)
    assert _solo("/dev/zero") == 1
    assert capsys.readouterr().err == "solo segment: /dev/zero: more than 3 MiB\n"


def test_recursive_searches_subfolders(model: FakeModel, images: Callable[..., None], capsys: Capture) -> None:
    images(a=b"a")
    Path("deeper").mkdir()
    Path("deeper/b.jpg").touch()
    assert _solo(".", "--recursive", "--overlay", "../drawn") == 0
    assert [entry["file"] for entry in json.loads(capsys.readouterr().out)] == ["a.jpg", "deeper/b.jpg"]
    drawn = Path("../drawn")
    assert sorted(p.relative_to(drawn).as_posix() for p in drawn.rglob("*.png")) == [
        "a.overlay.png",
        "deeper/b.overlay.png",
    ]


def test_nms_and_repeated_classes_reach_the_model(model: FakeModel, images: Callable[..., None]) -> None:
    images(a=b"a")
    assert _solo("a.jpg", "--nms", "mask", "--classes", "bolts, loose", "--classes", "nut") == 0
    assert model.queries == [{"classes": ["bolts, loose", "nut"], "nms": "mask"}]


def test_image_ids_can_be_the_positions(model: FakeModel, images: Callable[..., None], capsys: Capture) -> None:
    images(a1=b"a", b1=b"a")
    assert _solo(".", "--format", "coco", "--image-ids", "position") == 0
    assert [entry["image_id"] for entry in json.loads(capsys.readouterr().out)] == [1, 2]


@pytest.mark.parametrize(
    ("class_names", "category_id", "warning"),
    [
        (["person"], 1, ""),
        (["dog", "person"], 1, ""),
        (["dog", "person", "forklift"], 2, "are not all COCO's: category_id"),
    ],
)
def test_category_ids_are_cocos_if_all_classes_are(
    model: FakeModel,
    images: Callable[..., None],
    answer: Json,
    capsys: Capture,
    class_names: list[str],
    category_id: int,
    warning: str,
) -> None:
    images(a=b"a")
    answer["instances"][0]["class_id"] = class_names.index("person")
    model.class_names = class_names
    assert _solo("a.jpg", "--format", "coco") == 0
    captured = capsys.readouterr()
    assert [entry["category_id"] for entry in json.loads(captured.out)] == [category_id]
    assert warning in captured.err
    assert bool(warning) == bool(captured.err)


def test_category_ids_of_a_file_are_matched_by_name(
    url: str, model: FakeModel, images: Callable[..., None], capsys: Capture
) -> None:
    images(a=b"a")
    Path("c.json").write_text(json.dumps({"categories": [{"name": "dog", "id": 1}, {"name": "person", "id": 70}]}))
    for where in ([], ["--url", url]):
        assert _solo("a.jpg", "--format", "coco", "--categories", "c.json", *where) == 0
        assert [entry["category_id"] for entry in json.loads(capsys.readouterr().out)] == [70]


def test_a_class_that_the_categories_lack_stops_before_any_work_unless_classes_are_chosen(
    model: FakeModel, images: Callable[..., None], capsys: Capture
) -> None:
    images(a=b"a")
    model.class_names = ["person", "dog"]
    Path("c.json").write_text(json.dumps({"categories": [{"name": "person", "id": 70}]}))
    words = ["a.jpg", "--format", "coco", "--categories", "c.json"]
    assert _solo(*words) == 2
    assert "c.json has no category 'dog' (it has person); --classes selects" in capsys.readouterr().err
    assert model.queries == []
    assert _solo(*words, "--classes", "person") == 0
    Path("c.json").write_text(json.dumps({"categories": [{"name": "dog", "id": 70}]}))
    assert _solo(*words, "--classes", "person") == 2
    assert "--categories: a.jpg: category_ids has no id for the label 'person'" in capsys.readouterr().err


def test_a_closed_stdout_is_reported_in_one_line() -> None:
    code = (
        "import sys\n"
        "from solo_client.command.output import Failed, open_output\n"
        "from pathlib import Path\n"
        "try:\n"
        "    open_output('jsonl', None, alone=True).add(Failed(Path('a'), '', {'detail': 'x' * 1_000_000}))\n"
        "except Exception as error:\n"
        "    print(repr(error), file=sys.stderr)\n"
    )
    root = str(Path(segment.__file__).parent.parent)
    command = [sys.executable, "-c", code]
    pipe, environment = subprocess.PIPE, {"PYTHONPATH": root}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment) as process:  # our own command
        if process.stdout is not None:
            process.stdout.close()
        complaint = process.stderr.read() if process.stderr is not None else b""
    assert complaint == b"Unusable('cannot write to stdout: Broken pipe')\n"


def test_a_model_of_the_server_can_be_chosen(url: str, images: Callable[..., None], capsys: Capture) -> None:
    images(a=b"a")
    for words, path in (
        (["--model-name", "cats"], "/models/cats/segment"),
        (["--model-name", "cats", "--model-version", "2"], "/models/cats/versions/2/segment"),
    ):
        assert _solo("a.jpg", "--url", url, *words) == 0
        assert json.loads(capsys.readouterr().out)["model"]["version"] == path
