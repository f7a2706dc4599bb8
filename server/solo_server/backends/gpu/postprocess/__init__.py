"""Steps 2 to 7 of the reference on a GPU: kernels, the memory that they work in, and the order of their launches."""
