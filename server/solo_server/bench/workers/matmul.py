"""`python -m solo_server.bench.workers.matmul`: the best rate of float32 matrix products on this machine.

numpy with its OpenBLAS on all cores. Every task times a few sizes; the parent uses the best of all rounds.
"""

from __future__ import annotations

import sys
from time import perf_counter

import numpy as np

from solo_server.bench.protocol import Hello, TaskResult, WorkerSetup, run_worker

SIDES = (512, 1024, 1536)


class MatmulWorker:
    """Square matrices of a few sizes."""

    def __init__(self) -> None:
        noise = np.random.default_rng(0)
        self._squares = {side: noise.standard_normal((side, side), np.float32) for side in SIDES}
        self._results = {side: np.empty((side, side), np.float32) for side in SIDES}
        self.run_task(0)  # OpenBLAS starts its threads at the first product

    def hello(self) -> Hello:
        """See `Worker.hello`."""
        return Hello("matrix product", f"numpy {np.__version__} float32", {"numpy": np.__version__})

    def run_task(self, index: int) -> TaskResult:
        """Time each size once; stages are named after the side."""
        return TaskResult({str(side): self._product_ms(side) for side in SIDES}, 0)

    def _product_ms(self, side: int) -> float:
        start = perf_counter()
        np.matmul(self._squares[side], self._squares[side], out=self._results[side])
        return (perf_counter() - start) * 1e3


def _open(setup: WorkerSetup) -> MatmulWorker:
    return MatmulWorker()


if __name__ == "__main__":
    sys.exit(run_worker(_open))
