"""Acts as a ready SOLO server: accepts as many images as its argument says, then exits. Rejects text. Prints its port."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class DyingServer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    left = int(sys.argv[1])

    def do_GET(self) -> None:
        model = {"name": "demo", "version": "1", "precision": "fp32", "engine": "none"}
        self.close_connection = True
        self._answer(model if self.path == "/model" else {"status": "ready"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if body.isascii():
            self._answer({"code": "unsupported_media_type"}, 415)
            return
        if DyingServer.left == 0:
            os._exit(9)
        DyingServer.left -= 1
        self._answer({})

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


server = HTTPServer(("127.0.0.1", 0), DyingServer)
sys.stdout.write(f"{server.server_port}\n")
sys.stdout.flush()
server.serve_forever()
