"""The pipeline as a model of NVIDIA Triton's Python back end: docs/triton.md. `solo export --triton` writes repositories for it."""
