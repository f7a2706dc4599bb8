"""The machine: what its processor can do."""
