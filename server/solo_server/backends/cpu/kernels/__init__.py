"""Kernels compiled by numba at first use and cached on disk: convolutions, masks, NMS, RLE, the resize of images.

Every kernel releases the interpreter lock and runs on one core; callers (`cpu/towers.py`, `cpu/masks.py`) use several threads.
"""
