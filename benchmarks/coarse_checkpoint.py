"""Makes a checkpoint without candidates on the two finest levels, to measure what skipping levels saves for a whole image.

    python benchmarks/coarse_checkpoint.py CHECKPOINT.pth OUT.pth

Zeroes the weights of `neck.fpn_convs.0` and `.1`, so that their features are constant, and sets a bias at which no cell scores
above half the candidate threshold. A bias of zero is not enough: the category tower still produces scores from GroupNorm's shifts
and the map's edges. The bias is found by gradient descent on the highest score, from a fixed start. The reference's work does not
change, since it computes the masks of every cell.

Levels 2, 3 and 4 keep their candidates. Level 4 cannot be emptied separately: its features are every second one of level 3 in each
direction (P6 = P5[::2, ::2]), and both levels share their towers. Reads the mmdet layout, wrapped or bare; nothing in the file is
executed.
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
    """Read, empty, write; exit status 2 if that is impossible."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    try:
        checkpoint = read_checkpoint(arguments.checkpoint)
        if checkpoint.layout != "mmdet":
            raise CheckpointError(
                f"{arguments.checkpoint}: is in {checkpoint.layout} layout; stock mmdet needs its own"
            )
        bias, score = quiet_bias(checkpoint.network.head)
    except CheckpointError as problem:
        print(f"coarse_checkpoint: {problem}", file=sys.stderr)
        return 2
    content = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)
    torch.save(emptied(content, bias), arguments.output)
    print(f"no category of levels {LEVELS[0]} and {LEVELS[1]} scores above {score:.3f}")
    return 0


def quiet_bias(head: SoloHead) -> tuple[torch.Tensor, float]:
    """Features of one pixel, `(C,)`, with which a whole level has no candidates; and the highest score there.

    Raises:
        CheckpointError: no such features were found.
    """
    head.eval().requires_grad_(False)
    limit = head.spec.postprocess.candidate_threshold / 2
    bias = torch.randn(head.spec.fpn_channels, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimiser = torch.optim.Adam([bias], RATE)
    for _ in range(STEPS):
        highest = torch.stack([_highest_logit(head, bias, head.spec.grids[level]) for level in LEVELS]).max()
        if highest.sigmoid() < limit:
            return bias.detach(), highest.sigmoid().item()
        optimiser.zero_grad()
        highest.backward()
        optimiser.step()
    raise CheckpointError(f"no features were found that score below {limit} everywhere")


def emptied(content: dict[str, Any], bias: torch.Tensor) -> dict[str, Any]:
    """The checkpoint with constant features on `LEVELS`, and everything else unchanged."""
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
