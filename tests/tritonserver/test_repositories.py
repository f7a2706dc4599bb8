"""Versions, settings, and hosts that lack something: the real tritonserver says in one line why it does not load a model."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import numpy as np
import pytest
from served_demo import repository
from triton_requests import ASTRONAUT, GENERATED, MODEL, check_equal, images, infer, refused
from triton_server import MODEL_ERROR, failed_log, triton_server


def test_every_version_is_served_and_the_highest_answers(tmp_path: Path) -> None:
    with triton_server(repository(tmp_path, "process", 1, 2), tmp_path) as triton:
        assert httpx.get(f"http://{triton.address}/v2/models/{MODEL}").json()["versions"] == ["1", "2"]
        answers = [infer(triton.address, images(ASTRONAUT), model_version=version) for version in ("", "1", "2")]
        assert [answer.get_response()["model_version"] for answer in answers] == ["2", "1", "2"]
        check_equal(answers[1], answers[2])
        assert "unknown model" in refused(triton.address, images(ASTRONAUT), model_version="3")


def test_settings_are_parameters_of_the_configuration(tmp_path: Path) -> None:
    served = repository(tmp_path)
    with (served / MODEL / "config.pbtxt").open("a") as config:
        config.write('parameters { key: "SOLO_MAX_MASK_BYTES" value { string_value: "1024" } }\n')
        config.write('parameters { key: "SOLO_MAX_FILES" value { string_value: "2" } }\n')
    with triton_server(served, tmp_path, environment={"SOLO_MAX_FILES": "7"}) as triton:
        assert "[answer_too_large]" in refused(triton.address, images(ASTRONAUT), "MASKS")
        assert infer(triton.address, images(ASTRONAUT), "RLE").as_numpy("RLE").size > 0
        assert "at most 2 are accepted" in refused(triton.address, images(*[GENERATED] * 3))


def test_several_instances_share_the_requests(tmp_path: Path) -> None:
    served = repository(tmp_path)
    config = served / MODEL / "config.pbtxt"
    config.write_text(config.read_text().replace("KIND_CPU count: 1", "KIND_CPU count: 2"))
    with triton_server(served, tmp_path) as triton:
        assert infer(triton.address, images(ASTRONAUT)).as_numpy("NUM_INSTANCES")[0] > 0
        assert triton.log.count("ready after") == 2 + triton.log.count("kernels ready after")


def test_a_model_is_ready_only_after_it_has_answered_the_warm_up_image(tmp_path: Path) -> None:
    served = repository(tmp_path)
    (served / MODEL / "warmup" / "image").write_bytes(b"\x04\x00\x00\x00abcd")
    log = failed_log(
        served, tmp_path
    )  # a Triton 2.51 whose warm-up fails sometimes ends with SIGSEGV before it has said why
    assert "ready after" in log
    assert "Started HTTPService" not in log


def test_a_host_without_our_package_gets_one_clear_line(tmp_path: Path) -> None:
    python = _environment_with_numpy_alone(tmp_path / "bare")
    log = failed_log(repository(tmp_path), tmp_path, python=python)
    assert "install it there with its extra `server`: docs/triton.md" in log
    assert MODEL_ERROR in log


@pytest.mark.skipif("TEST_NUMPY2" not in os.environ, reason="`make test-triton` names an environment with numpy 2")
def test_numpy_2_in_a_triton_built_for_numpy_1_gets_one_clear_line(tmp_path: Path) -> None:
    log = failed_log(repository(tmp_path), tmp_path, python=Path(os.environ["TEST_NUMPY2"]))
    assert "solo: model demo-person: this Triton's Python back end was built for numpy 1" in log
    assert MODEL_ERROR in log


def test_a_damaged_bundle_gets_one_clear_line(tmp_path: Path) -> None:
    served = repository(tmp_path)
    (served / MODEL / "1" / "bundle" / "masks.onnx").write_bytes(b"damaged")
    log = failed_log(served, tmp_path)
    assert "solo: model demo-person: " in log
    assert "masks.onnx: has 7 bytes, the manifest says" in log


def test_a_wrong_setting_gets_one_clear_line(tmp_path: Path) -> None:
    served = repository(tmp_path)
    with (served / MODEL / "config.pbtxt").open("a") as config:
        config.write('parameters { key: "SOLO_ENGINE" value { string_value: "steam" } }\n')
    assert "solo: model demo-person: SOLO_ENGINE" in failed_log(served, tmp_path)


def _environment_with_numpy_alone(folder: Path) -> Path:
    """An environment of this Python that has numpy and nothing else; its `bin` folder."""
    import venv

    venv.create(folder, with_pip=False, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    installed = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        (packages / name).symlink_to(installed / name)
    return folder / "bin"
