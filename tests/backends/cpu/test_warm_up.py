"""Warming up compiles every kernel that an image needs, reports it, and works with read-only cache folders."""

import importlib
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

from numba.core.registry import CPUDispatcher
from solo_models.bundle import read_bundle
from solo_server.backends.cpu.backend import CpuBackend
from solo_server.backends.cpu.network import open_network
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.runtimes.onnxruntime import OrtRuntime
from solo_server.backends.cpu.warm_up import warm_kernels
from solo_server.pipeline.image import prepare
from solo_server.pipeline.pipeline import Decoded, Pipeline
from solo_server.types import Query
from support.bundles import tiny_bundle
from support.images import smooth_image
from support.specs import VARIANTS

FEW_KERNELS = """
from solo_server.backends.cpu import warm_up
warm_up._head = warm_up._masks = lambda: None  # they take most of the time
"""
MODULES = ("resize", "winograd", "int16_products", "layouts", "soft_masks", "cell_masks", "rle_encode", "nms")


def _compiled() -> dict[str, int]:
    """How many versions of each kernel there are in this process."""
    modules = [importlib.import_module(f"solo_server.backends.cpu.kernels.{name}") for name in MODULES]
    kernels = {f"{m.__name__}.{k}": v for m in modules for k, v in vars(m).items() if isinstance(v, CPUDispatcher)}
    return {name: len(kernel.signatures) for name, kernel in kernels.items()}


def test_nothing_is_compiled_for_an_image_once_the_kernels_are_warm() -> None:
    warm_kernels()
    before = _compiled()
    assert sum(before.values()) >= 15
    heads = (("compiled", "fp32"), ("compiled", "int8"), ("graph", "fp32"))  # an INT8 bundle's has 16-bit products
    for variant, (head, precision) in product(VARIANTS, heads):
        bundle, pool = replace(read_bundle(tiny_bundle(variant)), precision=precision), Pool(2)
        engine = open_network(bundle, OrtRuntime(1), pool, head)  # type: ignore[arg-type]  # literals
        pipeline = Pipeline(bundle, CpuBackend(bundle, engine, pool))
        for nms in ("matrix", "mask", "none"):
            pixels = smooth_image(101, 133)
            decoded = Decoded(prepare(pixels, bundle.spec.preprocess), pixels, 0, 0)
            assert pipeline.segment_decoded(decoded, Query(nms=nms)).instances
    assert _compiled() == before


def test_warming_up_again_reports_nothing() -> None:
    warm_kernels()
    reported: list[str] = []
    warm_kernels(reported.append)
    assert reported == []


def _python(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=True, env={**os.environ, **environment}
    )


def test_every_kernel_is_read_from_the_cache_once_compiled() -> None:
    """The second process is for entries that two processes, which compile at the same time, have lost from numba's index."""
    warm_kernels()
    runs = (_python("from solo_models.cli import main; main(['warm'])") for _ in range(2))
    assert any(run.stderr.strip().endswith("(from the cache)") for run in runs)


def test_compiled_kernels_are_cached_and_read_from_a_read_only_folder(tmp_path: Path) -> None:
    cache = tmp_path / "kernels"
    open_model = f"{FEW_KERNELS}\nfrom solo_server.commands.local import open_local\nopen_local(None)"
    reported = _python(open_model, NUMBA_CACHE_DIR=str(cache)).stderr.splitlines()
    assert reported[0].startswith("solo segment: compiling kernels")
    assert reported[1].endswith("(compiled)")
    assert _python(open_model, NUMBA_CACHE_DIR=str(cache)).stderr == ""
    script = """
import tempfile
create = tempfile.TemporaryFile
def refuse(*arguments, dir=None, **options):
    if str(dir).startswith(refused): raise OSError("read-only file system")
    return create(*arguments, dir=dir, **options)
tempfile.TemporaryFile = refuse
{few_kernels}
warm_up.warm_kernels(print)
"""
    kept, private = tmp_path / "kept", tmp_path / "private"
    private.mkdir()
    folders = {"NUMBA_CACHE_DIR": str(cache), "XDG_CACHE_HOME": str(kept), "TMPDIR": str(private)}
    for refused in ((str(cache), str(kept)), (str(cache),)):
        denied = _python(f"refused = {refused!r}\n{script.format(few_kernels=FEW_KERNELS)}", **folders)
        assert denied.stdout.strip().endswith("(from the cache)")
        assert not list(private.iterdir())
    assert list(kept.rglob("*.nbi"))


def test_kernels_work_where_no_folder_is_writable(tmp_path: Path) -> None:
    script = """
import tempfile
def refuse(*arguments, **options): raise OSError("read-only file system")
tempfile.TemporaryFile = tempfile.mkdtemp = refuse
from solo_server.backends.cpu.kernels.compile import CAN_CACHE, kernel
import numpy as np
assert not CAN_CACHE
@kernel
def twice(x): return x + x
print(twice(21))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "42"
