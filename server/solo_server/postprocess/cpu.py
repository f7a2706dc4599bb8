"""Category scores and mask features of one picture to its instances: steps 2 to 7 of the reference, on the CPU.

Contract: mmdet `SOLOHead._predict_by_feat_single`. Every (cell, class) above the candidate threshold is a candidate; masks
not larger than their level's stride are dropped; the score is multiplied by the mean soft value inside the mask
(maskness); the best 500 go through NMS; the rest is a cut and run-length encoding.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from solo_models.bundle import Kernels
from solo_models.spec import ModelSpec, PostprocessSpec

from solo_server.engine.base import PictureOutput
from solo_server.postprocess.masks import SoftMasks
from solo_server.postprocess.nms import pack, suppress
from solo_server.rle import outline_of_soft
from solo_server.types import Candidates, Float32, Geometry, Instance, Int64, MaskedCandidates, Query


class CpuPostprocessor:
    """Post-processing with the kernels of one bundle; holds no state of a picture, safe to use from several threads."""

    def __init__(self, spec: ModelSpec, kernels: Kernels) -> None:
        self._spec, self._kernels = spec, kernels

    def run(self, output: PictureOutput, geometry: Geometry, query: Query) -> tuple[Instance, ...]:
        """Instances best first; none found gives an empty tuple."""
        settings = self._settings(query)
        candidates = find_candidates(output.scores, settings, query.class_ids)
        if len(candidates.cells) == 0:
            return ()
        soft = self.soft_masks(output, geometry)
        found = self.mask_candidates(candidates, soft, settings)
        kept = select(found, settings)
        return self._encode(kept, soft, geometry, settings)

    def soft_masks(self, output: PictureOutput, geometry: Geometry) -> SoftMasks:
        """The picture's masks, made on demand."""
        stride = self._spec.mask_stride
        mask_hw = (geometry.padded_hw[0] // stride, geometry.padded_hw[1] // stride)
        return SoftMasks(self._spec, self._kernels, output.mask_features, mask_hw)

    def mask_candidates(self, candidates: Candidates, soft: SoftMasks, settings: PostprocessSpec) -> MaskedCandidates:
        """Binarise, filter by stride, weight by maskness, take the best. A cell named by several classes is done once."""
        cells, back = np.unique(candidates.cells, return_inverse=True)
        areas, maskness, bits = _measure(cells, soft, settings.mask_threshold)
        strides = np.array(self._spec.strides)[soft.levels(cells)]
        passed = np.flatnonzero((areas > strides)[back])
        scores = candidates.scores[passed] * maskness[back[passed]]
        order = np.argsort(-scores, kind="stable")[: settings.max_before_nms]
        chosen = passed[order]
        rows = back[chosen]
        return MaskedCandidates(
            candidates.cells[chosen], candidates.labels[chosen], scores[order], areas[rows], bits[rows]
        )

    def _settings(self, query: Query) -> PostprocessSpec:
        changes = {
            "score_threshold": query.score_threshold,
            "max_instances": query.max_instances,
            "nms": query.nms,
        }
        return replace(self._spec.postprocess, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[arg-type]  # mixed value types

    def _encode(
        self, kept: MaskedCandidates, soft: SoftMasks, geometry: Geometry, settings: PostprocessSpec
    ) -> tuple[Instance, ...]:
        cells, back = np.unique(kept.cells, return_inverse=True)
        outlines = []
        for first in range(0, len(cells), soft.chunk):
            masks = soft.of(cells[first : first + soft.chunk])
            outlines += [outline_of_soft(m, geometry, self._spec.mask_stride, settings.mask_threshold) for m in masks]
        shapes = [(outline.box_xywh(), outline.area, outline.rle()) for outline in outlines]
        return tuple(
            Instance(int(label), float(score), *shapes[row])
            for label, score, row in zip(kept.labels, kept.scores, back, strict=True)
        )


def find_candidates(scores: Float32, settings: PostprocessSpec, class_ids: tuple[int, ...] | None = None) -> Candidates:
    """Every (cell, class) of `scores` `(cells, C)` above the threshold.

    A category score is an upper bound of the final score, and a mask is only suppressed by better ones: where the caller asks
    for more than the candidate threshold, what lies below cannot matter. Other classes cannot either.
    """
    threshold = max(settings.candidate_threshold, settings.score_threshold)
    above = scores >= threshold if settings.score_threshold > settings.candidate_threshold else scores > threshold
    if class_ids is not None:
        wanted = np.zeros(scores.shape[1], bool)
        wanted[list(class_ids)] = True
        above &= wanted
    cells, labels = np.nonzero(above)
    return Candidates(cells, labels, scores[cells, labels])


def select(found: MaskedCandidates, settings: PostprocessSpec) -> MaskedCandidates:
    """NMS, then those at or above the score threshold, best first, at most `max_instances`."""
    scores = suppress(found, settings)
    order = np.argsort(-scores, kind="stable")
    order = order[(scores[order] >= settings.score_threshold) & (scores[order] > 0)][: settings.max_instances]
    return MaskedCandidates(
        found.cells[order], found.labels[order], scores[order], found.areas[order], found.bits[order]
    )


def _measure(cells: Int64, soft: SoftMasks, threshold: float) -> tuple[Int64, Float32, np.ndarray]:
    """Area, maskness and bits of each cell's mask, in chunks of bounded memory."""
    areas, maskness, bits = [], [], []
    for first in range(0, len(cells), soft.chunk):
        masks = soft.of(cells[first : first + soft.chunk])
        inside = masks > threshold
        area = inside.sum((1, 2), dtype=np.int64)
        total = np.einsum("nhw,nhw->n", masks, inside, dtype=np.float32)
        areas.append(area)
        maskness.append((total / np.maximum(area, 1)).astype(np.float32))
        bits.append(pack(inside))
    return np.concatenate(areas), np.concatenate(maskness), np.concatenate(bits)
