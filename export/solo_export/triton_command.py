"""`solo export --triton DIR`: a checkpoint or a bundle in, a model repository of NVIDIA Triton out."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from solo_models.bundle import BundleError
from solo_models.clocked_log import clocked_log
from solo_models.exit_codes import REFUSED

from solo_export import command
from solo_export.source import is_bundle
from solo_export.triton import RepositoryError, RepositoryRequest, check_repository, write_repository
from solo_export.triton_config import Instances

NOT_TOGETHER = ("single_file", "engine", "force")
OF_AN_EXPORT = ("size", "classes", "include", "calibration", "images", "annotations", "tolerance")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the repository is written, 2 when it cannot be; 3 as `command.run`.

    A bundle is taken as it is, unless an option of `OF_AN_EXPORT` or another precision is given. Everything else is exported to a
    bundle first.
    """
    log = clocked_log()
    for name in NOT_TOGETHER:
        if getattr(arguments, name):
            return _refuse(f"--{name.replace('_', '-')} does not go with --triton")
    instances = Instances(arguments.triton_device or "cpu", arguments.triton_instances or 1)
    request = RepositoryRequest(
        arguments.triton,
        arguments.name,
        arguments.triton_version or 1,
        arguments.triton_network or "process",
        instances,
        tuple(arguments.triton_engine),
    )
    with tempfile.TemporaryDirectory() as scratch:
        try:
            check_repository(request)
            source = arguments.checkpoint
            if not is_bundle(source) or _is_converted(arguments):
                arguments.output = Path(scratch) / (arguments.name or source.stem)
                if status := command.run(arguments):
                    return status
                source = arguments.output
            name = write_repository(source, request)
        except (RepositoryError, OSError) as problem:
            return _refuse(str(problem))
        except BundleError as problem:
            return _refuse(f"{arguments.checkpoint}: {problem}")
    log(f"wrote the model {name} to {request.output}; try: tritonserver --model-repository={request.output.absolute()}")
    return 0


def _is_converted(arguments: argparse.Namespace) -> bool:
    given = (getattr(arguments, name) not in (None, []) for name in OF_AN_EXPORT)
    return arguments.precision != "fp32" or any(given)


def _refuse(problem: str) -> int:
    sys.stderr.write(f"solo export: {problem}\n")
    return REFUSED
