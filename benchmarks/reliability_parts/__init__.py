"""The parts of `benchmarks/reliability.py`: each takes a `Setting` and returns its figures, JSON-ready."""
