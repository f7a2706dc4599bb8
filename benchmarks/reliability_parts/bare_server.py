"""The lower bound for a server on uvicorn: a minimal application that reads the body and returns as many bytes as the stub.

python benchmarks/reliability_parts/bare_server.py --host H --port P
"""

from __future__ import annotations

import argparse
from typing import Any

import uvicorn

ANSWER = b" " * 5000
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An ASGI application for every path."""
    if scope["type"] != "http":
        return
    chunks, more = [], True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    b"".join(chunks)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    uvicorn.run(
        application, host=arguments.host, port=arguments.port, lifespan="off", log_config=None, access_log=False
    )  # type: ignore[arg-type]
