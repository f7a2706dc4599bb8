"""The network and the post-processing on an NVIDIA GPU."""
