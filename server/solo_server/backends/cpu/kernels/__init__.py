"""Kernels compiled by numba at first use and cached on disk: convolution towers and post-processing.

Every kernel releases the interpreter lock and runs on one core; callers spread pieces over threads (`pool`).
"""
