"""The CPU backend: the network in a CPU runtime, its head and post-processing on compiled kernels. The reference for the GPU."""
