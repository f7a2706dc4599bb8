"""`solo selftest`: whether the GPU path computes here what the CPU path computes, and how long it takes."""
