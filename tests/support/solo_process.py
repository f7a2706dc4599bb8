"""Runs of `solo` in processes of their own, forked from one that has imported the server: a run then costs no imports.

SoloProcesses ── arguments, environment ─► process with the imports ── fork ─► exit status, standard output and error
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_FORK = """
import json, os, sys
import solo_client.segment, solo_models.cli, solo_server.bench.command, solo_server.commands.local, solo_server.commands.serve
for line in sys.stdin:
    arguments, environment, output, error = json.loads(line)
    if (child := os.fork()) == 0:
        os.environ.clear()
        os.environ.update(environment)
        if output is None:  # as `solo ... | head` after head has ended
            read, write = os.pipe()
            os.close(read)
        else:
            write = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(write, 1)
        os.dup2(os.open(error, os.O_WRONLY | os.O_CREAT), 2)
        os.close(write)
        sys.argv = ["solo", *arguments]
        sys.exit(solo_models.cli.main(arguments))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class SoloProcesses:
    """Runs `solo` with given arguments, one process after the other."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _FORK]
        self._parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, reads: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end. reads: False closes the other end of its standard output before it starts."""
        if self._parent.stdin is None or self._parent.stdout is None:
            raise RuntimeError("standard input and output are not pipes")
        with tempfile.TemporaryDirectory() as folder:
            output, error = Path(folder, "output"), Path(folder, "error")
            request = [list(arguments), dict(environment), str(output) if reads else None, str(error)]
            self._parent.stdin.write(json.dumps(request) + "\n")
            self._parent.stdin.flush()
            status = int(self._parent.stdout.readline())
            return subprocess.CompletedProcess(
                list(arguments), status, output.read_text() if reads else "", error.read_text()
            )

    def close(self) -> None:
        """End the process that holds the imports."""
        self._parent.communicate()
