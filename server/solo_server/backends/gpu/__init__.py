"""Network and post-processing on an NVIDIA GPU."""
