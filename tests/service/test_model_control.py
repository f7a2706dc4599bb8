"""When models may be found, loaded and unloaded. `tests/contract/test_models.py` tests it over HTTP, with real models."""

from typing import Any

import pytest
from solo_server.errors import ControlOff, NotReady
from solo_server.service.model_control import check_control, find_model
from solo_server.service.service import Service
from solo_server.settings import Settings


def _starting_service(**settings: Any) -> Service:
    return Service(lambda: [], Settings(**settings))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"model_control": False}, ControlOff, "SOLO_MODEL_CONTROL is off"),
        ({"model_control": True, "workers": 2}, ControlOff, "SIGHUP reloads the models of all workers"),
        ({"model_control": True}, NotReady, "loaded"),
    ],
)
def test_models_are_not_changed_if_control_is_off_or_the_server_is_not_ready(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_control(_starting_service(**settings))


def test_while_the_server_starts_a_model_is_not_ready_instead_of_unknown() -> None:
    with pytest.raises(NotReady):
        find_model(_starting_service(), "person", None)
