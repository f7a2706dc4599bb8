"""The command line of `solo serve`: an option for each setting that has one, with the setting's text."""

from __future__ import annotations

import argparse
from typing import Any

from solo_server.setting_fields import NUMBER, SWITCH, Setting
from solo_server.settings import SETTINGS

RAY_OPTIONS = ("ray", "address", "min_replicas", "max_replicas")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo serve`; `Settings.read` parses the texts."""
    gpu = parser.add_argument_group("engines tensorrt (experimental, never run on a GPU) and cuda (docs/gpu.md)")
    for name, known in SETTINGS.items():
        if known.option:
            group = gpu if known.gpu_only else parser
            group.add_argument(*_names(name), **_form(known), help=_help(known))
    _add_ray(parser)
    parser.add_argument("--worker-channel", type=int, nargs=2, help=argparse.SUPPRESS)  # number, descriptor


def _add_ray(parser: argparse.ArgumentParser) -> None:
    ray = parser.add_argument_group("Ray Serve (docs/ray.md)")
    ray.add_argument(
        "--ray", action="store_true", help="serve with Ray Serve; each replica takes --threads cores (0: one)"
    )
    ray.add_argument(
        "--address",
        metavar="ADDRESS",
        help="running cluster to deploy to: auto, or HOST:PORT; without it, a cluster on this machine that ends with the command",
    )
    ray.add_argument("--min-replicas", type=int, metavar="N", help="fewest replicas of the deployment [default 1]")
    ray.add_argument("--max-replicas", type=int, metavar="N", help="most replicas [default: as --min-replicas]")


def _names(name: str) -> tuple[str]:
    return ("bundle",) if name == "bundle" else (f"--{name.replace('_', '-')}",)


def _form(known: Setting) -> dict[str, Any]:
    """Keywords of `add_argument`."""
    if known.name == "bundle":
        return {"nargs": "?"}
    if known.kind is SWITCH:
        return {"action": argparse.BooleanOptionalAction}
    return {"metavar": known.kind.metavar} | ({"type": int} if known.kind is NUMBER else {})


def _help(known: Setting) -> str:
    """What the setting's row in docs/deployment.md says."""
    facts = [known.variable]
    if known.kind is NUMBER:
        facts.append(f"{known.low} to {known.high}{f' {known.unit}' if known.unit else ''}")
    if known.choices:
        facts.append(", ".join(known.choices))
    if known.default not in (None, ()):
        default = known.default if known.kind is not SWITCH else "on" if known.default else "off"
        facts.append(f"default {default}")
    return f"{known.text.replace('`', '').removesuffix('.')} [{'; '.join(facts)}]".replace("%", "%%")
