"""Adapters without their tools; with them: tests/tools, `make test-tools`."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable

import pytest
from solo_client import PackageMissing, Result, SoloError
from solo_client.adapters import cvat, fiftyone, supervision
from solo_client.adapters.packages import needs

EMPTY = Result(4, 3, "made", "1", {"total": 1.0}, ())


@pytest.mark.parametrize(
    ("module", "use", "command"),
    [
        ("supervision", lambda: supervision.to_detections(EMPTY), "pip install supervision"),
        ("cvat_sdk", lambda: cvat.create("http://127.0.0.1:1"), r"pip install 'cvat-sdk\[masks\]'"),
        ("fiftyone", lambda: fiftyone.to_detections(EMPTY), "pip install fiftyone"),
    ],
    ids=["supervision", "cvat", "fiftyone"],
)
def test_a_tool_that_is_not_installed_is_named_with_its_command(
    module: str, use: Callable[[], object], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PackageMissing, match=f"{module} is not installed: {command}$"):
        use()


def test_package_missing_is_an_import_error_and_can_be_pickled() -> None:
    assert issubclass(PackageMissing, ImportError)
    assert issubclass(PackageMissing, SoloError)
    assert str(pickle.loads(pickle.dumps(PackageMissing("x is not installed")))) == "x is not installed"  # noqa: S301


def test_a_module_that_the_tool_itself_lacks_is_not_blamed_on_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "json", None)
    with pytest.raises(ModuleNotFoundError) as raised, needs("tool", "tool"):
        import json  # noqa: F401
    assert not isinstance(raised.value, PackageMissing)
    assert raised.value.name == "json"


def test_relative_boxes_come_back_to_their_pixels_when_they_are_truncated() -> None:
    """29 / 50 * 50 is 28.999999999999996."""
    assert int(50 * (29 / 50)) == 28
    for size in range(1, 60):
        for start in range(size):
            for length in range(1, size - start + 1):
                x, y, width, height = fiftyone.relative_box((start, 0, length, 1), size, 1)
                assert (int(size * x), int(size * (x + width))) == (start, start + length)
                assert (y, height) == (0, 1)
