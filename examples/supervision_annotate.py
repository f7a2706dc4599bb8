"""Draw a server's masks with supervision: python examples/supervision_annotate.py tests/images/astronaut.jpg annotated.png"""

import os
import sys

import supervision as sv
from PIL import Image, ImageOps
from solo_client import SoloClient
from solo_client.adapters.supervision import to_detections

path, annotated = sys.argv[1:]
with SoloClient(os.environ.get("SOLO_URL", "http://127.0.0.1:8000")) as client:
    detections = to_detections(client.segment(path, score_threshold=0.3))

image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")  # masks are those of the upright image
found = zip(detections.data["class_name"], detections.confidence, strict=True)
labels = [f"{name} {score:.2f}" for name, score in found]
image = sv.MaskAnnotator().annotate(image, detections)
sv.LabelAnnotator().annotate(image, detections, labels).save(annotated)
print(f"{annotated}: {', '.join(labels)}")
