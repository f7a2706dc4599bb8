"""The routes that Roboflow's `inference_sdk` calls for instance segmentation, below `/roboflow`: docs/roboflow.md."""
