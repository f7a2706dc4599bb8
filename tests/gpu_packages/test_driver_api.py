"""Every name that our code takes from NVIDIA's bindings is there, in the right enumeration, and takes as many arguments."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cuda.bindings import driver, nvrtc
from solo_server.backends.gpu.driver import calls, compile, streams  # noqa: A004
from solo_server.backends.gpu.driver import driver as own_driver
from solo_server.backends.gpu.driver.driver import find_devices, open_device
from solo_server.errors import SettingsError
from support.gpu.fake_driver import CODES, FUNCTIONS

OURS: list[tuple[ModuleType, Any]] = [(calls, driver), (streams, driver), (own_driver, driver), (compile, nvrtc)]
NAME = re.compile(r"(cu|nvrtc)[A-Z]|CU|NVRTC")
THREE = ("grid", "block")  # handed on as three numbers


def tree(module: ModuleType) -> ast.Module:
    return ast.parse(Path(str(module.__file__)).read_text())


def aliases(module: ast.Module) -> dict[str, str]:
    """Local names of NVIDIA's: `about = cu.CUdevice_attribute`."""
    found: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute) and NAME.match(node.value.attr):
            found |= {target.id: node.value.attr for target in node.targets if isinstance(target, ast.Name)}
    return found


def owner(node: ast.Attribute, known: dict[str, str]) -> str | None:
    """The enumeration that a name is taken from, None where it is the module's own."""
    value = node.value
    if isinstance(value, ast.Name):
        return known.get(value.id)
    return value.attr if isinstance(value, ast.Attribute) and NAME.match(value.attr) else None


def names() -> Iterator[tuple[Any, str | None, str]]:
    for ours, theirs in OURS:
        module = tree(ours)
        for node in ast.walk(module):
            if isinstance(node, ast.Attribute) and NAME.match(node.attr):
                yield theirs, owner(node, aliases(module)), node.attr


def given(function: str, arguments: list[ast.expr]) -> tuple[str, int]:
    starred = [argument for argument in arguments if isinstance(argument, ast.Starred)]
    assert all(isinstance(argument.value, ast.Name) and argument.value.id in THREE for argument in starred)
    return function, len(arguments) + 2 * len(starred)


def called() -> Iterator[tuple[Any, str, int]]:
    """Functions of NVIDIA's and with how many arguments they are called, directly or through one of our two that check."""
    for ours, theirs in OURS:
        module = tree(ours)
        known = aliases(module)
        for node in ast.walk(module):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Attribute) and NAME.match(node.func.attr):
                yield theirs, *given(node.func.attr, node.args)
            for place, argument in enumerate(node.args):
                name = (
                    argument.attr if isinstance(argument, ast.Attribute) else known.get(getattr(argument, "id", ""), "")
                )
                if NAME.match(name) and not name.startswith(("CU", "NVRTC")) and not is_filled(node):
                    yield theirs, *given(name, node.args[place + 1 :])


def is_filled(node: ast.Call) -> bool:
    """`_filled(nvrtc, program, size, fill)` calls these itself."""
    return isinstance(node.func, ast.Name) and node.func.id == "_filled"


def parameters(function: Any) -> int:
    """By the first line of its description: `cuMemAlloc(size_t bytesize)`."""
    inside = str(inspect.getdoc(function)).splitlines()[0].partition("(")[2].rpartition(")")[0]
    flat = re.sub(r"\[[^\]]*\]", "", inside)
    return len([part for part in flat.split(",") if part.strip()])


def test_the_reading_of_our_sources_finds_what_is_there() -> None:
    found = {name for _, _, name in names()}
    assert {"cuLaunchKernel", "CU_STREAM_NON_BLOCKING", "nvrtcGetCUBIN", "NVRTC_SUCCESS", "CUDA_SUCCESS"} <= found
    assert len({name for _, name, _ in called()}) > 35


@pytest.mark.parametrize(("theirs", "inside", "name"), sorted(set(names()), key=str), ids=str)
def test_every_name_is_in_nvidias_bindings(theirs: Any, inside: str | None, name: str) -> None:
    assert hasattr(getattr(theirs, inside) if inside else theirs, name)


@pytest.mark.parametrize(("theirs", "name", "count"), sorted(set(called()), key=str), ids=str)
def test_every_call_has_as_many_arguments_as_the_function(theirs: Any, name: str, count: int) -> None:
    assert count == parameters(getattr(theirs, name))


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_that_we_tell_apart_is_one_of_cudas(code: str) -> None:
    assert code in driver.CUresult.__members__


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_the_fake_driver_takes_what_the_real_one_takes(name: str) -> None:
    assert FUNCTIONS[name] == parameters(getattr(driver, name))


def test_codes_have_names() -> None:
    assert driver.CUresult(700).name == "CUDA_ERROR_ILLEGAL_ADDRESS"
    assert driver.CUresult(0) == driver.CUresult.CUDA_SUCCESS


def test_bindings_without_a_gpu_say_so() -> None:
    found = find_devices()
    if found.devices:
        assert open_device().info == found.devices[0]
    else:
        assert "NVIDIA driver" in found.reason
        with pytest.raises(SettingsError, match="NVIDIA driver"):
            open_device()
