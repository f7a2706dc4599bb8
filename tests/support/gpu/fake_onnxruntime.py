"""A fake `onnxruntime` with a CUDA provider for the fake device: sessions compute on a CPU, on the stream of their options."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from support.gpu.fake_device import FakeDevice

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
Bound = dict[str, tuple[Any, tuple[int, ...], int]]


class FakeOrt:
    """Stands for the module. failure: what the next run raises; providers, lacks_cuda: what is built in, and cannot be loaded.

    most_sessions: beyond so many there is no memory; planned: shapes for which convolutions were planned, as often as they were.
    """

    __version__ = "1.20.2"
    SessionOptions, OrtMemoryInfo, OrtArenaCfg = ort.SessionOptions, ort.OrtMemoryInfo, ort.OrtArenaCfg
    OrtAllocatorType, OrtMemType = ort.OrtAllocatorType, ort.OrtMemType

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.failure: Exception | None = None
        self.providers, self.lacks_cuda = [CUDA, CPU], False
        self.options: list[dict[str, str]] = []
        self.runs: list[str] = []
        self.most_sessions = 1000
        self.planned: list[tuple[int, ...]] = []
        self.arenas: list[str] = []
        self.severity = 2

    def get_available_providers(self) -> list[str]:
        """What is built in."""
        return self.providers

    def set_default_logger_severity(self, severity: int) -> None:
        """Of what belongs to no session."""
        self.severity = severity

    def create_and_register_allocator_v2(
        self, provider: str, place: ort.OrtMemoryInfo, options: dict[str, str], arena: ort.OrtArenaCfg
    ) -> None:
        """Memory that sessions may share."""
        assert (provider, place.name, options["device_id"]) == (CUDA, "Cuda", str(place.device_id))
        self.arenas.append(provider)

    def InferenceSession(  # noqa: N802  # ONNX Runtime's name
        self, content: bytes, options: ort.SessionOptions, providers: list[tuple[str, dict[str, str]]]
    ) -> FakeSession:
        """One session."""
        ((name, provider),) = providers
        assert name == CUDA
        if len(self.options) == self.most_sessions:
            raise Fail("BFCArena: Failed to allocate memory for requested buffer")
        assert options.get_session_config_entry("session.use_env_allocators") == "1"
        self.options.append(provider)
        return FakeSession(self, content, provider)


@lru_cache
def _cpu_session(content: bytes) -> ort.InferenceSession:
    """Sessions keep nothing between runs, so that fakes of one graph share one."""
    return ort.InferenceSession(content, providers=[CPU])


class FakeSession:
    """See `onnxruntime.InferenceSession`."""

    def __init__(self, owner: FakeOrt, content: bytes, provider: dict[str, str]) -> None:
        self._owner, self._real = owner, _cpu_session(content)
        self._stream = owner.device.stream(int(provider["user_compute_stream"]))
        self._falls_back = True
        self._planned: tuple[int, ...] = ()

    def get_providers(self) -> list[str]:
        """Without CUDA's libraries ONNX Runtime goes on without a word."""
        return [CPU] if self._owner.lacks_cuda else [CUDA, CPU]

    def disable_fallback(self) -> None:
        """Do not go on when a run fails."""
        self._falls_back = False

    def get_inputs(self) -> Any:
        """As the graph has them."""
        return self._real.get_inputs()

    def get_outputs(self) -> Any:
        """As the graph has them."""
        return self._real.get_outputs()

    def io_binding(self) -> FakeBinding:
        """An empty one."""
        return FakeBinding()

    def run_with_iobinding(self, binding: FakeBinding) -> None:
        """Compute on the stream, and wait for it, as ONNX Runtime does."""
        assert not self._falls_back
        failure, self._owner.failure = self._owner.failure, None
        if failure is not None:
            raise failure
        device = self._owner.device
        self._owner.runs.append(next(iter(binding.inputs)))
        _, shape, _ = next(iter(binding.inputs.values()))
        if shape != self._planned:
            self._planned = shape
            self._owner.planned.append(shape)
        assert set(binding.outputs) == {node.name for node in self.get_outputs()}

        def run() -> None:
            feeds = {
                name: device.array(place, shape, kind).copy() for name, (kind, shape, place) in binding.inputs.items()
            }
            names = list(binding.outputs)
            for name, output in zip(names, self._real.run(names, feeds), strict=True):
                kind, shape, place = binding.outputs[name]
                assert (output.dtype, output.shape) == (np.dtype(kind), shape)
                device.array(place, shape, kind)[:] = output

        places = (*binding.inputs.values(), *binding.outputs.values())
        self._stream.call(run, tuple(place for _, _, place in places), "session")
        self._stream.synchronize()


class FakeBinding:
    """See `onnxruntime.IOBinding`."""

    def __init__(self) -> None:
        self.inputs: Bound = {}
        self.outputs: Bound = {}

    def bind_input(self, name: str, kind: str, ordinal: int, dtype: Any, shape: tuple[int, ...], address: int) -> None:
        """Device memory as an input."""
        assert (kind, ordinal) == ("cuda", 0)
        self.inputs[name] = (dtype, shape, address)

    def bind_output(self, name: str, kind: str, ordinal: int, dtype: Any, shape: tuple[int, ...], address: int) -> None:
        """Device memory as an output."""
        assert (kind, ordinal) == ("cuda", 0)
        self.outputs[name] = (dtype, shape, address)
