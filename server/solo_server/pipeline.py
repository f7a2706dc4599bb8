"""Bytes to instances: the one path that the server, the command line and the benchmarks all take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from solo_models.bundle import Bundle, read_bundle

from solo_server.compiled.pool import Pool
from solo_server.engine.base import Engine, PictureOutput
from solo_server.engine.choose import choose
from solo_server.image import ImageLimits, decode, decode_draft, prepare
from solo_server.memory import return_unused
from solo_server.postprocess.cpu import CpuPostprocessor
from solo_server.stopwatch import Stopwatch
from solo_server.types import PictureResult, PreparedPicture, Query, UInt8
from solo_server.warm import warm_kernels

LATER_STAGES = ("towers", "masks", "nms", "encode")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture ready for a batch, with the time that its own stages took, in milliseconds.

    rgb: what was decoded, smaller than the picture where it was drafted.
    """

    picture: PreparedPicture
    rgb: UInt8
    decode_ms: float
    preprocess_ms: float


class Pipeline:
    """One bundle on one engine. Stages can be called one by one; `segment` runs them all."""

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        limits: ImageLimits | None = None,
        pool: Pool | None = None,
        engine_reason: str = "",
    ) -> None:
        self.bundle, self.engine, self.engine_reason = bundle, engine, engine_reason
        self._limits = limits or ImageLimits()
        self.postprocessor = CpuPostprocessor(bundle.spec, bundle.kernels, pool or Pool())

    @classmethod
    def open(
        cls,
        bundle: Path,
        *,
        threads: int = 0,
        limits: ImageLimits | None = None,
        engine: str = "auto",
        precision: str | None = None,
    ) -> Pipeline:
        """Read a bundle and load it into the engine that `solo_server.engine.choose` picks.

        Raises:
            BundleError: missing, damaged, or not loadable.
            SettingsError: this bundle cannot run on that engine, or in that precision.
        """
        content = read_bundle(bundle)
        choice, pool = choose(content, engine, precision), Pool(threads)
        opened = choice.open(content, pool)
        return_unused()
        return cls(content, opened, limits, pool, choice.reason)

    def warm_up(self) -> None:
        """Compile every kernel, then run everything once on an empty picture of the usual 4:3: runtimes plan at first."""
        warm_kernels()
        spec = self.bundle.spec
        height = spec.preprocess.short_side
        blank = np.zeros((height, min(spec.preprocess.long_side, height * 4 // 3), 3), np.uint8)
        output = self.infer([prepare(blank, spec.preprocess)])[0]
        output.mask_features(range(len(spec.grids)))

    def decode(self, body: bytes, *, whole: bool = False) -> Decoded:
        """Decode, resize and pad one picture; raises what `solo_server.image.decode` raises.

        whole: every pixel is decoded even where drafts are allowed, so that the picture can be drawn on.
        """
        start = perf_counter()
        rules = self.bundle.spec.preprocess
        if self._limits.draft and not whole:
            rgb, original_hw = decode_draft(body, self._limits, rules)
        else:
            rgb = decode(body, self._limits)
            original_hw = rgb.shape[:2]
        decoded = perf_counter()
        picture = prepare(rgb, rules, original_hw)
        return Decoded(picture, rgb, (decoded - start) * 1e3, (perf_counter() - decoded) * 1e3)

    def infer(self, pictures: Sequence[PreparedPicture]) -> Sequence[PictureOutput]:
        """Run the network on pictures of one padded size."""
        images = np.stack([p.pixels for p in pictures])
        image_hw = np.array([p.geometry.resized_hw for p in pictures], np.int64)
        return self.engine.run(images, image_hw)

    def finish(self, output: PictureOutput, decoded: Decoded, query: Query, categories_ms: float) -> PictureResult:
        """Everything after the category scores of one picture: mask towers, masks, NMS, encoding."""
        watch = Stopwatch()
        geometry = decoded.picture.geometry
        instances = self.postprocessor.run(output, geometry, query, watch)
        timings = {
            "decode": decoded.decode_ms,
            "preprocess": decoded.preprocess_ms,
            "categories": categories_ms,
            **{stage: watch.laps_ms.get(stage, 0.0) for stage in LATER_STAGES},
        }
        return PictureResult(geometry.original_hw, instances, {**timings, "total": sum(timings.values())})

    def segment(self, body: bytes, query: Query | None = None) -> PictureResult:
        """One picture from bytes to instances."""
        return self.segment_decoded(self.decode(body), query or Query())

    def segment_decoded(self, decoded: Decoded, query: Query) -> PictureResult:
        """Network and post-processing of one picture."""
        start = perf_counter()
        output = self.infer([decoded.picture])[0]
        return self.finish(output, decoded, query, (perf_counter() - start) * 1e3)
