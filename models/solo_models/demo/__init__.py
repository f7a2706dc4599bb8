"""The demo model: a small network that finds people, carried as a bundle beside this file (see MODEL_CARD.md in it)."""

from pathlib import Path


def demo_bundle() -> Path:
    """The folder of the demo bundle. In images it is a link to /bundle, where another may be mounted: whatever lies there."""
    return (Path(__file__).parent / "person").resolve()
