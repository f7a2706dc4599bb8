"""Optimisation profiles of the two TensorRT engines of a bundle, in this order:

categories.onnx: one profile a bucket
masks.onnx: one profile a bucket and group of levels, group by group: `bucket * groups + group`
"""

from __future__ import annotations

from dataclasses import dataclass

from solo_models.bundle import CATEGORIES, MASKS
from solo_models.engine_file import Profile, ShapeRange
from solo_models.sizes import Size
from solo_models.spec import ModelSpec

from solo_server.backends.gpu.buckets import Bucket, buckets_of
from solo_server.backends.gpu.network import CHANNELS, Group, level_groups
from solo_server.backends.gpu.options import MAX_BATCH
from solo_server.errors import SettingsError


@dataclass(frozen=True, slots=True)
class EngineProfiles:
    """All profiles of a bundle's two engines, in the order of the module's docstring."""

    spec: ModelSpec
    max_batch: int
    buckets: tuple[Bucket, ...]

    @property
    def categories(self) -> tuple[Profile, ...]:
        """Of categories.onnx: `images (N, H, W, 3)` and `image_hw (N, 2)`."""
        return tuple(self._images(bucket) for bucket in self.buckets)

    @property
    def masks(self) -> tuple[Profile, ...]:
        """Of masks.onnx: `level (levels of the group * N, fpn_channels, h, w)`."""
        return tuple(self._levels(bucket, group) for bucket in self.buckets for group in level_groups(self.spec))

    def of_graph(self, graph: str) -> tuple[Profile, ...]:
        """By the graph's file name."""
        return {CATEGORIES: self.categories, MASKS: self.masks}[graph]

    def _images(self, bucket: Bucket) -> Profile:
        images = ((n, *hw, CHANNELS) for n, hw in self._batches(bucket))
        return {"images": ShapeRange(*images), "image_hw": ShapeRange(*((n, 2) for n, _ in self._batches(bucket)))}

    def _levels(self, bucket: Bucket, group: Group) -> Profile:
        count, channels = len(group.levels), self.spec.fpn_channels
        shapes = ((count * n, channels, h // group.stride, w // group.stride) for n, (h, w) in self._batches(bucket))
        return {"level": ShapeRange(*shapes)}

    def _batches(self, bucket: Bucket) -> tuple[tuple[int, Size], ...]:
        """Smallest, usual and largest: the number of images and their padded size."""
        return (1, bucket.smallest_hw), (self.max_batch, bucket.usual_hw), (self.max_batch, bucket.largest_hw)


def engine_profiles(spec: ModelSpec, max_batch: int = MAX_BATCH, exact: tuple[Size, ...] = ()) -> EngineProfiles:
    """Profiles for 1 to `max_batch` images. exact: padded sizes `(height, width)` that get a profile of their own.

    Raises:
        SettingsError: no image of this network can have one of the exact sizes, or `max_batch` is below 1.
    """
    if max_batch < 1:
        raise SettingsError(f"max batch: {max_batch} is below 1")
    return EngineProfiles(spec, max_batch, buckets_of(spec, exact))
