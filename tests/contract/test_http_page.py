"""docs/http.md names every code and the real limits, and shows a real answer."""

import json
import re

import pytest
import solo_server.errors
from solo_server.commands.local import open_local
from solo_server.errors import ServerError
from solo_server.http.forms import MAX_FIELD_BYTES, MAX_FIELDS
from solo_server.settings import Settings
from support.paths import ROOT

PAGE = (ROOT / "docs" / "http.md").read_text()
LIMITS = re.search(r"### Limits\n(.*?)\n#", PAGE, re.DOTALL)


def test_the_limits_on_the_page_are_the_defaults_of_the_settings() -> None:
    assert LIMITS is not None
    assert "[limits](#limits)" in PAGE
    rows = re.findall(r"^\| [^|]+ \| ([\d, ]+) \| (?:`SOLO_(\w+)`)? ?\| \d{3} `\w+`", LIMITS[1], re.MULTILINE)
    assert len(rows) == LIMITS[1].count("\n| ")  # the heading, at its beginning, is not counted
    of_settings = {name.lower(): int(default) for default, name in rows if name}
    assert of_settings == {name: getattr(Settings(), name) for name in of_settings}
    assert {"max_body_bytes", "max_pixels", "max_side", "max_files", "request_timeout_ms"} <= set(of_settings)
    assert [default.strip() for default, name in rows if not name] == [f"{MAX_FIELDS}, {MAX_FIELD_BYTES}"]


def test_every_problem_code_is_on_the_page() -> None:
    kinds = [
        kind for kind in vars(solo_server.errors).values() if isinstance(kind, type) and issubclass(kind, ServerError)
    ]
    missing = {(kind.status, kind.code) for kind in kinds if f"`{kind.code}`" not in PAGE}
    assert missing == set()


@pytest.mark.parametrize("page", ["README.md", "docs/http.md"])
def test_the_answer_on_the_page_is_that_of_the_demo_model(page: str) -> None:
    query = {"score_threshold": "0.3"}
    assert "score_threshold=0.3" in (ROOT / page).read_text()
    shown = json.loads(re.findall(r"```json\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)[0])
    answer = open_local(None).segment((ROOT / "tests" / "images" / "astronaut.jpg").read_bytes(), query)
    assert (shown["image"], shown["model"]) == (answer["image"], answer["model"])
    assert {"queue", *answer["timings_ms"]} == set(shown["timings_ms"])
    assert len(shown["instances"]) == len(answer["instances"])
    for on_page, real in zip(shown["instances"], answer["instances"], strict=True):
        assert on_page.keys() == real.keys()
        assert (on_page["label"], on_page["class_id"]) == (real["label"], real["class_id"])
        assert on_page["score"] == pytest.approx(real["score"], abs=2e-3)  # processors round differently
        assert on_page["box_xywh"] == pytest.approx(real["box_xywh"], abs=2)
        assert on_page["area"] == pytest.approx(real["area"], rel=0.01)
        assert on_page["mask"]["size"] == real["mask"]["size"]
        assert on_page["mask"]["counts"].endswith("...")
