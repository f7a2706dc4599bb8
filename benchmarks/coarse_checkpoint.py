"""The same checkpoint, but with nothing to find on the two finest levels: what skipping levels is worth to a whole image.

    python benchmarks/coarse_checkpoint.py CHECKPOINT.pth OUT.pth

Zeroes the weights of `neck.fpn_convs.0` and `.1`, so that their features are the same everywhere, and gives them a bias at which
no cell scores above half the candidate threshold. Zeros will not do as a bias: the category tower makes scores out of GroupNorm's
shifts and of the map's edges even then. It is found by descent on the highest score, from the same start every time. The
reference does all its work all the same: it computes the masks of every cell.

Levels 2, 3 and 4 keep their candidates. Level 4 cannot be emptied on its own: its features are those of level 3, every second one
in each direction (P6 = P5[::2, ::2]), and the towers that read both are shared. The mmdet layout, wrapped or bare; nothing in the
file is executed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from solo_models.checkpoint import CheckpointError, read_checkpoint
from solo_models.head import SoloHead

LEVELS = (0, 1)
STEPS, RATE = 300, 0.1


def main() -> int:
    """Read, empty, write; exit status 2 where it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    try:
        found = read_checkpoint(arguments.checkpoint)
        if found.layout != "mmdet":
            raise CheckpointError(f"{arguments.checkpoint}: is in {found.layout} layout; stock mmdet wants its own")
        bias, score = quiet_bias(found.network.head)
    except CheckpointError as problem:
        print(f"coarse_checkpoint: {problem}", file=sys.stderr)
        return 2
    content = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)
    torch.save(emptied(content, bias), arguments.output)
    print(f"no category of levels {LEVELS[0]} and {LEVELS[1]} scores above {score:.3f}")
    return 0


def quiet_bias(head: SoloHead) -> tuple[torch.Tensor, float]:
    """Features of one pixel, `(C,)`, that score nowhere when the whole level is made of them; and the highest score there.

    Raises:
        CheckpointError: none was found.
    """
    head.eval().requires_grad_(False)
    wanted = head.spec.postprocess.candidate_threshold / 2
    bias = torch.randn(head.spec.fpn_channels, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimiser = torch.optim.Adam([bias], RATE)
    for _ in range(STEPS):
        highest = torch.stack([_highest_logit(head, bias, head.spec.grids[level]) for level in LEVELS]).max()
        if highest.sigmoid() < wanted:
            return bias.detach(), highest.sigmoid().item()
        optimiser.zero_grad()
        highest.backward()
        optimiser.step()
    raise CheckpointError(f"no features were found that score below {wanted} everywhere")


def emptied(content: dict[str, Any], bias: torch.Tensor) -> dict[str, Any]:
    """The checkpoint with constant features on `LEVELS`; everything else as it is."""
    tensors = dict(content.get("state_dict", content))
    for level in LEVELS:
        name = f"neck.fpn_convs.{level}.conv"
        tensors[f"{name}.weight"] = torch.zeros_like(tensors[f"{name}.weight"])
        tensors[f"{name}.bias"] = bias.to(tensors[f"{name}.bias"].dtype)
    return {**content, "state_dict": tensors} if "state_dict" in content else tensors


def _highest_logit(head: SoloHead, pixel: torch.Tensor, grid: int) -> torch.Tensor:
    logits: torch.Tensor = head.categories(head.category_tower(pixel.view(1, -1, 1, 1).expand(1, -1, grid, grid)))
    return logits.max()


if __name__ == "__main__":
    sys.exit(main())
