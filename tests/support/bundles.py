"""Bundles of small random networks, made once and kept between runs: only who makes one needs torch."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

from solo_models.spec import ModelSpec, PreprocessSpec, Variant

from support.kept import kept
from support.paths import EXPORTER
from support.specs import quick_spec, tiny_spec


def tiny_bundle(variant: Variant) -> Path:
    """The folder of the bundle `tiny-VARIANT`; not to be changed: all tests share it."""
    return kept_bundle(f"tiny-{variant}", tiny_spec(variant))


def quick_bundle() -> Path:
    """The folder of a bundle of the vanilla variant with `quick_spec` and small images; not to be changed: all tests share it."""
    spec = replace(quick_spec("solo"), preprocess=PreprocessSpec(long_side=96, short_side=64))
    return kept_bundle("quick-solo", spec, Path(__file__))


def kept_bundle(name: str, spec: ModelSpec, *sources: Path) -> Path:
    """The folder of a bundle of a random network, kept as `name` between runs. sources: files that decide `spec`."""

    def make(folder: Path) -> None:
        from solo_models.bundle import write_bundle

        from support.networks import bundle_content, tiny_network

        content = bundle_content(tiny_network(spec.variant, spec))
        write_bundle(folder / content.name, content)

    return kept(name, make, *EXPORTER, *sources) / f"tiny-{spec.variant}"


def zipped_folder(folder: Path, target: Path) -> Path:
    """A zip, not compressed, of the folder itself: members are `NAME/manifest.json` and so on."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{folder.name}/{path.name}")
    return target
