"""The exit statuses of `solo serve`, for the process itself and for the supervisor that reads how a worker ended.

docs/operations.md lists them, with what systemd, Kubernetes and the like should do about each.
"""

from __future__ import annotations

from solo_models.exit_codes import FAILED, REFUSED

__all__ = ["ENGINE_HUNG", "FAILED", "GPU_LOST", "MEANINGS", "NO_CLUSTER", "REFUSED"]

NO_CLUSTER = 69  # EX_UNAVAILABLE of sysexits.h
ENGINE_HUNG = 70  # EX_SOFTWARE of sysexits.h
GPU_LOST = 75  # EX_TEMPFAIL of sysexits.h: try again

MEANINGS = {
    FAILED: "the log has a traceback",
    REFUSED: "a setting, the bundle or the engine is wrong",
    NO_CLUSTER: "the Ray cluster cannot be reached, or lacks what a replica needs",
    ENGINE_HUNG: "the engine hangs",
    GPU_LOST: "the GPU is lost",
}
