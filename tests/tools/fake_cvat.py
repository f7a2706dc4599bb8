"""A small part of CVAT's REST API, for one task and one function: enough for `auto-annotate`, `create-native` and `run-agent`.

    cvat-sdk, cvat-cli ── /api/... ─► FakeCvat: images in a chunk, labels, requests to agents ─► `uploads`: what was sent

Paths and fields are those that cvat-sdk 2.80 asks for and requires (`cvat_sdk/api_client/model/task_read.py` and others).
"""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TASK = 7
FUNCTION = 5
_DATE = "2026-01-01T00:00:00Z"


@dataclass
class FakeCvat:
    """frames: name and encoded image of each; labels: the task's names and types, whose ids are 101, 102, ..."""

    frames: dict[str, bytes]
    labels: dict[str, str]
    sizes_wh: list[tuple[int, int]]
    host: str = ""
    uploads: list[tuple[str, str, Any]] = field(default_factory=list)
    """Method, path with query, and JSON body of every request that changes something."""
    function: dict[str, Any] = field(default_factory=dict)
    """The function that `create-native` made."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Annotation requests for an agent, which takes the first."""

    def label_id(self, name: str) -> int:
        """The task's id of a label."""
        return 101 + list(self.labels).index(name)

    def answer(self, path: str) -> bytes | dict[str, Any]:
        """The answer to a GET: JSON, or the bytes of a chunk."""
        answers = {
            "/api/server/about": {
                "name": "CVAT",
                "description": "",
                "version": "2.80.0",
                "logo_url": "",
                "subtitle": "",
            },
            f"/api/tasks/{TASK}": self._task(),
            "/api/labels": self._labels(),
            f"/api/tasks/{TASK}/data/meta": self._meta(),
            f"/api/functions/{FUNCTION}": self.function,
        }
        return self._chunk() if path == f"/api/tasks/{TASK}/data" else answers[path]

    def receive(self, method: str, path: str, body: Any) -> dict[str, Any]:
        """Keep what was sent; the answer to it."""
        self.uploads.append((method, path, body))
        if path == "/api/functions":
            self.function = {**body, "id": FUNCTION}
            return self.function
        if path.endswith("/requests/acquire"):
            return {"ar_assignment": self.requests.pop(0) if self.requests else None}
        return {"version": 0, "tags": [], "shapes": [], "tracks": []}

    def _task(self) -> dict[str, Any]:
        return {
            "id": TASK,
            "name": "photos",
            "url": f"{self.host}/api/tasks/{TASK}",
            "size": len(self.frames),
            "data_chunk_size": len(self.frames),
            "data_original_chunk_type": "imageset",
            "data_compressed_chunk_type": "imageset",
            "mode": "annotation",
            "status": "annotation",
            "organization": None,
            "created_date": _DATE,
            "updated_date": _DATE,
            "jobs": {"count": 1, "completed": 0, "validation": 0, "url": f"{self.host}/api/jobs"},
            "labels": {"url": f"{self.host}/api/labels"},
        }

    def _labels(self) -> dict[str, Any]:
        labels = [
            {
                "id": self.label_id(name),
                "name": name,
                "type": kind,
                "color": "#ff0000",
                "attributes": [],
                "sublabels": [],
            }
            for name, kind in self.labels.items()
        ]
        return {"count": len(labels), "next": None, "previous": None, "results": labels}

    def _meta(self) -> dict[str, Any]:
        frames = [
            {"name": name, "width": width, "height": height, "related_files": 0, "has_related_context": False}
            for name, (width, height) in zip(self.frames, self.sizes_wh, strict=True)
        ]
        return {
            "chunks_updated_date": _DATE,
            "image_quality": 70,
            "size": len(frames),
            "start_frame": 0,
            "stop_frame": len(frames) - 1,
            "frame_filter": "",
            "frames": frames,
            "deleted_frames": [],
        }

    def _chunk(self) -> bytes:
        chunk = io.BytesIO()
        with zipfile.ZipFile(chunk, "w") as archive:
            for name, body in self.frames.items():
                archive.writestr(name, body)
        return chunk.getvalue()


@contextmanager
def serving(cvat: FakeCvat) -> Iterator[FakeCvat]:
    """Serve it on a free loopback port; `cvat.host` is then its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            try:
                found = cvat.answer(urlsplit(self.path).path.rstrip("/"))
            except KeyError:
                self._send(404, {"detail": f"the fake has no {self.path}"})
            else:
                self._send(200, found)

        def _receive(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self._send(200, cvat.receive(self.command, self.path, json.loads(body)))

        do_POST = do_PATCH = do_PUT = _receive  # noqa: N815

        def _send(self, status: int, content: bytes | dict[str, Any]) -> None:
            is_bytes = isinstance(content, bytes)
            body = content if is_bytes else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/zip" if is_bytes else "application/vnd.cvat+json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: the tests say what failed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    cvat.host = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield cvat
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
