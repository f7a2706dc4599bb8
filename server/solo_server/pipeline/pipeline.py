"""Bytes to instances: the path that the server, the command line and the benchmarks share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from solo_models.bundle import Bundle, read_bundle

from solo_server.backends.base import Backend
from solo_server.backends.choose import choose
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.replicas import Replicas
from solo_server.backends.stopwatch import IsCancelled, Stopwatch, never
from solo_server.engine_names import GPU_ENGINES
from solo_server.errors import SettingsError
from solo_server.pipeline.image import ImageLimits, decode, decode_draft, peek_size, prepare, size
from solo_server.system.cores import share_of_cores
from solo_server.system.memory import release_unused_memory
from solo_server.types import ImageResult, PreparedImage, Query, UInt8

if TYPE_CHECKING:
    from solo_server.backends.gpu.options import CudaOptions


Body = bytes | UInt8
"""An image as received: the bytes of a file, or RGB pixels `(H, W, 3) uint8`."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image ready for a batch, and how long its stages took in milliseconds.

    rgb: the decoded pixels; of a draft, fewer than the image has.
    """

    image: PreparedImage
    rgb: UInt8
    decode_ms: float
    preprocess_ms: float


class Pipeline:
    """One bundle on one backend. Stages can be called one by one; `segment` runs all of them."""

    def __init__(
        self, bundle: Bundle, backend: Backend, limits: ImageLimits | None = None, engine_reason: str = ""
    ) -> None:
        self.bundle, self.backend, self.engine_reason = bundle, backend, engine_reason
        self._limits = limits or ImageLimits()

    @classmethod
    def open(
        cls,
        bundle: Path,
        *,
        threads: int = 0,
        replicas: int = 1,
        slots: int = 1,
        limits: ImageLimits | None = None,
        engine: str = "auto",
        precision: str | None = None,
        cuda: CudaOptions | None = None,
    ) -> Pipeline:
        """Read a bundle and load it into the engine that `solo_server.backends.choose` picks.

        threads: cores of one inference; 0 divides all of them among the replicas. slots: images at a time in each replica on a CPU;
        0 is the engine's default, for callers with more than one image at a time. On a GPU, `cuda` has the slots.

        Raises:
            BundleError: missing, damaged, or not loadable.
            SettingsError: this bundle cannot run on that engine or in that precision, or it needs a GPU and there is none.
            DeviceFailure: the GPU failed, or has too little memory.
        """
        content = read_bundle(bundle)
        choice = choose(content, engine, precision)
        if replicas > 1 and choice.engine in GPU_ENGINES:
            raise SettingsError(
                f"SOLO_REPLICAS: engine {choice.engine} has SOLO_SLOTS instead, and SOLO_WORKERS for GPUs"
            )
        share = threads or share_of_cores(replicas)
        backends = [choice.open(content, Pool(share), cuda, slots) for _ in range(replicas)]
        backend = backends[0] if replicas == 1 else Replicas(backends)
        release_unused_memory()
        return cls(content, backend, limits, choice.reason)

    def warm_up(self) -> None:
        """Do what is slow only once: compile kernels, and run an empty image of 4:3, since runtimes plan at the first one."""
        rules = self.bundle.spec.preprocess
        height = rules.short_side
        blank = np.zeros((height, min(rules.long_side, height * 4 // 3), 3), np.uint8)
        self.backend.warm_up(prepare(blank, rules))

    def peek_size(self, body: Body) -> int | None:
        """As `pixels`, within microseconds; `None` if that takes longer. Raises ImageTooLarge."""
        hw = peek_size(body, self._limits)
        return None if hw is None else hw[0] * hw[1]

    def pixels(self, body: Body) -> int:
        """The number of pixels that decoding gives, from the header alone; raises what `solo_server.pipeline.image.size` raises."""
        height, width = size(body, self._limits)
        return height * width

    def decode(self, body: Body, *, for_overlay: bool = False) -> Decoded:
        """Decode, resize and pad one image; raises what `solo_server.pipeline.image.decode` raises.

        for_overlay: the image will be drawn on, so it is decoded at full size even where drafts are allowed.
        """
        start = perf_counter()
        rules = self.bundle.spec.preprocess
        if not isinstance(body, bytes):
            rgb, original_hw = body, body.shape[:2]
        elif self._limits.draft and not for_overlay:
            rgb, original_hw = decode_draft(body, self._limits, rules)
        else:
            rgb = decode(body, self._limits)
            original_hw = rgb.shape[:2]
        decoded = perf_counter()
        image = prepare(rgb, rules, original_hw)
        return Decoded(image, rgb, (decoded - start) * 1e3, (perf_counter() - decoded) * 1e3)

    def infer(self, images: Sequence[PreparedImage], queries: Sequence[Query] | None = None) -> Sequence[Any]:
        """Run the backend on images of one padded size; see `Backend.infer`."""
        return self.backend.infer(images, queries or [Query()] * len(images))

    def finish(
        self, output: Any, decoded: Decoded, query: Query, infer_ms: float, is_cancelled: IsCancelled = never
    ) -> ImageResult:
        """Post-process one image (`Backend.finish`) and add up how long all stages took.

        Raises:
            Cancelled: `is_cancelled` became true meanwhile.
        """
        watch = Stopwatch(is_cancelled)
        geometry = decoded.image.geometry
        instances = self.backend.finish(output, geometry, query, watch)
        first, *later = self.backend.stages
        timings = {
            "decode": decoded.decode_ms,
            "preprocess": decoded.preprocess_ms,
            first: infer_ms,
            **{stage: watch.laps_ms.get(stage, 0.0) for stage in later},
        }
        return ImageResult(geometry.original_hw, instances, {**timings, "total": sum(timings.values())})

    def segment(self, body: bytes, query: Query | None = None) -> ImageResult:
        """One image from bytes to instances."""
        return self.segment_decoded(self.decode(body), query or Query())

    def segment_decoded(self, decoded: Decoded, query: Query, is_cancelled: IsCancelled = never) -> ImageResult:
        """Network and post-processing of one image; raises what `finish` raises."""
        start = perf_counter()
        output = self.infer([decoded.image], [query])[0]
        return self.finish(output, decoded, query, (perf_counter() - start) * 1e3, is_cancelled)
