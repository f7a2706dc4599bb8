"""The parts of `benchmarks/reliability.py`: each takes a `RunOptions` and returns its figures, JSON-ready."""
