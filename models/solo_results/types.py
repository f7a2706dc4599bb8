"""Results as records: the client returns them; drawing and file formats take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from solo_results.errors import NumpyMissing, UnknownCategory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class CocoMask(TypedDict):
    """A mask as `pycocotools.mask.decode` expects it: `size` is `[H, W]` in pixels."""

    size: list[int]
    counts: str


class CocoResult(TypedDict):
    """One entry of a COCO results file, as `COCO.loadRes` reads it.

    `bbox` is left out on purpose: with it, `loadRes` would use the area of the box instead of the mask's, and count the
    result in the wrong size class.
    """

    image_id: int
    category_id: int
    score: float
    segmentation: CocoMask


@dataclass(frozen=True, slots=True)
class RleMask:
    """A mask in COCO's compressed run lengths. size: `(H, W)` in pixels, the same as the image's."""

    size: tuple[int, int]
    counts: str

    def to_coco(self) -> CocoMask:
        """The form that `pycocotools` expects."""
        return {"size": list(self.size), "counts": self.counts}


@dataclass(frozen=True, slots=True)
class Instance:
    """One detected object.

    score: 0..1; box_xywh: left, top, width, height in pixels; area: pixels of the mask; class_id: from 0.
    """

    label: str
    class_id: int
    score: float
    box_xywh: tuple[int, int, int, int]
    area: int
    mask: RleMask

    def mask_array(self) -> NDArray[np.bool_]:
        """The mask: `(H, W) bool`, C order.

        Raises:
            DamagedMask: the run lengths do not fit the mask's size.
            NumpyMissing: numpy is not installed.
        """
        mask: NDArray[np.bool_] = _decode_all(self.mask.size, [self.mask.counts])[0]
        return mask

    def to_dict(self) -> dict[str, object]:
        """The instance in the wire format."""
        return {
            "label": self.label,
            "class_id": self.class_id,
            "score": self.score,
            "box_xywh": list(self.box_xywh),
            "area": self.area,
            "mask": self.mask.to_coco(),
        }


@dataclass(frozen=True, slots=True)
class Result:
    """All objects detected in one image, highest score first.

    width, height: pixels, after EXIF orientation; timings_ms: milliseconds by stage, `total` included.
    """

    width: int
    height: int
    model_name: str
    model_version: str
    timings_ms: Mapping[str, float]
    instances: tuple[Instance, ...]

    def masks(self) -> NDArray[np.bool_]:
        """All masks: `(N, H, W) bool`, C order, in the order of `instances`; `(0, H, W)` without instances.

        Raises:
            DamagedMask: the run lengths of a mask do not fit its size.
            NumpyMissing: numpy is not installed.
        """
        return _decode_all((self.height, self.width), [instance.mask.counts for instance in self.instances])

    def to_coco(self, image_id: int, category_ids: Mapping[str, int] | None = None) -> list[CocoResult]:
        """Entries for a COCO results file.

        category_ids: the id of each label, such as `coco_category_ids(client.model()["classes"])`; None writes class_id + 1,
        which is not COCO's id, since COCO's ids have gaps.

        Raises:
            UnknownCategory: `category_ids` lacks the label of an instance.
        """
        return [
            {
                "image_id": image_id,
                "category_id": _category_id(instance, category_ids),
                "score": instance.score,
                "segmentation": instance.mask.to_coco(),
            }
            for instance in self.instances
        ]

    def to_dict(self) -> dict[str, object]:
        """The result in the wire format, ready for `json.dumps`."""
        return {
            "image": {"width": self.width, "height": self.height},
            "model": {"name": self.model_name, "version": self.model_version},
            "timings_ms": dict(self.timings_ms),
            "instances": [instance.to_dict() for instance in self.instances],
        }


def _decode_all(size: tuple[int, int], counts: list[str]) -> NDArray[np.bool_]:
    """`solo_results.rle.decode_all`; imported here, since the records themselves do not need numpy."""
    try:
        from solo_results.rle import decode_all
    except ImportError as error:
        raise NumpyMissing("masks as arrays need numpy: pip install numpy") from error
    return decode_all(size, counts)


def _category_id(instance: Instance, category_ids: Mapping[str, int] | None) -> int:
    if category_ids is None:
        return instance.class_id + 1
    if instance.label not in category_ids:
        raise UnknownCategory(f"category_ids has no id for the label {instance.label!r}")
    return category_ids[instance.label]
