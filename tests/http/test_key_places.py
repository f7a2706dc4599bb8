"""API keys where the clients of other APIs have them: in the query, in the body, as a password; and nowhere else."""

import base64
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from solo_server.errors import NotReady, Overloaded
from solo_server.http.app import create_app
from solo_server.http.early_bodies import MAX_WITHOUT_KEY, EarlyBodies
from solo_server.http.key_places import BODY_PATHS
from solo_server.observability.observer import Unobserved
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from starlette.requests import Request
from support.images import encoded, smooth_image
from support.serving import serving

KEY = "0123456789abcdef0123456789abcdef"
WRONG = KEY.upper()
IMAGE = {"type": "base64", "value": base64.b64encode(encoded(smooth_image(60, 80))).decode()}
INFER = "/roboflow/infer/instance_segmentation"


@pytest.fixture(scope="module")
def guarded(solo_bundle: Path) -> Iterator[httpx.Client]:
    app = create_app(Pipeline.open(solo_bundle, threads=1), Settings(api_keys=f"alice:{KEY}"))
    with serving(app) as client:
        yield client


def infer(client: httpx.Client, **members: Any) -> int:
    return client.post(INFER, json={"model_id": "tiny-solo", "image": IMAGE, **members}).status_code


def test_a_key_in_the_body_counts_and_any_other_is_refused(guarded: httpx.Client) -> None:
    assert infer(guarded, api_key=KEY) == 200
    assert [infer(guarded, api_key=key) for key in (WRONG, "", None, 3, [KEY])] == [401] * 5
    assert infer(guarded) == 401


def test_a_key_in_the_query_counts_below_roboflow_and_nowhere_else(guarded: httpx.Client) -> None:
    assert guarded.get("/roboflow/model/registry", params={"api_key": KEY}).status_code == 200
    assert guarded.get("/roboflow/model/registry", params={"api_key": WRONG}).status_code == 401
    assert guarded.get("/roboflow/model/registry", params={"api_key": "None"}).status_code == 401
    for path in ("/models", "/label-studio/health", "/roboflowers", "/v2/models/tiny-solo"):
        assert guarded.get(path, params={"api_key": KEY}).status_code == 401


def test_a_key_as_a_password_counts_below_label_studio_and_nowhere_else(guarded: httpx.Client) -> None:
    assert guarded.get("/label-studio/health", auth=("anyone", KEY)).status_code == 200
    assert guarded.get("/label-studio/health", auth=("anyone", WRONG)).status_code == 401
    for path in ("/models", "/roboflow/model/registry"):
        assert guarded.get(path, auth=("anyone", KEY)).status_code == 401
    for malformed in ("Basic", "Basic ?", "Basic " + base64.b64encode(b"\xff:\xff").decode(), f"Basic {KEY}"):
        assert guarded.get("/label-studio/health", headers={"authorization": malformed}).status_code == 401


def test_a_wrong_key_in_a_header_is_not_saved_by_the_body(guarded: httpx.Client) -> None:
    body = {"model_id": "tiny-solo", "image": IMAGE, "api_key": KEY}
    assert guarded.post(INFER, json=body, headers={"x-api-key": WRONG}).status_code == 401
    assert guarded.post(INFER, json={**body, "api_key": None}, headers={"x-api-key": KEY}).status_code == 200


@pytest.mark.parametrize("path", sorted(BODY_PATHS))
def test_every_route_that_may_have_its_key_in_the_body_checks_it_first(guarded: httpx.Client, path: str) -> None:
    for content in ({}, {"model_id": "other"}, {"model_id": 3, "image": None, "api_key": WRONG}):
        assert guarded.post(path, json=content).status_code == 401
    assert guarded.get(path).status_code == 401


def test_no_key_is_logged(guarded: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        guarded.get("/roboflow/model/registry", params={"api_key": KEY})
        guarded.get("/roboflow/model/registry", params={"api_key": WRONG})
        infer(guarded, api_key=KEY)
        infer(guarded, api_key=WRONG)
    logged = [record.getMessage() + str(record.__dict__) for record in caplog.records if "httpx" not in record.name]
    assert not any(KEY in line or WRONG in line for line in logged)


class ReadyService:
    """What `EarlyBodies` needs of a service. is_ready: whether requests are accepted."""

    settings = Settings(max_waiting=2)
    observer = Unobserved()
    is_ready = True

    def not_ready(self) -> NotReady:
        return NotReady("starting", "warming")


def request(*, awaited: bool) -> Request:
    return Request({"type": "http", "state": {"check_body_key": print} if awaited else {}})


def test_callers_without_a_key_cannot_keep_out_those_with_one() -> None:
    early = EarlyBodies(ReadyService())  # type: ignore[arg-type]  # a small one
    unknown = [early.place(request(awaited=True)) for _ in range(MAX_WITHOUT_KEY + 1)]
    for place in unknown[:-1]:
        place.__enter__()
    with pytest.raises(Overloaded) as refused, unknown[-1]:
        pass
    assert refused.value.reason == "bodies_full"
    known = [early.place(request(awaited=False)) for _ in range(ReadyService.settings.max_waiting)]
    for place in known:
        place.__enter__()
    with pytest.raises(Overloaded), early.place(request(awaited=False)):
        pass
    unknown[0].__exit__(None, None, None)
    with early.place(request(awaited=True)):
        pass


def test_no_body_is_received_before_requests_are_accepted() -> None:
    service = ReadyService()
    service.is_ready = False
    with pytest.raises(NotReady), EarlyBodies(service).place(request(awaited=False)):  # type: ignore[arg-type]  # a small one
        pass
