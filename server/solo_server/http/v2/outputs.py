"""What a model answers, as tensors: the table of outputs, and how each is made of the images' results.

Images have different numbers of instances, so everything about instances is one long list in the images' order, M in all;
NUM_INSTANCES says how many belong to each of the N images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from solo_server.errors import InvalidQuery
from solo_server.http.v2.tensors import OutputTensor, Values
from solo_server.rle import decode_rle
from solo_server.types import ImageResult, Instance, UInt8

if TYPE_CHECKING:
    from collections.abc import Iterable

JSON_BYTES_A_NUMBER = 4
"""`255,`: what a mask's number can take in JSON."""


@dataclass(frozen=True, slots=True)
class Found:
    """Results of a request's images, N >= 1. class_names: of the model."""

    results: Sequence[ImageResult]
    class_names: Sequence[str]

    @property
    def instances(self) -> list[Instance]:
        """Of all images, M in all."""
        return [instance for result in self.results for instance in result.instances]

    def common_size(self, output: str) -> tuple[int, int]:
        """Rows and columns of all images. output: that needs it.

        Raises:
            InvalidQuery: they differ.
        """
        sizes = {result.original_hw for result in self.results}
        if len(sizes) > 1:
            raise InvalidQuery(f"outputs: {output} needs images of one size; ask for RLE, or send them one by one")
        return next(iter(sizes))


@dataclass(frozen=True, slots=True)
class Output:
    """One output that can be asked for. shape: -1 where it depends on the images; is_mask: only made where it is asked for."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    make: Callable[[Found], Values]
    is_mask: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that a request asks for. is_binary: behind the JSON part of the answer."""

    output: Output
    is_binary: bool


def make(wanted: Iterable[Wanted], found: Found) -> list[OutputTensor]:
    """The tensors of an answer. Raises InvalidQuery: see `Found.common_size`."""
    return [OutputTensor(one.output.name, one.output.make(found), one.is_binary) for one in wanted]


def mask_bytes(wanted: Iterable[Wanted], found: Found) -> int:
    """Memory that masks as arrays will take, of the answer; 0 where none are wanted. Raises InvalidQuery as `make` does."""
    size_bytes = 0
    for one in wanted:
        if one.output.is_mask:
            height, width = found.common_size(one.output.name)
            across = width if one.output is MASKS else _packed(width)
            size_bytes += len(found.instances) * height * across * (1 if one.is_binary else JSON_BYTES_A_NUMBER)
    return size_bytes


def _num_instances(found: Found) -> Values:
    return np.array([len(result.instances) for result in found.results], np.int32)


def _boxes(found: Found) -> Values:
    return np.array([instance.box_xywh for instance in found.instances], np.float32).reshape(-1, 4)


def _scores(found: Found) -> Values:
    return np.array([instance.score for instance in found.instances], np.float32)


def _labels(found: Found) -> Values:
    return np.array([instance.class_id for instance in found.instances], np.int32)


def _label_names(found: Found) -> Values:
    return [found.class_names[instance.class_id].encode() for instance in found.instances]


def _areas(found: Found) -> Values:
    return np.array([instance.area for instance in found.instances], np.int32)


def _sizes(found: Found) -> Values:
    return np.array([result.original_hw for result in found.results], np.int32)


def _rle(found: Found) -> Values:
    return [instance.mask.counts.encode("ascii") for instance in found.instances]


def _masks(found: Found) -> UInt8:
    height, width = found.common_size(MASKS.name)
    masks = np.empty((len(found.instances), height, width), np.uint8)
    for mask, instance in zip(masks, found.instances, strict=True):
        mask[:] = decode_rle(instance.mask)
    return masks


def _packed_masks(found: Found) -> UInt8:
    height, width = found.common_size(PACKED_MASKS.name)
    masks = np.empty((len(found.instances), height, _packed(width)), np.uint8)
    for mask, instance in zip(masks, found.instances, strict=True):
        mask[:] = np.packbits(decode_rle(instance.mask), axis=1)
    return masks


def _packed(width: int) -> int:
    """Bytes of a row whose pixels are bits."""
    return -(-width // 8)


MASKS = Output("MASKS", "UINT8", (-1, -1, -1), _masks, is_mask=True)
PACKED_MASKS = Output("PACKED_MASKS", "UINT8", (-1, -1, -1), _packed_masks, is_mask=True)
OUTPUTS = {
    output.name: output
    for output in (
        Output("NUM_INSTANCES", "INT32", (-1,), _num_instances),
        Output("SIZES", "INT32", (-1, 2), _sizes),
        Output("BOXES", "FP32", (-1, 4), _boxes),
        Output("SCORES", "FP32", (-1,), _scores),
        Output("LABELS", "INT32", (-1,), _labels),
        Output("LABEL_NAMES", "BYTES", (-1,), _label_names),
        Output("AREAS", "INT32", (-1,), _areas),
        Output("RLE", "BYTES", (-1,), _rle),
        MASKS,
        PACKED_MASKS,
    )
}
