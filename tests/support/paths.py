"""Where tests find the repository and its data."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "tests" / "images"
ASTRONAUT = IMAGES / "astronaut.jpg"
EXPORTER = (
    ROOT / "export" / "solo_export",
    ROOT / "models" / "solo_models",
    ROOT / "tests" / "support" / "networks.py",
    ROOT / "tests" / "support" / "specs.py",
)
"""What a bundle of a tiny network depends on."""
