"""Print the folder of a bundle whose random masks have many parts and holes. Runs where the exporter is installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.bundles import tiny_bundle

sys.stdout.write(f"{tiny_bundle('solo')}\n")
