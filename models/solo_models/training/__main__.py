"""`python -m solo_models.training RECIPE --data FOLDER -o OUTPUT`: train a network, or resume an earlier run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from solo_models.spec import SpecError
from solo_models.training.recipe import read_recipe
from solo_models.training.trainer import Trainer


def main() -> int:
    """Exit status 0 when trained, 2 when the recipe or the data cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m solo_models.training", description=__doc__)
    parser.add_argument("recipe", type=Path, help="a TOML file, such as recipes/demo_person.toml")
    parser.add_argument("--data", type=Path, required=True, help="a folder with annotations.json (COCO) and images/")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="folder for the checkpoint and the log; an earlier run in it is resumed",
    )
    arguments = parser.parse_args()
    try:
        trainer = Trainer(read_recipe(arguments.recipe), arguments.data, arguments.output)
    except (SpecError, OSError) as problem:
        print(f"solo training: {problem}", file=sys.stderr)
        return 2
    print(trainer.run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
