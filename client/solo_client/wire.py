"""From the bytes of an answer to records: the wire format, read strictly. `protocol` calls it, and so does the command.

A part that is missing or of another form raises UnexpectedAnswer with its path; members that this version does not know
are passed over, so that a newer server can add some.
"""

from __future__ import annotations

import base64
import json

from solo_client.errors import Problem, ServerProblem, UnexpectedAnswer, error_of
from solo_client.field import ROOT, Field
from solo_client.media import PNG_MAGIC
from solo_client.types import Instance, Result, RleMask


def parse_json(body: bytes) -> object:
    """The JSON value of a body.

    Raises:
        UnexpectedAnswer: the body is no JSON (`NaN` and `Infinity` are none either).
    """
    try:
        value: object = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UnexpectedAnswer(ROOT, f"is not JSON: {error}") from error
    return value


def parse_result(answer: object) -> Result:
    """The answer about one image, after `parse_json`.

    Raises:
        UnexpectedAnswer: some part is missing or of another form, named.
    """
    return _result(Field(ROOT, answer))


def parse_drawn(answer: object) -> tuple[Result, bytes]:
    """The answer about one image that was asked for with `overlay=true`, and the PNG in it.

    Raises:
        UnexpectedAnswer: some part is missing or of another form, named.
    """
    body = Field(ROOT, answer)
    overlay = body.member("overlay_png")
    try:
        png = base64.b64decode(overlay.text(), validate=True)
    except ValueError as error:
        raise UnexpectedAnswer(overlay.path, f"is not base64: {error}") from error
    if not png.startswith(PNG_MAGIC):
        raise UnexpectedAnswer(overlay.path, "is no PNG")
    return _result(body), png


def parse_results(answer: object, count: int) -> list[Result | ServerProblem]:
    """The answer about `count` images sent together, in their order; an image that failed is its error.

    Raises:
        UnexpectedAnswer: some part is missing or of another form, named, or there are not `count` results.
    """
    body = Field(ROOT, answer)
    if count == 1:
        return [_result(body)]
    return [
        error_of(_problem(entry.member("error"))) if "error" in entry.members() else _result(entry)
        for entry in body.member("results").items(count)
    ]


def parse_problem(answer: object) -> Problem:
    """A problem, after `parse_json`.

    Raises:
        UnexpectedAnswer: some part is missing or of another form, named.
    """
    return _problem(Field(ROOT, answer))


def _result(body: Field) -> Result:
    image, model = body.member("image"), body.member("model")
    width, height = image.member("width").whole(1), image.member("height").whole(1)
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
    x, y, w, h = (side.whole() for side in entry.member("box_xywh").items(4))
    return Instance(
        label=entry.member("label").text(),
        class_id=entry.member("class_id").whole(),
        score=entry.member("score").number(1.0),
        box_xywh=(x, y, w, h),
        area=entry.member("area").whole(),
        mask=_mask(entry.member("mask"), image_hw),
    )


def _mask(mask: Field, image_hw: tuple[int, int]) -> RleMask:
    size = mask.member("size")
    height, width = (side.whole() for side in size.items(2))
    if (height, width) != image_hw:
        raise size.unexpected(f"the image's {list(image_hw)}")
    return RleMask(size=(height, width), counts=mask.member("counts").text())


def _problem(problem: Field) -> Problem:
    return Problem(
        type=problem.member("type").text(),
        title=problem.member("title").text(),
        status=problem.member("status").whole(100),
        detail=problem.member("detail").text(),
        code=problem.member("code").text(),
        request_id=problem.member("request_id").text(),
    )


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON number")
