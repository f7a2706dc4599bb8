"""The container images `gpu` and `gpu-modern` without NVIDIA's libraries; only `make image-test-gpu` runs these tests.

The Dockerfile's targets are built on the stand-in base with everything from the lock files; only TensorRT's libraries are stubs
(`stub_tensorrt.py`). Not tested here: the installation of the real libraries, and anything on a GPU.
"""

from collections.abc import Iterator

import pytest
from container import running
from image_builder import Image, laid_out

TENSORRT = {"gpu": "10.4.0", "gpu-modern": "10.16.1.11"}
CHECK = (
    "import tensorrt, importlib.metadata as m; assert tensorrt.__version__ == m.version('tensorrt-cu12-libs') == '{}'"
)


@pytest.fixture(scope="module", params=TENSORRT)
def gpu(request: pytest.FixtureRequest) -> Iterator[tuple[Image, str]]:
    with laid_out(request.param) as image:
        yield image, TENSORRT[request.param]


def test_tensorrt_has_the_right_version_and_can_be_imported(gpu: tuple[Image, str]) -> None:
    image, version = gpu
    with running(image, entrypoint=["python", "-c", CHECK.format(version)]) as container:
        assert container.process.wait(60) == 0, container.log_lines


def test_without_a_gpu_it_ends_with_status_2_and_one_line(gpu: tuple[Image, str]) -> None:
    image, _ = gpu
    with running(image, SOLO_PORT="0") as container:
        status = container.process.wait(120)
    assert status == 2
    (refusal,) = [line for line in container.log_lines if line.startswith("solo serve: ")]
    assert "GPU" in refusal
    assert not any("Traceback" in line for line in container.log_lines)


def test_the_health_check_allows_time_to_build_engines(gpu: tuple[Image, str]) -> None:
    image, _ = gpu
    assert image.config["Healthcheck"]["StartPeriod"] >= 1800e9
    assert image.environment["SOLO_ENGINE"] == "tensorrt"
    assert image.environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_there_is_no_torch_and_one_onnxruntime(gpu: tuple[Image, str]) -> None:
    image, _ = gpu
    packages = {path.name.split("-")[0] for path in image.root.glob("opt/solo/lib/python3*/site-packages/*.dist-info")}
    assert not {"torch", "triton", "onnxruntime", "pip"} & packages
    assert "onnxruntime_gpu" in packages
