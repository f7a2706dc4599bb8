"""Make, or find, the bundle of a random network for the tests of this folder, and print its path. Runs where torch is."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.bundles import tiny_bundle

sys.stdout.write(f"{tiny_bundle('solo')}\n")
