"""Lines of progress on standard error, which the report repeats; what the server logs is among them."""

from __future__ import annotations

import logging
from collections.abc import Callable

Log = Callable[[str], None]


class ForwardingHandler(logging.Handler):
    """Forwards what the server logs, while it opens engines and runs, to the lines of progress."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        self._log(f"{record.levelname.lower()}: {record.getMessage()}")
