"""A small network that fits a GPU's rules, its bundle, and images for it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from solo_models.bundle import CATEGORIES, MASKS, Bundle, read_bundle
from solo_models.spec import ModelSpec, PostprocessSpec, PreprocessSpec, Variant
from solo_server.backends.gpu.tensorrt.network import Engines
from solo_server.backends.gpu.tensorrt.profiles import EngineProfiles, engine_profiles
from solo_server.pipeline.image import prepare
from solo_server.types import PreparedImage
from support.bundles import kept_bundle
from support.gpu.fake_tensorrt import FakeTensorRt
from support.images import smooth_image
from support.specs import tiny_spec


def small_spec(variant: Variant) -> ModelSpec:
    """A small backbone; 64 FPN channels, so that levels lie where TensorRT wants them; images of at most 64 x 96 or 96 x 64.

    The emulator's time for an image is mostly that of encoding its instances: 24 at most.
    """
    return replace(
        tiny_spec(variant),
        backbone="efficientnet_lite0",
        grids=(7, 6, 5, 4, 3),
        fpn_channels=64,
        preprocess=PreprocessSpec(long_side=96, short_side=64),
        postprocess=PostprocessSpec(max_instances=24),
    )


@lru_cache
def small_bundle(variant: Variant = "solo") -> Bundle:
    """Finds dozens of objects of all sizes. Made once and kept between runs: see `support.kept`."""
    return read_bundle(kept_bundle(f"small-{variant}", small_spec(variant), Path(__file__)))


def small_profiles(bundle: Bundle, max_batch: int = 3, exact: tuple[tuple[int, int], ...] = ()) -> EngineProfiles:
    """As the engine cache would have them."""
    return engine_profiles(bundle.spec, max_batch, exact)


def small_engines(bundle: Bundle, profiles: EngineProfiles, **changes: object) -> Engines:
    """Both engines. changes: of the categories engine, see `FakeTensorRt.plan`."""
    plans = (_plan(bundle, CATEGORIES, profiles, json.dumps(changes)), _plan(bundle, MASKS, profiles))
    return Engines(*plans, profiles, "fp32")


_PLANS: dict[tuple[str, str, EngineProfiles, str], bytes] = {}


def _plan(bundle: Bundle, graph: str, profiles: EngineProfiles, changes: str = "{}") -> bytes:
    key = (bundle.version, graph, profiles, changes)
    if key not in _PLANS:
        _PLANS[key] = FakeTensorRt.plan(bundle.files[graph], profiles.of_graph(graph), **json.loads(changes))
    return _PLANS[key]


def images(spec: ModelSpec, hw: tuple[int, int], count: int, seed: int = 0) -> list[PreparedImage]:
    """Several images of one size."""
    return [prepare(smooth_image(*hw, seed=seed + i), spec.preprocess) for i in range(count)]
