"""Small random networks and their bundles; these need torch."""

from __future__ import annotations

import torch
from solo_export.onnx import categories_model, mask_kernels, masks_model
from solo_models.bundle import BundleContent
from solo_models.deformable import DeformableConv
from solo_models.network import SoloNetwork
from solo_models.spec import ModelSpec, Variant

from support.specs import tiny_spec


def tiny_network(variant: Variant, spec: ModelSpec | None = None) -> SoloNetwork:
    """Random weights that find dozens of objects of all sizes."""
    torch.manual_seed(7)
    network = SoloNetwork(spec or tiny_spec(variant)).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, DeformableConv):
                module.conv_offset.weight.normal_(0, 0.02)
                module.conv_offset.bias.normal_(0, 0.7)  # type: ignore[union-attr]  # there is one
        for name, module in network.head.named_modules():
            if name.startswith("kernels") and isinstance(module, torch.nn.Conv2d):
                module.weight.mul_(5)
                module.bias.normal_(-0.5, 2)
        network.head.categories.weight.mul_(8)
        network.head.categories.bias.fill_(-1.5)
    return network


def bundle_content(network: SoloNetwork) -> BundleContent:
    return BundleContent(
        name=f"tiny-{network.spec.variant}",
        spec=network.spec,
        categories=categories_model(network).SerializeToString(),
        masks=masks_model(network).SerializeToString(),
        kernels=mask_kernels(network),
        provenance={"layout": "own"},
        parity={},
    )
