"""What is in an image, from one ONNX file and plain ONNX Runtime: python single_file.py MODEL.onnx IMAGE"""

import json
import sys

import cv2
import numpy as np
import onnxruntime as ort

session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
class_names, rule = json.loads(metadata["class_names"]), json.loads(metadata["preprocess"])

image = cv2.cvtColor(cv2.imread(sys.argv[2]), cv2.COLOR_BGR2RGB)
height, width = image.shape[:2]
scale = min(rule["long_side"] / max(height, width), rule["short_side"] / min(height, width))
h, w = (max(1, int(side * scale + 0.5)) for side in (height, width))
padded_h, padded_w = (-(-side // rule["pad_multiple"]) * rule["pad_multiple"] for side in (h, w))
images = np.zeros((1, padded_h, padded_w, 3), np.uint8)
images[0, :h, :w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)

inputs = {"images": images, "image_hw": np.array([[h, w]]), "output_hw": np.array([height, width])}
boxes, scores, labels, masks = session.run(["boxes", "scores", "labels", "masks"], inputs)
for label, score, box, mask in zip(labels, scores, boxes.astype(int).tolist(), masks, strict=True):
    print(f"{class_names[label]} {score:.3f} box {box} area {np.count_nonzero(mask)}")  # noqa: T201
