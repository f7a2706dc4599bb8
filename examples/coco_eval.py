"""Mask AP of a server's model: python examples/coco_eval.py ANNOTATIONS.json IMAGES/"""

import os
import sys
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from solo_client import SoloClient, coco_category_ids

annotations, images = sys.argv[1:]
truth, results = COCO(annotations), []
with SoloClient(os.environ.get("SOLO_URL", "http://127.0.0.1:8000")) as client:
    ids = coco_category_ids(client.model()["classes"])  # None if they are not COCO's: class_id + 1
    for image in truth.dataset["images"]:
        results += client.segment(Path(images, image["file_name"])).to_coco(image["id"], ids)

evaluation = COCOeval(truth, truth.loadRes(results), "segm")
evaluation.evaluate()
evaluation.accumulate()
evaluation.summarize()
