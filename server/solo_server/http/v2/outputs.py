"""The outputs of a model as tensors: the table of outputs, and how each is made from the results of the images.

Images have different numbers of instances. Outputs per instance are therefore concatenated in the order of the images, M instances
in total; NUM_INSTANCES has the number for each of the N images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from solo_results.rle import decode_rle

from solo_server.errors import InvalidQuery
from solo_server.http.v2.tensors import OutputTensor, Values
from solo_server.types import ImageResult, Instance, UInt8

if TYPE_CHECKING:
    from collections.abc import Iterable

JSON_BYTES_A_NUMBER = 4
"""A value of a mask in JSON takes at most this: `255,`."""


@dataclass(frozen=True, slots=True)
class InferResults:
    """Results of the images of one request, N >= 1. class_names: of the model."""

    results: Sequence[ImageResult]
    class_names: Sequence[str]

    @property
    def instances(self) -> list[Instance]:
        """The instances of all images, M in total."""
        return [instance for result in self.results for instance in result.instances]

    def common_size(self, output: str) -> tuple[int, int]:
        """Rows and columns that all images have. output: name of the output that needs one size.

        Raises:
            InvalidQuery: the sizes differ.
        """
        sizes = {result.original_hw for result in self.results}
        if len(sizes) > 1:
            raise InvalidQuery(
                f"outputs: {output} needs images of the same size; request RLE, or send one image at a time"
            )
        return next(iter(sizes))


@dataclass(frozen=True, slots=True)
class Output:
    """An output of every model. shape: -1 where it depends on the images; is_mask: masks as arrays, made only on request."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    make: Callable[[InferResults], Values]
    is_mask: bool = False


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that a request asks for. is_binary: whether it follows the JSON part of the answer."""

    output: Output
    is_binary: bool


def make_tensors(requested: Iterable[RequestedOutput], results: InferResults) -> list[OutputTensor]:
    """The tensors of an answer. Raises InvalidQuery: see `InferResults.common_size`."""
    return [OutputTensor(each.output.name, each.output.make(results), each.is_binary) for each in requested]


def mask_bytes(requested: Iterable[RequestedOutput], results: InferResults) -> int:
    """Bytes of the masks as arrays in an answer, 0 if none are requested. Raises InvalidQuery as `make_tensors` does."""
    size_bytes = 0
    for each in requested:
        if each.output.is_mask:
            height, width = results.common_size(each.output.name)
            row_bytes = width if each.output is MASKS else _packed(width)
            size_bytes += len(results.instances) * height * row_bytes * (1 if each.is_binary else JSON_BYTES_A_NUMBER)
    return size_bytes


def _num_instances(results: InferResults) -> Values:
    return np.array([len(result.instances) for result in results.results], np.int32)


def _boxes(results: InferResults) -> Values:
    return np.array([instance.box_xywh for instance in results.instances], np.float32).reshape(-1, 4)


def _scores(results: InferResults) -> Values:
    return np.array([instance.score for instance in results.instances], np.float32)


def _labels(results: InferResults) -> Values:
    return np.array([instance.class_id for instance in results.instances], np.int32)


def _label_names(results: InferResults) -> Values:
    return [results.class_names[instance.class_id].encode() for instance in results.instances]


def _areas(results: InferResults) -> Values:
    return np.array([instance.area for instance in results.instances], np.int32)


def _sizes(results: InferResults) -> Values:
    return np.array([result.original_hw for result in results.results], np.int32)


def _rle(results: InferResults) -> Values:
    return [instance.mask.counts.encode("ascii") for instance in results.instances]


def _masks(results: InferResults) -> UInt8:
    height, width = results.common_size(MASKS.name)
    masks = np.empty((len(results.instances), height, width), np.uint8)
    for mask, instance in zip(masks, results.instances, strict=True):
        mask[:] = decode_rle(instance.mask)
    return masks


def _packed_masks(results: InferResults) -> UInt8:
    height, width = results.common_size(PACKED_MASKS.name)
    masks = np.empty((len(results.instances), height, _packed(width)), np.uint8)
    for mask, instance in zip(masks, results.instances, strict=True):
        mask[:] = np.packbits(decode_rle(instance.mask), axis=1)
    return masks


def _packed(width: int) -> int:
    """Bytes of a row with one bit a pixel."""
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
