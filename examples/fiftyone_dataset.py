"""A FiftyOne dataset with a server's masks, exported as COCO: python examples/fiftyone_dataset.py EXPORT tests/images/*.jpg"""

import os
import sys

import fiftyone as fo
from solo_client import SoloClient
from solo_client.adapters.fiftyone import to_detections

export, *paths = sys.argv[1:]
samples = [fo.Sample(filepath=path) for path in paths]
with SoloClient(os.environ.get("SOLO_URL", "http://127.0.0.1:8000")) as client:
    for sample in samples:
        sample["solo"] = to_detections(client.segment(sample.filepath, score_threshold=0.3))

dataset = fo.Dataset()  # fo.launch_app(dataset) shows it
dataset.add_samples(samples)
dataset.export(export_dir=export, dataset_type=fo.types.COCODetectionDataset, label_field="solo")
for sample in samples:
    found = [f"{d.label} {d.confidence:.2f}" for d in sample["solo"].detections]
    print(f"{sample.filename}: {', '.join(found)}")
