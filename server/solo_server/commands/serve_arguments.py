"""The command line of `solo serve`: an option for each setting that has one, with the setting's text."""

from __future__ import annotations

import argparse
from typing import Any

from solo_server.setting_fields import NUMBER, SWITCH, Setting
from solo_server.settings import SETTINGS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo serve`; `Settings.read` parses the texts."""
    gpu = parser.add_argument_group("engines tensorrt (experimental, never run on a GPU) and cuda (docs/gpu.md)")
    for name, known in SETTINGS.items():
        if known.option:
            group = gpu if known.gpu_only else parser
            group.add_argument(*_names(name), **_form(known), help=_help(known))
    parser.add_argument("--worker-channel", type=int, nargs=2, help=argparse.SUPPRESS)  # number, descriptor


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
