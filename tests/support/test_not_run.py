"""What `make test` could not run stands in its last lines."""

from pathlib import Path

import pytest

from support import not_run

SKIPPING = """
import pytest
@pytest.mark.skipif(True, reason="flying: this machine has no wings")
@pytest.mark.parametrize("height", [1, 2])
def test_it_flies(height): pass
def test_it_rolls(): pass
"""


def test_skipped_tests_are_reported_with_their_reason(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pytester.path / "build" / "not_run.txt"
    monkeypatch.setattr(not_run, "FILE", file)
    pytester.makepyfile(SKIPPING)
    result = pytester.inline_run("-p", "support.not_run", "--import-mode=importlib")
    result.assertoutcome(passed=1, skipped=2)
    assert not_run.summary(file).splitlines()[:2] == [
        "Not run on this machine:",
        "- flying: this machine has no wings (2 tests)",
    ]


def test_a_reason_of_several_runs_stands_once_and_the_gpu_always(tmp_path: Path) -> None:
    file = tmp_path / "build" / "not_run.txt"
    not_run.append(["container images: not root"], file)
    not_run.append(["container images: not root"], file)
    always = [f"- {line}" for line in (not_run.ONLY_IN_TEST_ALL, not_run.ON_RAY, not_run.ON_A_GPU)]
    assert not_run.summary(file).splitlines()[1:] == ["- container images: not root", *always]
    assert not_run.summary(tmp_path / "none").splitlines()[1:] == always
    assert not_run.summary(tmp_path / "none", is_all=True).splitlines()[1:] == always[1:]
