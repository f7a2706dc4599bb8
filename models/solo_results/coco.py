"""The ids of COCO's 80 categories in its annotations: 1 to 90, with gaps. COCO's evaluation matches results by them."""

from __future__ import annotations

from collections.abc import Sequence

_NAMES = """person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant||stop sign|parking meter|bench|
bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe||backpack|umbrella|||handbag|tie|suitcase|frisbee|skis|snowboard|
sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|tennis racket|bottle||wine glass|cup|fork|knife|spoon|bowl|
banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|potted plant|bed||dining table|||toilet||tv|
laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|refrigerator||book|clock|vase|scissors|teddy bear|hair drier|
toothbrush""".replace("\n", "").split("|")

COCO_IDS = {name: number for number, name in enumerate(_NAMES, start=1) if name}
"""Category ids by name, as in `instances_val2017.json`."""


def coco_name(label: str) -> str:
    """COCO's name if the label is mmdet's form of one (`traffic_light`); any other label unchanged."""
    spaced = label.replace("_", " ")
    return spaced if spaced in COCO_IDS else label


def coco_category_ids(labels: Sequence[str]) -> dict[str, int] | None:
    """COCO's ids of a model's labels; None unless all labels are COCO's and none occurs twice.

    All or none, since `class_id + 1` of one label can be the COCO id of another.
    """
    ids = {label: COCO_IDS.get(coco_name(label), 0) for label in labels}
    return ids if len(set(ids.values()) - {0}) == len(labels) else None
