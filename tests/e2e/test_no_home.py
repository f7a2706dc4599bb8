"""OpenShift runs containers as a user without an entry in passwd and without a home folder: every command works for such a user.

If this system allows it, the commands run as such a user. On every system the lookups fail as they do for one, and the folder
beside the sources cannot be written.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import torch
from solo_models.bundle import read_bundle
from solo_models.demo import demo_bundle
from solo_server.backends.cpu.kernels import compile as kernel
from support.images import encoded, smooth_image
from support.networks import tiny_network

BODY = encoded(smooth_image(150, 200), "JPEG")
SOLO = [sys.executable, "-m", "solo_models.cli"]
NOBODY = 54_321
AS_NOBODY = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
BESIDE_THE_SOURCES = Path(kernel.__file__).parent / "__pycache__"
LOOKUPS_FAIL = f"""
import os, pwd, tempfile

def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {{uid}}")

create = tempfile.TemporaryFile

def refuse(*arguments, dir=None, **options):
    if str(dir).startswith({str(BESIDE_THE_SOURCES)!r}):
        raise OSError("read-only file system")
    return create(*arguments, dir=dir, **options)

pwd.getpwuid, tempfile.TemporaryFile = unknown, refuse
"""


@pytest.fixture(scope="module")
def as_nobody() -> list[str]:
    """A prefix that runs a command as a user without a name; empty if that needs root."""
    try:
        done = subprocess.run([*AS_NOBODY, sys.executable, "-c", "import os; print(os.getuid())"], capture_output=True)
    except FileNotFoundError:
        return []
    return AS_NOBODY if done.stdout.strip() == str(NOBODY).encode() else []


@pytest.fixture(scope="module", autouse=True)
def kernels() -> None:
    """Compile the kernels once, beside the sources; otherwise each process of these tests would compile its own."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    subprocess.run([*SOLO, "warm"], env=environment, check=True, capture_output=True)


@pytest.fixture(params=["no HOME", "HOME=/proc"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """HOME=/proc stands for a home that cannot be written; container engines set HOME=/ for such a user."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(LOOKUPS_FAIL)
    (tmp_path / "temporary").mkdir(mode=0o777)
    path = os.pathsep.join([str(site), *filter(None, sys.path)])
    home = {} if request.param == "no HOME" else {"HOME": "/proc"}
    return {"PATH": os.environ["PATH"], "PYTHONPATH": path, "TMPDIR": str(tmp_path / "temporary"), **home}


def test_a_server_answers_without_a_home(as_nobody: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    command = [*as_nobody, *SOLO, "serve", str(demo_bundle()), "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as process:
        try:
            log = ""
            for line in process.stderr or []:
                log += line
                if match := re.search(r"(http://[\d.]+:\d+)  try:", line):
                    break
            else:
                raise RuntimeError(log)
            assert httpx.post(f"{match[1]}/segment", content=BODY, timeout=60).status_code == 200
            process.send_signal(signal.SIGTERM)
            rest = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 0, log + rest
    assert "Traceback" not in log + rest
    assert not list((tmp_path / "temporary").glob("solo-*"))  # processes remove their private folders


@pytest.mark.parametrize("environment", ["no HOME"], indirect=True)
def test_a_checkpoint_is_exported_without_a_home(
    as_nobody: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    network = tiny_network("decoupled_light")
    torch.save({"spec": json.dumps(network.spec.to_dict()), "state_dict": network.state_dict()}, tmp_path / "my.pth")
    command = [*as_nobody, *SOLO, "export", "my.pth", "-o", "my"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert read_bundle(tmp_path / "my").name == "my"


def test_the_log_says_if_kernels_are_compiled_at_every_start(
    environment: dict[str, str],
) -> None:
    script = "from solo_server.backends.cpu import warm_up; print(warm_up.COMPILED_WHEN)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("at every start, since no cache folder is writable: set NUMBA_CACHE_DIR")
