"""Instances drawn onto their picture: tinted masks, outlines, labels. For people; programs take the RLE."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from solo_server.rle import decode_rle
from solo_server.types import Instance, UInt8

GOLDEN_ANGLE = 0.381966  # steps of hue that stay far apart however many there are


def draw_png(rgb: UInt8, instances: tuple[Instance, ...], class_names: tuple[str, ...]) -> bytes:
    """The picture `(H, W, 3) uint8` with its instances, as PNG; the best is drawn last, on top."""
    canvas = rgb.copy()
    for rank, instance in reversed(list(enumerate(instances))):
        _draw_mask(canvas, decode_rle(instance.mask), _colour(rank))
    for rank, instance in reversed(list(enumerate(instances))):
        _draw_label(canvas, instance, f"{class_names[instance.class_id]} {instance.score:.2f}", _colour(rank))
    return _encode_png(canvas)


def _encode_png(rgb: UInt8) -> bytes:
    """The picture as PNG."""
    done, encoded = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise ValueError("the picture cannot be encoded as PNG")
    return encoded.tobytes()


def _draw_mask(canvas: UInt8, mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
    canvas[mask] = (canvas[mask] * 0.5 + np.array(colour) * 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(canvas, contours, -1, colour, max(1, round(min(mask.shape) / 300)), cv2.LINE_AA)


def _draw_label(canvas: UInt8, instance: Instance, text: str, colour: tuple[int, int, int]) -> None:
    scale = max(0.35, min(canvas.shape[:2]) / 1000)
    thickness = max(1, round(scale * 1.6))
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    x, y = instance.box_xywh[0], max(instance.box_xywh[1], height + below)
    x = max(0, min(x, canvas.shape[1] - width))
    cv2.rectangle(canvas, (x, y - height - below), (x + width, y), colour, cv2.FILLED)
    cv2.putText(canvas, text, (x, y - below // 2), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), thickness, cv2.LINE_AA)


def _colour(rank: int) -> tuple[int, int, int]:
    hue = (rank * GOLDEN_ANGLE) % 1 * 179
    pixel = cv2.cvtColor(np.array([[[hue, 190, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(pixel[0]), int(pixel[1]), int(pixel[2])
