"""Masks through Roboflow's SDK, exact and with their holes.

pip install inference-sdk; python examples/roboflow_sdk.py http://127.0.0.1:8000/roboflow photo.jpg
"""

import sys

import supervision as sv
from inference_sdk import InferenceConfiguration, InferenceHTTPClient

client = InferenceHTTPClient(api_url=sys.argv[1], api_key="a key, where the server asks for one")
client.configure(InferenceConfiguration(confidence_threshold=0.3, api_key_transport="header"))
detections = sv.Detections.from_inference(client.infer(sys.argv[2], model_id="demo-person"))
for box, name, score, mask in zip(
    detections.xyxy, detections["class_name"], detections.confidence, detections.mask, strict=True
):
    sys.stdout.write(f"{name} {score:.2f}: {mask.sum()} pixels within {box.astype(int).tolist()}\n")
