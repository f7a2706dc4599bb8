"""Which shapes the two TensorRT engines of a bundle are optimised for.

    buckets: exact sizes that were asked for, then landscape, then portrait
    categories.onnx: one profile a bucket
    masks.onnx: one profile a bucket and group of levels, group by group: `bucket * groups + group`

Landscape and portrait together hold every padded size that images of this network can have; an exact size lies in one of them
and is quicker there, since TensorRT looks for kernels that suit it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from solo_models.bundle import CATEGORIES, MASKS
from solo_models.engine_file import Profile, ShapeRange
from solo_models.sizes import Size, size_text
from solo_models.spec import ModelSpec

from solo_server.backends.gpu.network import CHANNELS, Group, level_groups
from solo_server.errors import SettingsError

MAX_BATCH = 8
USUAL_ASPECT = 4 / 3


@dataclass(frozen=True, slots=True)
class Bucket:
    """Padded sizes `(height, width)` that one profile takes, side by side, and the one that it is made for."""

    smallest_hw: Size
    usual_hw: Size
    largest_hw: Size

    def holds(self, padded_hw: Size) -> bool:
        """Whether a padded size lies within."""
        sides = zip(self.smallest_hw, padded_hw, self.largest_hw, strict=True)
        return all(low <= side <= high for low, side, high in sides)


@dataclass(frozen=True, slots=True)
class EngineProfiles:
    """All profiles of a bundle's two engines. See the module's text for their order."""

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
        """Smallest, usual and largest: images and their padded size."""
        return (1, bucket.smallest_hw), (self.max_batch, bucket.usual_hw), (self.max_batch, bucket.largest_hw)


def engine_profiles(spec: ModelSpec, max_batch: int = MAX_BATCH, exact: tuple[Size, ...] = ()) -> EngineProfiles:
    """Profiles for 1 to `max_batch` images. exact: padded sizes `(height, width)` that get a profile of their own.

    Raises:
        SettingsError: an exact size is none that images of this network can have, or `max_batch` is below 1.
    """
    if max_batch < 1:
        raise SettingsError(f"max batch: {max_batch} is below 1")
    ranges = _ranges(spec)
    for height, width in exact:
        _check_exact(spec, ranges, (height, width))
    fixed = tuple(Bucket(size, size, size) for size in dict.fromkeys(exact))
    return EngineProfiles(spec, max_batch, (*fixed, *ranges))


def _ranges(spec: ModelSpec) -> tuple[Bucket, ...]:
    """Landscape and portrait, or one where long and short side are the same."""
    sizes = spec.preprocess
    smallest = (sizes.pad_multiple, sizes.pad_multiple)
    short, long = (_padded(spec, side) for side in (sizes.short_side, sizes.long_side))
    usual = min(long, _padded(spec, int(sizes.short_side * USUAL_ASPECT + 0.5)))
    landscape = Bucket(smallest, (short, usual), (short, long))
    portrait = Bucket(smallest, (usual, short), (long, short))
    return (landscape,) if landscape == portrait else (landscape, portrait)


def _padded(spec: ModelSpec, side: int) -> int:
    multiple = spec.preprocess.pad_multiple
    return -(-side // multiple) * multiple


def _check_exact(spec: ModelSpec, ranges: tuple[Bucket, ...], size: Size) -> None:
    multiple = spec.preprocess.pad_multiple
    name = f"shapes: {size_text(size)}"
    if any(side % multiple for side in size):
        raise SettingsError(f"{name}: both must be multiples of {multiple}")
    if not any(bucket.holds(size) for bucket in ranges):
        raise SettingsError(f"{name}: this network's padded input is at most {size_text(ranges[0].largest_hw)}")
