"""The model that Triton's Python back end runs: the tensors of docs/v2.md in and out, our service between them.

    Triton ── execute ─► tensors (copied) ─► event loop in a thread: admit ─► images, batched by padded size ─► sender ─► Triton

`execute` returns at once and answers later, through each request's response sender: requests of many callers are in the service at
a time, and meet in its batches. Triton's own batcher cannot do this, since images of different sizes cannot be stacked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import ModuleType
from typing import Any, Protocol

from solo_models.bundle import BundleError, identify

from solo_server.commands.open_pipeline import image_limits, open_pipeline
from solo_server.errors import DeviceFailure, EngineFailure, ServerError, SettingsError
from solo_server.http.v2.infer import infer_images
from solo_server.http.v2.outputs import InferResults
from solo_server.http.v2.requests import InferRequest
from solo_server.observability import logs
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import ModelSource
from solo_server.service.service import Service
from solo_server.setting_fields import PREFIX
from solo_server.settings import Settings
from solo_server.system.cores import cores
from solo_server.system.memory import share_one_heap
from solo_server.triton.graphs import open_on_graphs
from solo_server.triton.loop_thread import LoopThread
from solo_server.triton.tensors import check_arrays, check_masks, error, read_infer_request, response

LOG = logging.getLogger("solo_server")
GRAPHS = "graphs"
"""Parameter of a model's configuration; `triton` if the graphs are models of the same repository."""
STOP_SECONDS = 5


class Sender(Protocol):
    """Triton's `InferenceResponseSender`."""

    def send(self, response: Any = None, flags: int = 0) -> None:
        """Send the one response of a request."""
        ...


class SoloModel:
    """A bundle as `TritonPythonModel`. Triton calls `initialize`, then `execute` from one thread, then `finalize`."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the bundle in the version's folder and warm it up. args: Triton's.

        Raises:
            RuntimeError: it cannot be loaded; the message is one line, which Triton logs.
        """
        share_one_heap()
        self._unanswered: set[Sender] = set()
        self._pb = _triton_utils()
        try:
            check_arrays(self._pb)
            settings = read_settings(args)
            logs.configure(settings.log_format, settings.log_level)
            self._service = Service(lambda: [self._source(args, settings)], settings, _report_end)
            self._loop = LoopThread()
            try:
                self._loop.run(self._service.start())
            except BaseException:
                self.finalize()
                raise
        except (BundleError, SettingsError, DeviceFailure, OSError) as problem:
            raise RuntimeError(f"solo: model {args['model_name']}: {problem}") from None

    def execute(self, requests: Sequence[Any]) -> None:
        """Accept requests. Each gets an answer of its own: one with an undecodable image fails alone."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                infer_request = read_infer_request(request, self._service.settings)
            except Exception as problem:
                self._send(sender, self._error(problem))
            else:
                self._unanswered.add(sender)
                self._loop.begin(self._answer(infer_request, sender))

    def finalize(self) -> None:
        """Wait for accepted requests, at most `SOLO_DRAIN_SECONDS`, and stop."""
        self._loop.run(self._stop())
        self._loop.close()

    async def _answer(self, infer_request: InferRequest, sender: Sender) -> None:
        try:
            answer = await self._infer(infer_request)
        except Exception as problem:
            answer = self._error(problem)
        self._send(sender, answer)
        self._unanswered.discard(sender)

    async def _infer(self, infer_request: InferRequest) -> Any:
        service = self._service
        with service.admit() as admitted:
            spec = admitted.model.pipeline.bundle.spec
            query = infer_request.query.to_query(spec)
            if infer_request.timeout_s is not None:
                admitted.answer_within(infer_request.timeout_s)
            results = InferResults(await infer_images(admitted, infer_request, query), spec.class_names)
            check_masks(infer_request.outputs, results, service.settings.max_mask_bytes)
            return await service.in_worker(lambda: response(self._pb, infer_request.outputs, results))

    def _error(self, problem: Exception) -> Any:
        """The response that says what went wrong; what is our fault goes to the log, with its details."""
        if isinstance(problem, ServerError) and not isinstance(problem, EngineFailure):
            return error(self._pb, problem)
        LOG.error("a request failed: %s", problem, exc_info=None if isinstance(problem, EngineFailure) else problem)
        return error(self._pb, EngineFailure(repr(problem)))

    def _send(self, sender: Sender, answer: Any) -> None:
        """Send the one response; an error in its place if Triton does not take it, for instance for lack of shared memory."""
        final = self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        try:
            sender.send(answer, flags=final)
        except Exception as problem:
            try:
                sender.send(self._error(problem), flags=final)
            except Exception as second:
                LOG.exception("a request cannot be answered", exc_info=second)

    def _source(self, args: Mapping[str, str], settings: Settings) -> ModelSource:
        path, identity = bundle_path(args), identify(bundle_path(args))

        def open_source() -> Pipeline:
            if _parameters(args).get(GRAPHS) != "triton":
                return open_pipeline(path, settings)
            name, version = args["model_name"], int(args["model_version"])
            return open_on_graphs(self._pb, path, name, version, image_limits(settings))

        return ModelSource(identity.name, identity.version, identity.sha256, open_source)

    async def _stop(self) -> None:
        service = self._service
        service.drain()
        end = monotonic() + service.settings.drain_seconds + STOP_SECONDS
        while (self._unanswered or service.accepted) and monotonic() < end:
            await asyncio.sleep(0.01)
        service.stop()


def read_settings(args: Mapping[str, str]) -> Settings:
    """Settings of the environment, then those among the configuration's parameters, by the same names (`SOLO_...`).

    Instances of one model share the cores; an instance on a GPU uses the one that Triton gives it.

    Raises:
        SettingsError: see `Settings.read`.
    """
    own = {name: text for name, text in _parameters(args).items() if name.startswith(PREFIX)}
    settings = Settings.read({**os.environ, **own})
    groups = json.loads(args["model_config"]).get("instance_group", [])
    instances = max(1, sum(int(group.get("count", 1)) for group in groups if group.get("kind") == "KIND_CPU"))
    settings = replace(settings, workers=instances, threads=settings.threads or max(1, cores() // instances))
    if args["model_instance_kind"] == "GPU":
        settings = replace(settings, gpu=int(args["model_instance_device_id"]))
    return settings


def bundle_path(args: Mapping[str, str]) -> Path:
    """The bundle of this version: the folder `bundle`, or `bundle.zip`."""
    folder = Path(args["model_repository"]) / args["model_version"] / "bundle"
    return folder if folder.is_dir() else folder.with_suffix(".zip")


def _parameters(args: Mapping[str, str]) -> dict[str, str]:
    """The parameters of the model's configuration, which are texts."""
    listed = json.loads(args["model_config"]).get("parameters", {})
    return {name: value["string_value"] for name, value in listed.items()}


def _triton_utils() -> ModuleType:
    """The module that Triton's Python back end puts into the process; no package has it."""
    import triton_python_backend_utils  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]

    utils: ModuleType = triton_python_backend_utils
    return utils


def _report_end(problem: Exception) -> None:
    """A lost GPU or a hanging engine: requests are refused from now on.

    Ending the process would not help: Triton 2.51 does not start it again, and answers 500 instead of 503.
    """
    LOG.critical("the model answers no more requests; restart Triton: %s", problem)
