"""What the kernel knows of a connection and asyncio does not report."""

from __future__ import annotations

import asyncio
import socket
import sys

if sys.platform == "linux":
    import fcntl
    import termios


def unsent_bytes(transport: asyncio.Transport) -> int:
    """Unsent bytes in this process and, if there are any, in the kernel too, whose buffer empties in steps of a megabyte."""
    size_bytes = transport.get_write_buffer_size()
    if size_bytes and sys.platform == "linux":
        queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        size_bytes += int.from_bytes(queued, sys.byteorder)
    return size_bytes


def is_reset(transport: asyncio.Transport) -> bool:
    """Whether the other side has answered with a reset; asyncio does not report that after the other side has ended."""
    return bool(transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
