"""`solo selftest`: compares the GPU path of this machine with the CPU path, and times it."""
