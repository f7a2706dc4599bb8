"""All threads allocate from one heap of the C library."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, threading
from solo_server.system.memory import share_one_heap

if {shared}:
    share_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
meeting = threading.Barrier(4)

def take():
    meeting.wait()
    libc.malloc(1000)
    meeting.wait()

threads = [threading.Thread(target=take) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="heaps of glibc")
def test_threads_share_one_heap() -> None:
    assert _heaps(shared=False) > 1
    assert _heaps(shared=True) == 1


def _heaps(*, shared: bool) -> int:
    program = PROGRAM.format(shared=shared)
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return said.stdout.count("<heap nr=")
