"""Our pipeline in LitServe: `python litserve_app.py --host H --port P`; SOLO_PEER_WORKERS processes of SOLO_PEER_THREADS cores.

LitServe passes on multipart forms, but not plain bodies: the image is the form's `file`.
No `from __future__ import annotations`: LitServe inspects the annotation of `decode_request`, which must not be a string.
"""

import argparse
import os
from typing import Any

import litserve
from fastapi import Request
from solo_models.demo import demo_bundle
from solo_server.http.wire import result_json
from solo_server.pipeline.pipeline import Pipeline


class Segmenter(litserve.LitAPI):
    """Bytes to instances in one worker."""

    def setup(self, device: str) -> None:
        """Load and warm up."""
        self.pipeline = Pipeline.open(demo_bundle(), threads=int(os.environ["SOLO_PEER_THREADS"]))
        self.pipeline.warm_up()

    def decode_request(self, request: Request) -> bytes:
        """The form's file."""
        image: bytes = request["file"].file.read()  # type: ignore[index]  # LitServe passes the form
        return image

    def predict(self, image: bytes) -> dict[str, Any]:
        """The JSON of `POST /segment`."""
        bundle, result = self.pipeline.bundle, self.pipeline.segment(image)
        return result_json(result, bundle.name, bundle.version, bundle.spec.class_names)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """LitServe converts it to JSON."""
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    server = litserve.LitServer(
        Segmenter(api_path="/segment"), accelerator="cpu", workers_per_device=int(os.environ["SOLO_PEER_WORKERS"])
    )
    server.run(host=arguments.host, port=arguments.port, generate_client_file=False, log_level="warning")
