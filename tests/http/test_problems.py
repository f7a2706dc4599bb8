"""Failures as responses, and what they need: a process that only refuses requests loads no kernels."""

import json
import subprocess
import sys

import pytest
from solo_server.errors import NotReady, RequestError, ServerError, Unauthorized, UnknownModel
from solo_server.http.problems import SECURITY_HEADERS, problem_response


def test_a_failure_is_rendered_without_kernels_numpy_and_pydantic() -> None:
    script = """
import sys, solo_server.http.problems
print(*sorted({"numba", "numpy", "onnxruntime", "pydantic"} & set(sys.modules)))
print(*sorted(name for name in sys.modules if name.startswith("solo_server.")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    unwanted, own = done.stdout.split("\n")[:2]
    assert unwanted == ""
    assert own.split() == ["solo_server.errors", "solo_server.http", "solo_server.http.problems"]


@pytest.mark.parametrize(
    ("problem", "extra"),
    [
        (UnknownModel("no model 'x'"), {}),
        (Unauthorized("send a key"), {"www-authenticate": 'Bearer realm="solo"'}),
        (NotReady("loading", "warming", 5), {"retry-after": "5"}),
    ],
)
def test_a_problem_has_its_status_fields_and_headers(problem: ServerError, extra: dict[str, str]) -> None:
    response = problem_response(problem, "id-1")
    content = json.loads(bytes(response.body))
    assert response.status_code == content["status"] == problem.status
    assert (content["code"], content["detail"], content["request_id"]) == (problem.code, problem.detail, "id-1")
    assert content.get("reason") == (None if isinstance(problem, RequestError) else "warming")
    assert response.headers["content-type"] == "application/problem+json"
    assert (SECURITY_HEADERS | extra | {"x-request-id": "id-1"}).items() <= dict(response.headers).items()


@pytest.mark.parametrize(("path", "is_v2"), [("/v2", True), ("/v2/models", True), ("/v21", False), ("", False)])
def test_below_v2_a_problem_has_the_form_of_that_protocol(path: str, is_v2: bool) -> None:
    content = json.loads(bytes(problem_response(UnknownModel("no model 'x'"), "id-1", path).body))
    assert ("error" in content) == is_v2
    if is_v2:
        assert content == {"error": "no model 'x'", "code": "model_not_found", "request_id": "id-1"}
