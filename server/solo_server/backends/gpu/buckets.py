"""Which padded sizes a network on a GPU accepts: ranges of sizes, called buckets.

    exact sizes that were requested, then landscape, then portrait

Landscape and portrait together hold every padded size that images of this network can have. An exact size lies in one of them;
TensorRT is faster on it, since it chooses kernels for that size alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from solo_models.sizes import Size, size_text
from solo_models.spec import ModelSpec

from solo_server.backends.gpu.network import BatchShape
from solo_server.errors import SettingsError

USUAL_ASPECT = 4 / 3


@dataclass(frozen=True, slots=True)
class Bucket:
    """A range of padded sizes `(height, width)`, each side on its own, and the size that it is optimised for."""

    smallest_hw: Size
    usual_hw: Size
    largest_hw: Size

    def holds(self, padded_hw: Size) -> bool:
        """Whether a padded size lies within."""
        sides = zip(self.smallest_hw, padded_hw, self.largest_hw, strict=True)
        return all(low <= side <= high for low, side, high in sides)


def buckets_of(spec: ModelSpec, exact: tuple[Size, ...] = ()) -> tuple[Bucket, ...]:
    """All buckets of a network. exact: padded sizes `(height, width)` that get a bucket of their own.

    Raises:
        SettingsError: no image of this network can have one of the exact sizes.
    """
    ranges = _ranges(spec)
    for height, width in exact:
        _check_exact(spec, ranges, (height, width))
    fixed = tuple(Bucket(size, size, size) for size in dict.fromkeys(exact))
    return (*fixed, *ranges)


def largest_shapes(buckets: tuple[Bucket, ...], max_batch: int) -> tuple[BatchShape, ...]:
    """The largest batch of every bucket."""
    return tuple(BatchShape(max_batch, bucket.largest_hw) for bucket in buckets)


def _ranges(spec: ModelSpec) -> tuple[Bucket, ...]:
    """Landscape and portrait, or one bucket where the long and the short side are equal."""
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
