"""A replica outside of Ray: its health, its node's package, and the lines that Ray shows of a failure."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from solo_server.errors import NotReady, SettingsError
from solo_server.ray_serve import replica as module
from solo_server.ray_serve.cluster import cause, changed_settings
from solo_server.ray_serve.replica import Replica, Unhealthy
from solo_server.settings import Settings

TRACEBACK = """The deployment failed to start 3 times in a row. Error:
ray::ServeReplica:solo:solo.initialize_and_get_metadata() (pid=1, ip=10.0.0.7)
  File "replica.py", line 1, in initialize
    raise StartFailed(text)
solo_server.ray_serve.replica.StartFailed: node 10.0.0.7: /models/cats: no such folder
"""


def _replica(unready: str | None) -> Replica:
    replica: Any = Replica({}, "0.1.0")
    problem = NotReady("the engine has not answered for a long time", "stalled")
    replica._service = SimpleNamespace(unready=unready, not_ready=lambda: problem)
    made: Replica = replica
    return made


def test_a_stalled_engine_fails_the_health_check_and_a_working_one_does_not() -> None:
    asyncio.run(_replica(None).check_health())
    with pytest.raises(Unhealthy, match="the engine has not answered"):
        asyncio.run(_replica("stalled").check_health())


def test_a_failure_before_the_start_is_its_cause_and_one_after_it_is_left_to_the_health_check() -> None:
    async def failures() -> list[Any]:
        replica: Any = Replica({}, "0.1.0")
        replica._started = asyncio.get_running_loop().create_future()
        first = SettingsError("wrong")
        replica._end(first)
        replica._end(SettingsError("later"))
        replica._warm()
        return [await replica._started, first]

    found, first = asyncio.run(failures())
    assert found is first


def test_another_version_of_the_package_on_a_node_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "version", lambda _: "0.1.0")
    module._check_version("0.1.0")
    with pytest.raises(SettingsError, match=r"this node has solo-inference 0\.1\.0, but 0\.2\.0 is deployed"):
        module._check_version("0.2.0")


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (TRACEBACK, "node 10.0.0.7: /models/cats: no such folder"),
        ("x\nModuleNotFoundError: No module named 'solo_server'\n", "No module named 'solo_server'"),
        ("first\n  last line  \n\n", "last line"),
        ("", "no reason given"),
    ],
)
def test_the_line_that_says_why_is_found_in_rays_message(message: str, line: str) -> None:
    assert cause(message) == line


def test_replicas_get_the_settings_that_are_not_defaults_with_absolute_paths(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = changed_settings(Settings.read({}, bundle="cats", max_waiting=3))
    assert given == {"bundle": str(tmp_path / "cats"), "max_waiting": 3}
    assert Settings.read({}, **given).max_waiting == 3
