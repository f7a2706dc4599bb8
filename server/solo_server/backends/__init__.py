"""Backends run the network and its post-processing, on a CPU (`cpu`) or on a GPU (`gpu`); `choose` picks the engine."""
