"""Runs the CUDA kernels on the CPU: g++ compiles their sources against `host_cuda.h`.

    emulator = Emulator()
    emulator.launch("count_candidates", (blocks, images), 256, batch)  # a `batch.Batch` whose pointers are numpy arrays'

Libraries are cached in the folder for temporary files, by a digest of all sources. To run tests under AddressSanitizer and
UndefinedBehaviorSanitizer, which then check each access of a kernel to numpy's memory and to shared memory:

    python tests/support/gpu/emulator.py [pytest's arguments]

This sets the environment of `sanitizer_environment`; its SOLO_SANITIZE=1 makes `Emulator()` use the instrumented library.
SOLO_BACKWARDS=1 runs threads and blocks in reverse order: a result that changes comes from a data race.
SOLO_RACES=1 uses a library that records each access (`races.h`): a launch with a data race ends with an EmulationError.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from solo_server.backends.gpu.postprocess import batch as structs

KERNELS = structs.SOURCE.parent
FLAGS = ("-x", "c++", "-std=c++17", "-O2", "-g", "-ffp-contract=off", "-fPIC", "-fno-strict-aliasing")
WARNINGS = ("-Wall", "-Wno-unknown-pragmas", "-Wno-unused-function")
SANITIZERS = (
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover",
    "-fno-omit-frame-pointer",
    "-fsanitize-sections=emulated_shared",
)
NEEDS_COMPILER = "CUDA kernels on the emulator: g++ is needed, on x86-64"
RACES = ("-O1", "-fsanitize=thread", "-DWATCH_RACES")
GARBAGE = 0xFFA5A5A5  # NaN as float, negative as int; what host_cuda.h fills shared memory with

_KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(\s*const Batch b([^)]*)\)')

Dimensions = int | tuple[int, ...]


class EmulationError(Exception):
    """A launch that CUDA would refuse, or that would hang or be undefined on a GPU."""


class BuildError(Exception):
    """The kernels do not compile; has the compiler's output."""


class Emulator:
    """The kernels of `kernels.cu`, or of `source`, as one library.

    sanitize: watched by the sanitizers, only in a process started with `sanitizer_environment`; None: as SOLO_SANITIZE says.
    backwards: threads and blocks run from the last to the first; None: as SOLO_BACKWARDS says.
    races: data races are looked for, instead of what the sanitizers find; None: as SOLO_RACES says.
    """

    def __init__(
        self,
        sanitize: bool | None = None,
        source: str | None = None,
        backwards: bool | None = None,
        races: bool | None = None,
    ) -> None:
        require_compiler()
        self._backwards = _is_set("SOLO_BACKWARDS") if backwards is None else backwards
        text = _all_sources() if source is None else source
        self._ints = {name: ints.count("int ") for name, ints in _KERNEL.findall(text)}
        program = _program('#include "kernels.cu"' if source is None else source, self._ints)
        sanitized = _is_set("SOLO_SANITIZE") if sanitize is None else sanitize
        watched = _is_set("SOLO_RACES") if races is None else races
        library = _build(program, RACES if watched else SANITIZERS if sanitized else ())
        self._library = ctypes.CDLL(str(library))
        self._library.emulated_layout.restype = ctypes.POINTER(ctypes.c_size_t)

    @property
    def kernels(self) -> dict[str, int]:
        """Names of all kernels, and how many ints follow the batch."""
        return dict(self._ints)

    def launch(
        self,
        name: str,
        grid: Dimensions,
        block: Dimensions,
        batch: ctypes.Structure,
        *ints: int,
        shared_bytes: int = 0,
    ) -> None:
        """Run a kernel to its end. Raises EmulationError: see there; the message says which threads waited where."""
        if len(ints) != self._ints[name]:
            raise EmulationError(f"{name} takes {self._ints[name]} ints, not {len(ints)}")
        message = ctypes.create_string_buffer(1024)
        self._library.emulated_launch(
            name.encode(),
            _three(grid),
            _three(block),
            ctypes.byref(batch),
            (ctypes.c_int * max(1, len(ints)))(*ints),
            ctypes.c_uint(shared_bytes),
            int(self._backwards),
            message,
            len(message),
        )
        if message.value:
            raise EmulationError(f"{name}: {message.value.decode()}")

    def sizes(self) -> dict[str, int]:
        """What the compiler says: 'Batch' -> its size, 'Batch.sigma' -> where the field lies, for all of batch.cuh."""
        return dict(zip(_layout_names(), self._library.emulated_layout()[: len(_layout_names())], strict=True))


def uninitialised(shape: Dimensions, dtype: Any) -> NDArray[Any]:
    """An array of garbage, as memory of a device is before a kernel writes it: NaN, or negative, or large."""
    size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    words = np.full(-(-size_bytes // 4), GARBAGE, np.uint32)
    return np.array(words.view(np.uint8)[:size_bytes].view(dtype).reshape(shape))


def require_compiler() -> None:
    """Skip the running test where the kernels cannot be compiled: without g++, or on another processor than fibers.h is for."""
    if shutil.which("g++") is None or platform.machine() not in ("x86_64", "AMD64"):
        import pytest  # scripts import this module without it

        pytest.skip(NEEDS_COMPILER)


def sanitizer_environment() -> dict[str, str]:
    """The environment of a process in which `Emulator(sanitize=True)` works: the sanitizers have to be loaded first."""
    require_compiler()
    libraries = [_output("g++", f"-print-file-name={name}") for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")]
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "SOLO_SANITIZE": "1",
    }


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def _three(dimensions: Dimensions) -> ctypes.Array[ctypes.c_uint]:
    given = (dimensions,) if isinstance(dimensions, int) else dimensions
    return (ctypes.c_uint * 3)(*given, *(1,) * (3 - len(given)))


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _sources() -> list[Path]:
    return sorted([*KERNELS.glob("*.cuh"), *KERNELS.glob("*.cu"), *Path(__file__).parent.glob("*.h")])


def _all_sources() -> str:
    return "\n".join(path.read_text() for path in _sources())


def _layout_names() -> list[str]:
    names = []
    for struct in (
        structs.ImageSettings,
        structs.Tap,
        structs.Counts,
        structs.FoundInstance,
        structs.Summary,
        structs.Batch,
    ):
        names += [struct.__name__, *(f"{struct.__name__}.{field[0]}" for field in struct._fields_)]
    return names


def _program(source: str, kernels: dict[str, int]) -> str:
    """The translation unit: the kernels, a table of them by name, and what Python calls."""
    rows, layout = [], []
    for name, count in kernels.items():
        ints = "".join(f", ints[{i}]" for i in range(count))
        call = (
            f"[](const void* batch, const int* ints) {{ (void)ints; {name}(*static_cast<const Batch*>(batch){ints}); }}"
        )
        rows.append(f'    {{"{name}", {call}}},')
    for name in _layout_names():
        struct, _, field = name.partition(".")
        layout.append(f"    offsetof({struct}, {field})," if field else f"    sizeof({struct}),")
    return "\n".join([_HEAD, source, _TABLE, *rows, _LAYOUT, *layout, _TAIL])


_HEAD = '#include <cstddef>\n#include "host_cuda.h"\n#include "batch.cuh"\n#include "common.cuh"'
_TABLE = "static const struct { const char* name; emulated::Call call; } kernels[] = {"
_LAYOUT = "};\nstatic const size_t layout[] = {"
_TAIL = """};

extern "C" const size_t* emulated_layout() { return layout; }

extern "C" void emulated_launch(const char* name, const unsigned* grid, const unsigned* block, const void* batch,
                                const int* ints, unsigned shared_bytes, int backwards, char* message, int room) {
    static std::mutex one_at_a_time;
    std::lock_guard<std::mutex> lock(one_at_a_time);
    emulated::grid_size = {grid[0], grid[1], grid[2]};
    emulated::block_size = {block[0], block[1], block[2]};
    emulated::batch = batch;
    emulated::ints = ints;
    std::string problem = "no such kernel";
    for (const auto& kernel : kernels)
        if (!strcmp(kernel.name, name)) {
            emulated::call = kernel.call;
#ifdef WATCH_RACES
            races::words.clear();
#endif
            problem = emulated::run_grid(shared_bytes, backwards);
        }
    snprintf(message, room, "%s", problem.c_str());
}
"""


@functools.cache
def _build(program: str, watching: tuple[str, ...]) -> Path:
    """Compile once for each content of the sources; another process that does the same meanwhile is harmless."""
    flags = [*FLAGS, *WARNINGS, *watching]
    digest = hashlib.sha256("\n".join([program, _all_sources(), *flags, _output("g++", "--version")]).encode())
    folder = Path(tempfile.gettempdir()) / f"solo-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{digest.hexdigest()[:24]}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as place:
            source, compiled, built = (Path(place) / f"kernels.{end}" for end in ("cpp", "o", "so"))
            source.write_text(program)
            _run("g++", *flags, "-c", f"-I{KERNELS}", f"-I{Path(__file__).parent}", str(source), "-o", str(compiled))
            linked_too = [
                flag for flag in watching if flag not in RACES
            ]  # races.h stands in for the sanitizer's library
            _run("g++", "-shared", *linked_too, str(compiled), "-o", str(built))
            built.replace(library)
    return library


def _run(*command: str) -> None:
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    if ran.returncode:
        raise BuildError(ran.stderr)


if __name__ == "__main__":
    arguments = sys.argv[1:] or [str(Path(__file__).parent)]
    sys.exit(
        subprocess.run(
            [sys.executable, "-m", "pytest", *arguments], check=False, env=sanitizer_environment()
        ).returncode
    )
