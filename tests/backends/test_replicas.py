"""Replicas share images evenly."""

from pathlib import Path

from solo_server.backends.replicas import Replicas
from solo_server.pipeline.pipeline import Pipeline


def test_no_replica_has_a_second_image_before_all_have_one(solo_bundle: Path) -> None:
    backend = Pipeline.open(solo_bundle, threads=2, replicas=3, slots=2).backend
    assert isinstance(backend, Replicas)
    assert backend.max_concurrency == 6
    assert [backend._idle.get() for _ in range(6)] == [0, 1, 2, 0, 1, 2]
