"""The Open Inference Protocol v2 over HTTP with Triton's binary tensors; Triton's clients work unchanged: docs/v2.md."""
