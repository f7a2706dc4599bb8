"""Overlays: a result drawn by `solo_results.draw`, in PNG. For people; programs use the RLE."""

from __future__ import annotations

import logging
from functools import lru_cache

from solo_results import types as results
from solo_results.draw import ColourBy, as_png, draw
from solo_results.labels import LONGEST, readable

from solo_server.types import Instance, UInt8

LOG = logging.getLogger("solo_server")


def draw_png(
    rgb: UInt8,
    instances: tuple[Instance, ...],
    class_names: tuple[str, ...],
    below: float = 0.0,
    colour_by: ColourBy = "instance",
) -> bytes:
    """The image `(H, W, 3) uint8` with its instances, in PNG; see `solo_results.draw.draw`.

    Classes whose names no font can draw are logged once for a model.
    """
    _log_unreadable(class_names)
    return as_png(draw(rgb, [_record(instance, class_names) for instance in instances], colour_by, below))


def not_drawn(instances: tuple[Instance, ...], below: float) -> int:
    """How many instances `draw_png` leaves out for their score."""
    return sum(instance.score < below for instance in instances)


def _record(instance: Instance, class_names: tuple[str, ...]) -> results.Instance:
    mask = results.RleMask(instance.mask.size, instance.mask.counts)
    label = class_names[instance.class_id]
    return results.Instance(label, instance.class_id, instance.score, instance.box_xywh, instance.area, mask)


@lru_cache(maxsize=64)
def _log_unreadable(class_names: tuple[str, ...]) -> None:
    replaced = [(i, name) for i, name in enumerate(class_names) if readable(name, i) == f"#{i}" != name]
    if replaced:
        some = ", ".join(f"#{i} {name[:LONGEST]!r}" for i, name in replaced[:5]) + (
            ", ..." if len(replaced) > 5 else ""
        )
        LOG.warning(
            "overlays show %d of %d classes by their ids, because no bundled font can draw their names: %s",
            len(replaced), len(class_names), some,
        )  # fmt: skip
