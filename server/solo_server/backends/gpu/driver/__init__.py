"""A CUDA device: memory, streams, events, graphs, kernels."""
