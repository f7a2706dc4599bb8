"""Puts the bundles that these tests serve into a folder, in the environment that has torch: `make test-ray` calls it first.

python make_bundles.py FOLDER      # FOLDER/solo, FOLDER/decoupled
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from support.bundles import tiny_bundle

for variant in ("solo", "decoupled"):
    shutil.copytree(tiny_bundle(variant), Path(sys.argv[1], variant), dirs_exist_ok=True)
