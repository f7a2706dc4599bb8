"""From category scores and mask features of one image to its instances: steps 2 to 7 of the reference, on the CPU.

    find_candidates ─► masks, measure: stride filter, maskness, best 500 ─► select: NMS, score threshold ─► encode_mask

As mmdet `SOLOHead._predict_by_feat_single`. Every (cell, class) above the candidate threshold is a candidate. Masks with an area
not larger than their level's stride are dropped. The score is multiplied by the mean soft value inside the mask (maskness). The
best `max_before_nms` (500) go through NMS, those at or above the score threshold are encoded.
"""

from __future__ import annotations

import numpy as np
from solo_models.bundle import Kernels
from solo_models.spec import ModelSpec, PostprocessSpec

from solo_server.backends.cpu.encode import EncodedMask, encode_mask
from solo_server.backends.cpu.engine import ImageOutput
from solo_server.backends.cpu.kernels.nms import find_above, greedy_keep, matrix_decay, pairwise_ious
from solo_server.backends.cpu.masks import CellMasks
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.stopwatch import Stopwatch
from solo_server.types import (
    Candidates,
    Float32,
    Geometry,
    Instance,
    Int64,
    MaskedCandidates,
    Query,
    SoftMask,
    apply_query,
)


class CpuPostprocessor:
    """Post-processing with the kernels of one bundle. Keeps no state of an image; safe to use from several threads."""

    def __init__(self, spec: ModelSpec, kernels: Kernels, pool: Pool) -> None:
        self._spec, self._kernels, self._pool = spec, kernels, pool

    def run(self, output: ImageOutput, geometry: Geometry, query: Query, watch: Stopwatch) -> tuple[Instance, ...]:
        """Instances, best first; an empty tuple if there are none. Stages: towers, masks (candidates included), nms, encode.

        Raises:
            Cancelled: the image was cancelled; checked after each stage and before each instance is encoded.
        """
        settings = apply_query(self._spec.postprocess, query)
        candidates = find_candidates(output.scores, settings, query.class_ids)
        watch.lap("masks")
        if len(candidates.cells) == 0:
            return ()
        masks = self.masks(candidates, output, geometry, settings)
        watch.lap("towers")
        measured = self.measure(candidates, masks, settings)
        watch.lap("masks")
        kept = select(measured, settings)
        watch.lap("nms")
        instances = self._encode(kept, masks, geometry, settings, watch)
        watch.lap("encode")
        return instances

    def masks(
        self, candidates: Candidates, output: ImageOutput, geometry: Geometry, settings: PostprocessSpec
    ) -> CellMasks:
        """The image's masks, computed on demand, from the mask features of the levels that have candidates."""
        levels = np.unique(self._level_of(candidates.cells)).tolist()
        features = dict(zip(levels, output.mask_features(levels), strict=True))
        stride = self._spec.mask_stride
        mask_hw = (geometry.padded_hw[0] // stride, geometry.padded_hw[1] // stride)
        return CellMasks((self._spec, self._kernels), features, mask_hw, settings.mask_threshold, self._pool)

    def measure(self, candidates: Candidates, masks: CellMasks, settings: PostprocessSpec) -> MaskedCandidates:
        """Binarise, filter by stride, weight by maskness, take the best. A cell with several classes is measured once."""
        cells, back = np.unique(candidates.cells, return_inverse=True)
        measures = masks.measure(cells)
        strides = np.array(self._spec.strides)[self._level_of(cells)]
        passed = np.flatnonzero((measures.areas > strides)[back])
        scores = candidates.scores[passed] * measures.maskness[back[passed]]
        order = np.argsort(-scores, kind="stable")[: settings.max_before_nms]
        chosen = passed[order]
        rows = back[chosen]
        return MaskedCandidates(
            candidates.cells[chosen],
            candidates.labels[chosen],
            scores[order],
            measures.areas[rows],
            measures.bits[rows],
            measures.boxes[rows],
        )

    def _level_of(self, cells: Int64) -> Int64:
        return np.searchsorted(self._spec.first_cells, cells, side="right") - 1

    def _encode(
        self,
        kept: MaskedCandidates,
        masks: CellMasks,
        geometry: Geometry,
        settings: PostprocessSpec,
        watch: Stopwatch,
    ) -> tuple[Instance, ...]:
        cells, back = np.unique(kept.cells, return_inverse=True)
        stride, threshold = self._spec.mask_stride, settings.mask_threshold

        def encode_one(mask: SoftMask | None) -> EncodedMask:
            watch.check()
            return encode_mask(mask, geometry, stride, threshold)

        encoded = masks.each(cells, encode_one)
        return tuple(
            Instance(int(label), float(score), encoded[row].box_xywh, encoded[row].area, encoded[row].rle)
            for label, score, row in zip(kept.labels, kept.scores, back, strict=True)
        )


def find_candidates(scores: Float32, settings: PostprocessSpec, class_ids: tuple[int, ...] | None = None) -> Candidates:
    """Every (cell, class) of `scores` `(cells, C)` above the candidate threshold, or at the score threshold where that is higher.

    A category score is an upper bound of the final score, and a mask is suppressed only by better masks of its class. So candidates
    below the score threshold, or of classes that are not requested, cannot change the result.
    """
    threshold = max(settings.candidate_threshold, settings.score_threshold)
    requested = np.full(scores.shape[1], class_ids is None)
    requested[list(class_ids or ())] = True
    or_equal = settings.score_threshold > settings.candidate_threshold
    cells, labels = find_above(scores, np.float32(threshold), or_equal, requested)
    return Candidates(cells, labels, scores[cells, labels])


def select(candidates: MaskedCandidates, settings: PostprocessSpec) -> MaskedCandidates:
    """NMS, then the candidates at or above the score threshold, best first, at most `max_instances`."""
    scores = suppress(candidates, settings)
    order = np.argsort(-scores, kind="stable")
    order = order[(scores[order] >= settings.score_threshold) & (scores[order] > 0)][: settings.max_instances]
    return MaskedCandidates(
        candidates.cells[order],
        candidates.labels[order],
        scores[order],
        candidates.areas[order],
        candidates.bits[order],
        candidates.boxes[order],
    )


def suppress(candidates: MaskedCandidates, settings: PostprocessSpec) -> Float32:
    """Scores `(n,) float32` after NMS, of candidates in order of score. Suppressed scores are 0 (mask NMS) or decayed (matrix NMS).

    Matrix NMS is the reference's; greedy mask NMS is what the paper calls NMS. Only a better mask of the same label suppresses.
    """
    if settings.nms == "none":
        return candidates.scores.copy()
    ious = pairwise_ious(candidates.bits, candidates.boxes, candidates.areas, candidates.labels)
    if settings.nms == "mask":
        factors: Float32 = greedy_keep(ious, np.float32(settings.nms_iou_threshold))
    else:
        factors = matrix_decay(ious, settings.decay_kernel == "gaussian", settings.sigma)
    return candidates.scores * factors
