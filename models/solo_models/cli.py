"""The command `solo`: a table of subcommands, each imported from its package only when it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterable

from solo_models.exit_codes import INTERRUPTED, READER_GONE, REFUSED
from solo_models.install import install_command
from solo_models.suggestion import nearest

COMMANDS = {
    "segment": ("solo_client.segment", "client", "segment images, with a local bundle or over HTTP"),
    "convert": ("solo_client.convert", "client", "convert results between COCO, LabelMe, YOLO, PNG, CSV and JSON"),
    "serve": ("solo_server.commands.serve", "server", "serve a bundle over HTTP (default: the demo model)"),
    "warm": (
        "solo_server.commands.warm",
        "server",
        "pre-compile the kernels for this CPU (Docker builds do this)",
    ),
    "selftest": ("solo_server.selftest.command", "server", "check that GPU results match the CPU, and time the GPU"),
    "bench": (
        "solo_server.bench.command",
        "server",
        "benchmark the network, the pipeline or the server, with others for comparison",
    ),
    "build-engine": (
        "solo_server.commands.build_engine",
        "server",
        "build a bundle's TensorRT engines on this GPU (experimental)",
    ),
    "export": ("solo_export.arguments", "export", "convert a trained checkpoint into a verified bundle"),
    "inspect": ("solo_models.inspect", "export", "describe a checkpoint, bundle, ONNX file or engine"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command. The exit status is 2 for wrong usage. Ends quietly if the reader of the output is gone (`| head`)."""
    try:
        try:
            return _dispatch(sys.argv[1:] if argv is None else argv)
        finally:  # also after `--help`, which raises SystemExit
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        if sys.stdout is not None:  # Python flushes it again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else REFUSED
    if argv[0] == "--version":
        from importlib.metadata import version

        print(version("solo-inference"))
        return 0
    if argv[0] not in COMMANDS:
        advice = _did_you_mean(argv[0], COMMANDS) or f"; one of: {', '.join(COMMANDS)}"
        print(f"solo: unknown command {argv[0]!r}{advice}", file=sys.stderr)
        return REFUSED
    return _run(argv[0], argv[1:])


def _run(name: str, argv: list[str]) -> int:
    module_name, _, summary = COMMANDS[name]
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        return _not_installed(name, problem)
    parser = argparse.ArgumentParser(prog=f"solo {name}", description=summary[0].upper() + summary[1:] + ".")
    module.add_arguments(parser)
    try:
        status: int = module.run(_parse(parser, argv))
    except KeyboardInterrupt:
        return INTERRUPTED
    except ModuleNotFoundError as problem:  # a command may import packages when it runs
        return _not_installed(name, problem)
    return status


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """As `parse_args`, but suggests the nearest option for an unknown one."""
    known, unknown = parser.parse_known_args(argv, argparse.Namespace(argv=argv))
    if unknown:
        option = next((word for word in unknown if word.startswith("-")), "").partition("=")[0]
        advice = _did_you_mean(option, _options(parser, argv), "--") if option else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{advice}")
    return known


def _options(parser: argparse.ArgumentParser, argv: list[str]) -> set[str]:
    """All options that begin with `--`, including those of a subcommand in `argv`."""
    found = set()
    for action in parser._actions:  # argparse has no public list
        if action.help != argparse.SUPPRESS:
            found |= {option for option in action.option_strings if option.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            found |= {o for name, inner in action.choices.items() if name in argv for o in _options(inner, argv)}
    return found


def _did_you_mean(word: str, known: Iterable[str], prefix: str = "") -> str:
    found = nearest(word, known, prefix)
    return f"; did you mean {found}?" if found else ""


def _not_installed(name: str, problem: ModuleNotFoundError) -> int:
    """Print how to install what a command needs. A missing module of our own is a bug, and raised again."""
    module_name, extra, _ = COMMANDS[name]
    if problem.name is None or problem.name.split(".")[0] == module_name.split(".")[0]:
        raise problem
    print(f"solo {name}: {problem.name} is not installed; {install_command(extra)}", file=sys.stderr)
    return REFUSED


def _overview() -> str:
    lines = [f"  {name:<12} {summary}" for name, (_, _, summary) in COMMANDS.items()]
    return (
        "usage: solo COMMAND [...]\n\nSOLO instance segmentation: serve, segment, export, benchmark.\n\n"
        + "\n".join([*lines, "", "Run solo COMMAND --help for its options, solo --version for the version."])
    )


if __name__ == "__main__":
    sys.exit(main())
