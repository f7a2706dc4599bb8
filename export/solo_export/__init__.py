"""From a trained checkpoint to a verified bundle; the only package that needs torch and onnx."""
