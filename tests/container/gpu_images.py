"""The images `gpu` and `gpu-modern`, as far as they come without NVIDIA's libraries: only run by `make image-test-gpu`.

The targets of the real Dockerfile are built over the stand-in, with everything from the lock files; TensorRT's libraries alone are
stubs (`stub_tensorrt.py`). What no test can show here: that the real libraries install, and anything on a GPU.
"""

from collections.abc import Iterator

import pytest
from container import running
from standin import Image, laid_out

TENSORRT = {"gpu": "10.4.0", "gpu-modern": "10.16.1.11"}
CHECK = (
    "import tensorrt, importlib.metadata as m; assert tensorrt.__version__ == m.version('tensorrt-cu12-libs') == '{}'"
)


@pytest.fixture(scope="module", params=TENSORRT)
def gpu(request: pytest.FixtureRequest) -> Iterator[tuple[Image, str]]:
    with laid_out(request.param) as image:
        yield image, TENSORRT[request.param]


def test_tensorrt_is_of_the_version_and_can_be_imported(gpu: tuple[Image, str]) -> None:
    image, version = gpu
    with running(image, entrypoint=["python", "-c", CHECK.format(version)]) as container:
        assert container.process.wait(60) == 0, container.said


def test_without_a_gpu_it_ends_with_status_2_and_one_line(gpu: tuple[Image, str]) -> None:
    image, _ = gpu
    with running(image, SOLO_PORT="0") as container:
        status = container.process.wait(120)
    assert status == 2
    (refusal,) = [line for line in container.said if line.startswith("solo serve: ")]
    assert "GPU" in refusal
    assert not any("Traceback" in line for line in container.said)


def test_the_start_has_time_to_build_engines(gpu: tuple[Image, str]) -> None:
    image, _ = gpu
    assert image.config["Healthcheck"]["StartPeriod"] >= 1800e9
    assert image.environment["SOLO_ENGINE"] == "tensorrt"
    assert image.environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


def test_there_is_no_torch_and_one_onnxruntime(gpu: tuple[Image, str]) -> None:
    image, _ = gpu
    packages = {path.name.split("-")[0] for path in image.root.glob("opt/solo/lib/python3*/site-packages/*.dist-info")}
    assert not {"torch", "triton", "onnxruntime", "pip"} & packages
    assert "onnxruntime_gpu" in packages
