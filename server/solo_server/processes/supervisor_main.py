"""The process that `solo serve --workers N` becomes once settings and keys are checked and the port is bound.

    solo serve ─► checks ─► exec ─► this module ─► Supervisor ─► solo serve --worker-channel K FD, N times

A process that has imported the server holds about 150 MB, of which a supervisor needs next to nothing: so it starts anew, under the
same number, with the listener.
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
from solo_server.observability.multiprocess import SupervisorFigures, metrics_folder
from solo_server.processes.supervisor import Supervisor
from solo_server.processes.worker_handle import Process
from solo_server.settings import Settings
from solo_server.system.listener import announce

PYTHON = (sys.executable, "-P", "-m")  # -P: no modules of the folder that this was started in


@dataclass(frozen=True, slots=True)
class Order:
    """What the supervisor has to know. listener: its descriptor."""

    listener: int
    workers: int
    drain_seconds: int
    log_format: str
    log_level: str


def become_supervisor(settings: Settings, listener: socket.socket, argv: list[str]) -> NoReturn:
    """Replace this process by the supervisor. argv: of `solo serve`, for every worker.

    Raises:
        SettingsError: this system does not hand connections from one process to another.
    """
    if not hasattr(socket, "send_fds"):
        raise SettingsError(
            "SOLO_WORKERS: several workers need a system that hands over connections; this one does not"
        )
    from solo_server.backends.cpu.kernels.compile import remove_private_cache  # not needed by the supervisor itself

    listener.set_inheritable(True)
    remove_private_cache()
    order = Order(listener.fileno(), settings.workers, settings.drain_seconds, settings.log_format, settings.log_level)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    words = (*PYTHON, "solo_server.processes.supervisor_main", json.dumps(asdict(order)), *argv)
    os.execv(sys.executable, words)  # noqa: S606 - this very interpreter


def main(argv: list[str]) -> int:
    """The exit status. argv: an `Order` in JSON, then that of `solo serve`."""
    order = Order(**json.loads(argv[0]))
    logs.configure(order.log_format, order.log_level)
    try:
        with socket.socket(fileno=order.listener) as listener, metrics_folder() as folder:
            listener.set_inheritable(False)
            status, refusal = asyncio.run(_supervise(order, listener, argv[1:], folder))
    except SettingsError as problem:
        status, refusal = REFUSED, str(problem)
    if refusal:
        print(f"solo serve: {refusal}", file=sys.stderr)
    return status


async def _supervise(order: Order, listener: socket.socket, argv: list[str], folder: str) -> tuple[int, str]:
    async def start(number: int, channel: socket.socket) -> Process:
        place = ("--worker-channel", str(number), str(channel.fileno()))
        command = (*PYTHON, "solo_models.cli", "serve", *place, *argv)
        return await asyncio.create_subprocess_exec(*command, pass_fds=(channel.fileno(),))

    figures = SupervisorFigures(folder, order.workers)
    events = (partial(announce, listener), figures.ended, figures.restarted)
    supervisor = Supervisor(listener, order.workers, start, order.drain_seconds, *events)
    return await supervisor.run(), supervisor.refusal


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
