"""SOLO: what a network is, the network in PyTorch, and the bundle on disk."""
