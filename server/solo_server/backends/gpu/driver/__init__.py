"""A CUDA device as this server needs it: memory, streams, events, graphs, kernels."""
