"""How a model in service executes its images is decided by its engine, the settings and the cores."""

from types import SimpleNamespace
from typing import Any

import pytest
from solo_server.service.served_model import runs_to_completion
from solo_server.settings import Settings


@pytest.mark.parametrize(
    ("uses_cores", "max_concurrency", "own_batch", "workers", "max_batch", "expected"),
    [
        (True, 4, 1, 1, 0, True),
        (True, 5, 1, 1, 1, True),
        (True, 3, 1, 1, 0, False),  # a core remains for other stages
        (True, 2, 1, 2, 0, True),  # each worker has half the cores
        (True, 1, 1, 8, 0, True),
        (True, 4, 1, 1, 8, False),  # batches need decoded images
        (True, 4, 8, 1, 0, False),
        (False, 4, 1, 1, 0, False),  # a GPU computes while the cores decode
    ],
)
def test_images_run_to_completion_if_the_engine_takes_one_for_each_core(
    uses_cores: bool, max_concurrency: int, own_batch: int, workers: int, max_batch: int, expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("solo_server.system.cores.cores", lambda: 4)
    backend: Any = SimpleNamespace(uses_cores=uses_cores, max_concurrency=max_concurrency, max_batch=own_batch)
    assert runs_to_completion(backend, Settings(workers=workers, max_batch=max_batch)) is expected
