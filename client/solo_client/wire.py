"""Parses the body of a response into records, strictly. Called by `protocol` and by the command.

A missing or malformed part raises UnexpectedAnswer with its path. Unknown members are ignored, so that a newer server can
add some.
"""

from __future__ import annotations

import base64
import json

from solo_results.types import Instance, Result, RleMask

from solo_client.errors import Problem, ServerProblem, UnexpectedAnswer, error_of
from solo_client.field import ROOT, Field
from solo_client.media import PNG_MAGIC


def parse_json(body: bytes) -> object:
    """Parse a body as JSON.

    Raises:
        UnexpectedAnswer: the body is not JSON; `NaN` and `Infinity` are not valid either.
    """
    try:
        value: object = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UnexpectedAnswer(ROOT, f"is not JSON: {error}") from error
    return value


def parse_result(value: object) -> Result:
    """The result for one image; value: from `parse_json`.

    Raises:
        UnexpectedAnswer: a part is missing or malformed; `field` names it.
    """
    return _result(Field(ROOT, value))


def parse_drawn(value: object) -> tuple[Result, bytes]:
    """The result for one image requested with `overlay=true`, and the PNG in it.

    Raises:
        UnexpectedAnswer: a part is missing or malformed; `field` names it.
    """
    body = Field(ROOT, value)
    overlay = body.member("overlay_png")
    try:
        png = base64.b64decode(overlay.text(), validate=True)
    except ValueError as error:
        raise UnexpectedAnswer(overlay.path, f"is not base64: {error}") from error
    if not png.startswith(PNG_MAGIC):
        raise UnexpectedAnswer(overlay.path, "is not a PNG")
    return _result(body), png


def parse_results(value: object, count: int) -> list[Result | ServerProblem]:
    """The results for `count` images sent together, in their order; for an image that failed, its error.

    Raises:
        UnexpectedAnswer: a part is missing or malformed (`field` names it), or there are not `count` results.
    """
    body = Field(ROOT, value)
    if count == 1:
        return [_result(body)]
    return [
        error_of(_problem(entry.member("error"))) if "error" in entry.members() else _result(entry)
        for entry in body.member("results").items(count)
    ]


def parse_problem(value: object) -> Problem:
    """A problem; value: from `parse_json`.

    Raises:
        UnexpectedAnswer: a part is missing or malformed; `field` names it.
    """
    return _problem(Field(ROOT, value))


def _result(body: Field) -> Result:
    image, model = body.member("image"), body.member("model")
    width, height = image.member("width").integer(1), image.member("height").integer(1)
    timings = body.member("timings_ms")
    timings.member("total")
    return Result(
        width=width,
        height=height,
        model_name=model.member("name").text(),
        model_version=model.member("version").text(),
        timings_ms={stage: time.number() for stage, time in timings.members().items()},
        instances=tuple(_instance(entry, (height, width)) for entry in body.member("instances").items()),
    )


def _instance(entry: Field, image_hw: tuple[int, int]) -> Instance:
    x, y, w, h = (side.integer() for side in entry.member("box_xywh").items(4))
    return Instance(
        label=entry.member("label").text(),
        class_id=entry.member("class_id").integer(),
        score=entry.member("score").number(1.0),
        box_xywh=(x, y, w, h),
        area=entry.member("area").integer(),
        mask=_mask(entry.member("mask"), image_hw),
    )


def _mask(mask: Field, image_hw: tuple[int, int]) -> RleMask:
    size = mask.member("size")
    height, width = (side.integer() for side in size.items(2))
    if (height, width) != image_hw:
        raise size.unexpected(f"the image's {list(image_hw)}")
    return RleMask(size=(height, width), counts=mask.member("counts").text())


def _problem(problem: Field) -> Problem:
    return Problem(
        type=problem.member("type").text(),
        title=problem.member("title").text(),
        status=problem.member("status").integer(100),
        detail=problem.member("detail").text(),
        code=problem.member("code").text(),
        request_id=problem.member("request_id").text(),
    )


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")
