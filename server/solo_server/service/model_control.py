"""Finding, loading and unloading models for a caller: the same rules for every protocol that the server speaks.

The results are the registry's own objects; `solo_server.http` turns them into JSON.
"""

from __future__ import annotations

from solo_server.errors import ControlOff, ModelNotLoadable
from solo_server.service.model_registry import EXPECTED, ModelStatus
from solo_server.service.served_model import ServedModel
from solo_server.service.service import Service


def find_model(service: Service, name: str | None, version: str | None) -> ServedModel:
    """A model that is in service. Without a name: the default model. Without a version: the highest.

    Raises:
        UnknownModel: no such model.
        NotReady: it is being loaded; or the server is starting, and its models are not known yet.
    """
    if service.unready == "warming" and not service.models.in_service():
        raise service.not_ready()
    return service.models.find(name, version)


async def load_model(service: Service, name: str) -> list[ModelStatus]:
    """Load a model again as the repository has it now. Returns all of its versions.

    Raises:
        ControlOff, NotReady: see `check_control`.
        UnknownModel: the repository has no model of that name.
        ModelNotLoadable: see there.
    """
    check_control(service)
    try:
        await service.models.load(name)
    except EXPECTED as problem:
        raise ModelNotLoadable(f"model {name[:64]!r} cannot be loaded; see the server's log") from problem
    return service.models.listed(name)


async def unload_model(service: Service, name: str) -> list[ModelStatus]:
    """Take a model out of service. Returns the versions that still answer requests.

    Raises:
        ControlOff, NotReady: see `check_control`.
        UnknownModel: no model of that name.
    """
    check_control(service)
    await service.models.unload(name)
    return [status for status in service.models.listed() if status.name == name]


def check_control(service: Service) -> None:
    """Check that models may be loaded and unloaded through this process.

    Raises:
        ControlOff: model control is off, or the server has several workers.
        NotReady: the server takes no requests.
    """
    if not service.settings.model_control:
        raise ControlOff("models are not loaded or unloaded over HTTP: SOLO_MODEL_CONTROL is off; SIGHUP reloads them")
    if service.settings.workers > 1:
        raise ControlOff("a request reaches only one of several workers; SIGHUP reloads the models of all workers")
    if service.unready is not None:
        raise service.not_ready()
