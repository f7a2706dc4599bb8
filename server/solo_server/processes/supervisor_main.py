"""The process that `solo serve --workers N` becomes once settings and keys are checked and the port is bound.

    solo serve ─► checks ─► exec ─► this module ─► Supervisor ─► solo serve --worker-channel K FD, N times

A process that has imported the server holds about 150 MB, which a supervisor does not need. So it replaces itself by exec: the
process id and the listener stay.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from dataclasses import asdict, dataclass
from functools import partial
from typing import NoReturn

from solo_server.errors import SettingsError
from solo_server.exit_codes import REFUSED
from solo_server.observability import logs
from solo_server.observability.multiprocess import SupervisorMetrics, metrics_folder
from solo_server.processes.supervisor import Supervisor
from solo_server.processes.worker_handle import Process
from solo_server.settings import Settings
from solo_server.system.listener import announce

PYTHON = (sys.executable, "-P", "-m")  # -P: no modules of the folder that this was started in


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    """What the supervisor needs of the settings. listener: the socket's descriptor."""

    listener: int
    workers: int
    drain_seconds: int
    log_format: str
    log_level: str


def become_supervisor(settings: Settings, listener: socket.socket, argv: list[str]) -> NoReturn:
    """Replace this process by the supervisor. argv: of `solo serve`, for every worker.

    Raises:
        SettingsError: this system cannot pass connections from one process to another.
    """
    if not hasattr(socket, "send_fds"):
        raise SettingsError(
            "SOLO_WORKERS: several workers need a system that can pass connections between processes; this one cannot"
        )
    from solo_server.backends.cpu.kernels.compile import remove_private_cache  # imports numba: not in the supervisor

    listener.set_inheritable(True)
    remove_private_cache()
    options = SupervisorOptions(
        listener.fileno(), settings.workers, settings.drain_seconds, settings.log_format, settings.log_level
    )
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    command = (*PYTHON, "solo_server.processes.supervisor_main", json.dumps(asdict(options)), *argv)
    os.execv(sys.executable, command)  # noqa: S606 - the same interpreter


def main(argv: list[str]) -> int:
    """Run the supervisor. Returns the exit status. argv: `SupervisorOptions` as JSON, then the arguments of `solo serve`."""
    options = SupervisorOptions(**json.loads(argv[0]))
    logs.configure(options.log_format, options.log_level)
    try:
        with socket.socket(fileno=options.listener) as listener, metrics_folder() as folder:
            listener.set_inheritable(False)
            status, refusal = asyncio.run(_supervise(options, listener, argv[1:], folder))
    except SettingsError as problem:
        status, refusal = REFUSED, str(problem)
    if refusal:
        print(f"solo serve: {refusal}", file=sys.stderr)
    return status


async def _supervise(
    options: SupervisorOptions, listener: socket.socket, argv: list[str], folder: str
) -> tuple[int, str]:
    async def start(number: int, channel: socket.socket) -> Process:
        worker = ("--worker-channel", str(number), str(channel.fileno()))
        command = (*PYTHON, "solo_models.cli", "serve", *worker, *argv)
        return await asyncio.create_subprocess_exec(*command, pass_fds=(channel.fileno(),))

    metrics = SupervisorMetrics(folder, options.workers)
    events = (partial(announce, listener), metrics.ended, metrics.restarted)
    supervisor = Supervisor(listener, options.workers, start, options.drain_seconds, *events)
    return await supervisor.run(), supervisor.refusal


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
