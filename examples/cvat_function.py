"""Annotate a CVAT task with a server's masks: cvat-cli task auto-annotate TASK --function-file examples/cvat_function.py"""

import os

from solo_client.adapters import cvat

URL = os.environ.get("SOLO_URL", "http://127.0.0.1:8000")


def create(url: str = URL, score_threshold: float = 0.3) -> cvat.SoloFunction:
    """What cvat-cli calls; its option -p sets the arguments: -p score_threshold=float:0.5."""
    return cvat.create(url, score_threshold=score_threshold)
