"""The JSON document of a self-test, and the few lines of it that are printed.

    format            "solo-selftest"
    format_version    1
    verdict           "PASS" where every part with a verdict passed, else "FAIL"
    command, commit, date, hardware, versions    as in every result of `solo bench`; versions also of the GPU's packages
    device            name, compute_capability, memory_mib, multiprocessors, cuda_of_driver; "fake" where there was no GPU
    engine            asked (tensorrt, cuda), description, max_batch, and facts from opening it: kernels, engines, seconds
    bundle            name, version (of graphs and specification), precision, variant, backbone, grids, sides, classes
    tolerances        of networks, and of post-processing on the same inputs (selftest/tolerance.py)
    parts             by name, each with
      verdict         "PASS", "FAIL", "MEASURED" (times and memory, without a verdict) or "NOT RUN"
      said            one sentence: the first failure, or the result
      first_stage     where a FAIL begins: a stage of selftest/differences.py; "open" or "run" where something raised
      ...             figures: `images`, a list of every comparison with every stage; `sizes` of batches; `memory` in bytes
      failure         error, message and traceback lines, where something raised
    log               the lines of progress, with those that the server logged

Names of hosts, users and folders are removed from every text before it is written.
"""

from __future__ import annotations

import getpass
import platform
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from solo_models.bundle import Bundle

from solo_server.backends.gpu.driver.base import DeviceInfo
from solo_server.bench.machine import provenance
from solo_server.selftest.differences import first_problem
from solo_server.selftest.parity import Comparison
from solo_server.selftest.probe import gpu_versions
from solo_server.selftest.tolerance import NETWORK, SAME_INPUTS

FORMAT, FORMAT_VERSION = "solo-selftest", 1
PASS, FAIL, MEASURED, NOT_RUN = "PASS", "FAIL", "MEASURED", "NOT RUN"
FAKE = "fake"
SHOWN_FRAMES = 12
_PATH = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:\\|~?/)(?:[^\s'\":;,()/\\]+[/\\])+")

Document = dict[str, Any]
Part = dict[str, Any]


def report_head(bundle: Bundle, device: DeviceInfo, engine: Mapping[str, Any], *, is_fake: bool) -> Document:
    """The report without parts and verdict."""
    about = provenance()
    about["versions"] |= gpu_versions()
    about["hardware"]["gpu"] = None if is_fake else device.name
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **about,
        "device": FAKE if is_fake else _device(device),
        "engine": dict(engine),
        "bundle": _bundle(bundle),
        "tolerances": {"same_inputs": asdict(SAME_INPUTS), "network": asdict(NETWORK[bundle.precision])},
    }


def with_parts(head: Document, parts: Mapping[str, Part]) -> Document:
    """The complete report, without names of hosts, users and folders."""
    verdict = FAIL if any(part["verdict"] == FAIL for part in parts.values()) else PASS
    first, *others = head.items()
    complete: Document = without_names({**dict([first]), "verdict": verdict, **dict(others), "parts": dict(parts)})
    return complete


def judged_part(comparisons: Sequence[Comparison]) -> Part:
    """A part from the comparisons of all images. It names the first image that fails, and the first stage in which it differs."""
    problems = [(c, problem) for c in comparisons if (problem := first_problem(c.differences)) is not None]
    part: Part = {"verdict": FAIL if problems else PASS, "said": f"{len(comparisons)} images"}
    if problems:
        comparison, problem = problems[0]
        part["said"] = (
            f"{len(problems)} of {len(comparisons)} images differ; {comparison.image}: {problem.stage}: {problem.problem}"
        )
        part["first_stage"] = problem.stage
    return part | {"images": [asdict(comparison) for comparison in comparisons]}


def failed_part(problem: BaseException, stage: str) -> Part:
    """A part that raised an exception."""
    frames = traceback.extract_tb(problem.__traceback__)[-SHOWN_FRAMES:]
    lines = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    message = str(problem)
    return {
        "verdict": FAIL,
        "said": f"{type(problem).__name__}: {message.splitlines()[0] if message else 'no message'}",
        "first_stage": stage,
        "failure": {"error": type(problem).__name__, "message": message, "lines": lines},
    }


def skipped_part(why: str) -> Part:
    """A part that could not run."""
    return {"verdict": NOT_RUN, "said": why}


def summary_lines(report: Document) -> list[str]:
    """A short summary: model and device, one line for each part, the verdict."""
    device = report["device"]
    where = (
        "NO GPU: a fake device"
        if device == FAKE
        else f"{device['name']}, compute capability {device['compute_capability']}"
    )
    width = max(len(name) for name in report["parts"])
    return [
        f"solo selftest: {report['bundle']['name']} {report['bundle']['version']}, {report['bundle']['precision']}, on {where}",
        f"engine: {report['engine'].get('description', report['engine'].get('asked', ''))}",
        *(f"  {name:<{width}}  {part['verdict']:<8}  {part['said']}" for name, part in report["parts"].items()),
        f"{report['verdict']}" + (" (on a fake device: says nothing of any GPU)" if device == FAKE else ""),
    ]


def without_names(value: Any) -> Any:
    """The same value with the names of this host and user, and folders of paths, replaced in every text."""
    if isinstance(value, dict):
        return {key: without_names(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_names(item) for item in value]
    return _clean(value) if isinstance(value, str) else value


def _clean(text: str) -> str:
    text = _PATH.sub(".../", text)
    for name in (platform.node(), _user()):
        if len(name) > 3 and name not in ("root", "localhost"):
            text = re.sub(rf"\b{re.escape(name)}\b", "...", text)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""  # a user without a name, as in containers


def _device(info: DeviceInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "compute_capability": ".".join(map(str, info.capability)),
        "memory_mib": info.memory_bytes >> 20,
        "multiprocessors": info.multiprocessors,
        "cuda_of_driver": info.driver,
    }


def _bundle(bundle: Bundle) -> dict[str, Any]:
    spec = bundle.spec
    return {
        "name": bundle.name,
        "version": bundle.version,
        "precision": bundle.precision,
        "variant": spec.variant,
        "backbone": spec.backbone,
        "grids": list(spec.grids),
        "long_side": spec.preprocess.long_side,
        "short_side": spec.preprocess.short_side,
        "classes": spec.num_classes,
    }
