"""The container's health check: exit status 0 if `/readyz` on the local port answers 200."""

import os
import sys
from http.client import HTTPConnection, HTTPException

connection = HTTPConnection("127.0.0.1", int(os.environ.get("SOLO_PORT") or 8000), timeout=2)
try:
    connection.request("GET", "/readyz")
    status = connection.getresponse().status
except (OSError, HTTPException) as problem:
    sys.exit(f"no answer: {problem}")
sys.exit(0 if status == 200 else f"/readyz: {status}")
