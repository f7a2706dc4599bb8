"""The runtimes that run ONNX graphs on the CPU."""
