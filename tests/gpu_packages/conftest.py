"""Tests that need NVIDIA's packages, but no GPU and nothing else of the development environment: run by `make test-gpu-code`.

python -m pytest --confcutdir=tests/gpu_packages tests/gpu_packages
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
