"""`solo_client.adapters.supervision` against the real supervision: its fields, boxes, filters, annotators."""

from __future__ import annotations

import numpy as np
import supervision
from made_results import LABELS, random_masks, result_of, tiny_masks
from PIL import Image
from solo_client import SoloClient
from solo_client.adapters.supervision import to_detections
from supervision.detection.utils.converters import mask_to_rle, mask_to_xyxy
from support.paths import ASTRONAUT


def test_fields_of_hand_made_masks() -> None:
    detections = to_detections(result_of(tiny_masks()[1:3]))
    assert detections.xyxy.tolist() == [[2, 1, 5, 4], [0, 0, 7, 5]]
    assert detections.class_id is not None
    assert detections.class_id.tolist() == [0, 1]
    assert detections.data["class_name"].tolist() == ["cat", "dog"]
    assert detections.confidence is not None
    np.testing.assert_allclose(detections.confidence, [1, 2 / 3], atol=1e-6)


def test_masks_are_ours_pixel_by_pixel() -> None:
    for masks in (tiny_masks(), random_masks(40, (61, 83), seed=1)):
        detections = to_detections(result_of(masks))
        assert isinstance(detections.mask, np.ndarray)
        assert detections.mask.dtype == np.bool_
        np.testing.assert_array_equal(detections.mask, masks)


def test_boxes_and_areas_are_those_that_supervision_takes_from_the_masks() -> None:
    masks = random_masks(40, (61, 83), seed=2)
    detections = to_detections(result_of(masks))
    np.testing.assert_array_equal(detections.xyxy, mask_to_xyxy(masks, "exclusive"))
    np.testing.assert_array_equal(detections.area, masks.sum((1, 2)))


def test_an_image_without_instances_gives_no_detections() -> None:
    detections = to_detections(result_of(np.zeros((0, 4, 6), np.bool_)))
    assert len(detections) == 0
    assert detections.xyxy.shape == (0, 4)
    assert isinstance(detections.mask, np.ndarray)
    assert detections.mask.shape == (0, 4, 6)
    assert len(supervision.Detections.merge([detections, to_detections(result_of(tiny_masks()))])) == 8


def test_a_mask_without_pixels_is_carried() -> None:
    detections = to_detections(result_of(np.zeros((1, 4, 6), np.bool_)))
    assert detections.xyxy.tolist() == [[0, 0, 0, 0]]
    assert detections.area.tolist() == [0]


def test_supervision_filters_by_class_and_score() -> None:
    detections = to_detections(result_of(random_masks(9, (20, 30), seed=3)))
    assert detections.confidence is not None
    dogs = detections[(detections.data["class_name"] == "dog") & (detections.confidence > 0.5)]
    assert dogs.data["class_name"].tolist() == ["dog", "dog"]
    assert set(detections.data["class_name"]) == set(LABELS)


def test_supervisions_run_lengths_are_ours() -> None:
    result = result_of(random_masks(20, (33, 21), seed=4))
    detections = to_detections(result)
    assert detections.mask is not None
    assert [mask_to_rle(mask, compressed=True) for mask in detections.mask] == [i.mask.counts for i in result.instances]


def test_the_mask_annotator_paints_exactly_the_mask(url: str) -> None:
    with SoloClient(url) as client:
        result = client.segment(ASTRONAUT, score_threshold=0.3)
    image = np.asarray(Image.open(ASTRONAUT))[:, :, ::-1]  # supervision takes BGR
    red = supervision.MaskAnnotator(supervision.Color.RED, opacity=1.0)
    drawn = red.annotate(image.copy(), to_detections(result))
    assert isinstance(drawn, np.ndarray)
    painted = (drawn == [0, 0, 255]).all(2)
    np.testing.assert_array_equal(painted, result.masks()[0] | (image == [0, 0, 255]).all(2))
    np.testing.assert_array_equal(drawn[~painted], image[~painted])
