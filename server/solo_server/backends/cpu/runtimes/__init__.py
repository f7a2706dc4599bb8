"""Runtimes that run ONNX graphs on the CPU; each file holds the only import of its runtime."""
