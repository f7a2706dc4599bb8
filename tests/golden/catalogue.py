"""What the golden files cover: the recipe arguments of each model and the scale at which each image enters it."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Golden:
    """One golden file ``name``.npz; the other fields are the arguments of recipe.seeded_state_dict."""

    name: str
    variant: str
    depth: int
    classes: int
    grids: tuple[int, ...]
    seed: int
    candidates: int


@dataclass(frozen=True, slots=True)
class Image:
    """One input images/``name``.png; ``scale_long_short`` bounds the sides of the resized image."""

    name: str
    scale_long_short: tuple[int, int]

    @property
    def path(self) -> Path:
        return FOLDER / "images" / f"{self.name}.png"


COCO_GRIDS = (40, 36, 24, 16, 12)
# Seeds: the first from 20260101 on that `regenerate.py --find-seed NAME` accepts.
GOLDENS = (
    Golden("solo_r50", "solo", 50, 80, COCO_GRIDS, seed=20260103, candidates=540),
    Golden("decoupled_r50", "decoupled", 50, 80, COCO_GRIDS, seed=20260124, candidates=460),
    Golden("decoupled_light_r18", "decoupled_light", 18, 3, (20, 18, 12, 8, 6), seed=20260118, candidates=480),
    Golden("solo_r18", "solo", 18, 80, COCO_GRIDS, seed=20260134, candidates=1600),
)
# At (480, 320) one resized side is always a multiple of 32; "odd" has its own scale to be padded on both sides.
IMAGES = (
    Image("landscape", (480, 320)),
    Image("portrait", (480, 320)),
    Image("odd", (470, 310)),
)
