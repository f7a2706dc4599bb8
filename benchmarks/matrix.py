"""The networks for which parity with stock mmdet is measured, and the generation of their fixtures.

    python benchmarks/matrix.py --fixtures FOLDER --reference PYTHON --tool make_fixture.py --photos FOLDER

PYTHON is the interpreter of an environment with stock mmdet 3.3.0. The tool writes seeded random weights in both published layouts,
and mmdet's results for one image. Existing fixtures are kept.

A fixture is useful only if its result does not depend on rounding (with two nearly equal scores NMS may keep the other mask).
`reference_rounding.py` checks that with the reference. A row's seed is one from 20260101 on that passes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

STANDARD = (40, 36, 24, 16, 12)
UNEVEN = (30, 26, 20, 13, 9)
ROUNDING_ALLOWED = 6e-4  # of a score; parity allows 1e-3
LANDSCAPE, PORTRAIT = "coco_000000214753.jpg", "coco_000000168974.jpg"


@dataclass(frozen=True, slots=True)
class Row:
    """One network and image. tool: the fixture tool's name for the variant; size: `(long, short)` network input."""

    tool: str
    depth: int
    classes: int
    grids: tuple[int, ...]
    size: tuple[int, int]
    image: str
    seed: int = 20260101

    @property
    def name(self) -> str:
        """The name of the fixture's folder."""
        base = self.tool.replace("_r50", "")
        grids = "" if self.grids == STANDARD else "_uneven"
        turn = "portrait" if self.image == PORTRAIT else "landscape"
        return f"{base}_r{self.depth}_c{self.classes}{grids}_{self.size[0]}_{turn}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables for the fixture tool."""
        return {
            "REF_DEPTH": str(self.depth),
            "REF_CLASSES": str(self.classes),
            "REF_GRIDS": ",".join(map(str, self.grids)),
            "REF_SCALE": ",".join(map(str, self.size)),
            "REF_NAME": self.name,
            "REF_SEED": str(self.seed),
        }


SOLO, DECOUPLED, LIGHT = "solo_r50", "decoupled_solo_r50", "decoupled_solo_light_r50"
SMALL, SOLO_512, FULL = (640, 400), (852, 512), (1333, 800)

ROWS = (
    Row(SOLO, 18, 80, STANDARD, SMALL, LANDSCAPE),
    Row(SOLO, 18, 1, STANDARD, SMALL, PORTRAIT),
    Row(DECOUPLED, 18, 80, STANDARD, SMALL, PORTRAIT),
    Row(DECOUPLED, 18, 3, UNEVEN, SMALL, LANDSCAPE),
    Row(LIGHT, 18, 3, UNEVEN, SMALL, PORTRAIT),
    Row(LIGHT, 18, 1, STANDARD, SMALL, LANDSCAPE, 20260102),
    Row(SOLO, 50, 80, STANDARD, SOLO_512, LANDSCAPE, 20260102),
    Row(SOLO, 50, 80, STANDARD, SOLO_512, PORTRAIT),
    Row(SOLO, 50, 80, STANDARD, FULL, LANDSCAPE),
    Row(DECOUPLED, 50, 80, STANDARD, SOLO_512, LANDSCAPE),
    Row(LIGHT, 50, 80, STANDARD, SOLO_512, PORTRAIT),
    Row(SOLO, 101, 80, STANDARD, SMALL, PORTRAIT),
    Row(SOLO, 101, 3, UNEVEN, SMALL, LANDSCAPE, 20260102),
    Row(DECOUPLED, 101, 1, STANDARD, SMALL, PORTRAIT, 20260104),
    Row(DECOUPLED, 101, 80, STANDARD, SMALL, LANDSCAPE),
    Row(LIGHT, 101, 80, STANDARD, SMALL, LANDSCAPE, 20260102),
    Row(f"{LIGHT}_dcn", 50, 80, STANDARD, SOLO_512, LANDSCAPE, 20260103),
    Row(f"{LIGHT}_dcn", 50, 1, STANDARD, SMALL, PORTRAIT, 20260105),
    Row(f"{LIGHT}_dcn", 101, 3, STANDARD, SMALL, LANDSCAPE),
    Row(f"{SOLO}_dcn", 50, 80, STANDARD, SMALL, PORTRAIT),
)


def main() -> int:
    """Make the missing fixtures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fixtures", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True, help="python of an environment with mmdet 3.3.0")
    parser.add_argument("--tool", type=Path, required=True, help="the fixture tool's script")
    parser.add_argument("--photos", type=Path, required=True, help=f"folder with {LANDSCAPE} and {PORTRAIT}")
    arguments = parser.parse_args()
    for row in ROWS:
        environment = {**os.environ, **row.environment, "REF_OUT": str(arguments.fixtures)}
        fixture = arguments.fixtures / row.name
        if not (fixture / "meta.json").exists():
            _run(environment, arguments.reference, arguments.tool, row.tool, arguments.photos / row.image)
        if not (fixture / "rounding.txt").exists():
            probe = Path(__file__).with_name("reference_rounding.py")
            printed = _run(environment, arguments.reference, probe, arguments.tool.parent, row.tool, fixture)
            (fixture / "rounding.txt").write_text(printed.splitlines()[-1])
        moved = float((fixture / "rounding.txt").read_text())
        print(
            f"{row.name}: {moved:.1e}{'' if moved <= ROUNDING_ALLOWED else ' depends on rounding: try the next seed'}",
            flush=True,
        )
    return 0


def _run(environment: dict[str, str], *command: Path | str) -> str:
    return subprocess.run(
        [str(part) for part in command], check=True, env=environment, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
