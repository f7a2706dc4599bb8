"""Engines run the network; each lives in one file together with the only import of its runtime."""
