"""The exit statuses of the `solo` commands. `solo_server.exit_codes` adds those that only `solo serve` has.

`solo_client` does not import this package, and has 1, 2 and 130 with the same meaning.
"""

from __future__ import annotations

FAILED = 1
"""The command ran, and something of it failed."""
REFUSED = 2
"""Wrong usage, setting or file: nothing was begun. argparse has the same."""
NO_GPU = 3
"""`selftest`, `build-engine`, `export --engine tensorrt`: there is no GPU here."""
ENDED_EARLY = 3
"""`bench`: the measurement is incomplete."""
INTERRUPTED = 130
"""Ctrl-C: 128 + SIGINT, as a shell reports it."""
READER_GONE = 141
"""The reader of the output is gone (`| head`): 128 + SIGPIPE, as a shell reports it."""
