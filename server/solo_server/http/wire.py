"""The wire format of `POST /segment`, which is the contract: parameters as they are read, and results as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from solo_models.spec import ModelSpec
from solo_models.suggestion import nearest
from solo_results.polygons import polygons_of_counts
from solo_results.types import Instance, Result, RleMask

from solo_server.errors import InvalidQuery
from solo_server.types import ImageResult, Query

MAX_INSTANCES = 500
MAX_TIMEOUT_MS = 600_000
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
TIMEOUT_KEY = TIMEOUT_HEADER.lower().encode()
_FILE_ADVICE = "; a file needs a file name"
OVERLAY_SCORE_THRESHOLD = 0.3  # overlays are for people: below this score they fill up with doubtful masks

Parameters = Mapping[str, str | float | Sequence[str]]
"""Parameters of `POST /segment` by name: one value each, or a sequence of values where a parameter is given several times."""


class SegmentQuery(BaseModel):
    """The checked parameters of `POST /segment`; unknown names are refused."""

    model_config = ConfigDict(extra="forbid")

    score_threshold: Annotated[
        float | None,
        Field(ge=0, le=1, description="lowest final score of an instance (default 0.05; for overlays 0.3)"),
    ] = None
    max_instances: Annotated[
        int | None, Field(ge=1, le=MAX_INSTANCES, description="most instances to return (default 100)")
    ] = None
    classes: Annotated[
        tuple[str, ...] | None,
        Field(description="class names or ids, comma-separated; repeat the parameter for a name with a comma in it"),
    ] = None
    nms: Annotated[
        Literal["matrix", "mask", "none"] | None,
        Field(description="matrix NMS (as in the reference, default), greedy mask NMS, or none"),
    ] = None
    format: Annotated[
        Literal["rle", "polygon", "coco", "png", "overlay"],
        Field(
            description="JSON with masks as RLE or as polygons; COCO results; a 16-bit PNG with the number of the instance at each "
            "pixel; or a PNG with the instances drawn. The last three are of one image a request"
        ),
    ] = "rle"
    tolerance: Annotated[
        float | None,
        Field(
            ge=0,
            le=1000,
            description="polygons only: pixels that outlines may move for fewer points (default 0: exact)",
        ),
    ] = None
    overlay: Annotated[
        bool, Field(description="add the PNG to the JSON answer as overlay_png, in base64; one image a request")
    ] = False
    colour_by: Annotated[
        Literal["instance", "class"], Field(description="overlays: a colour for each instance, or for each class")
    ] = "instance"

    @property
    def overlay_threshold(self) -> float:
        """The lowest score that an overlay draws."""
        return OVERLAY_SCORE_THRESHOLD if self.score_threshold is None else self.score_threshold

    def to_query(self, spec: ModelSpec, hint: str = "GET /model lists them") -> Query:
        """The query for the pipeline, with class names resolved; for overlays it includes instances that are only counted.

        hint: tells the caller of an unknown class where the known ones are listed.

        Raises:
            InvalidQuery: the model has no such class; `overlay` is combined with a format that is not our JSON; or `tolerance` with
                one that is not `polygon`.
        """
        if self.overlay and self.format == "overlay":
            raise InvalidQuery("overlay: adds the PNG to a JSON answer, but this request asks for the PNG only")
        if self.overlay and self.format in ("coco", "png"):
            raise InvalidQuery(f"overlay: adds the PNG to our own JSON; format={self.format} has no place for it")
        if self.tolerance is not None and self.format != "polygon":
            raise InvalidQuery("tolerance: is for format=polygon")
        threshold = self.score_threshold
        if threshold is not None and (self.overlay or self.format == "overlay"):
            threshold = min(threshold, spec.postprocess.score_threshold)
        class_ids = None if self.classes is None else _class_ids(self.classes, spec, hint)
        return Query(threshold, self.max_instances, class_ids, self.nms)

    def filter_result(self, result: ImageResult) -> ImageResult:
        """The result for a JSON answer with an overlay: without the instances that the overlay only counts."""
        if self.score_threshold is None:
            return result
        lowest = np.float32(self.score_threshold)  # the type that scores are compared in
        return replace(result, instances=tuple(each for each in result.instances if np.float32(each.score) >= lowest))


_NAMES = sorted(SegmentQuery.model_fields)
DEFAULTS = SegmentQuery()
"""The query without any parameters."""


def gather(pairs: Iterable[tuple[str, str]]) -> Parameters:
    """The parameters of a query string or a form, with all values of each in their order."""
    gathered: dict[str, list[str]] = {}
    for name, value in pairs:
        gathered.setdefault(name, []).append(value)
    return gathered


def join_form(query: Parameters, form: Parameters) -> Parameters:
    """The parameters of a query string and of the form in the same request.

    Raises:
        InvalidQuery: a parameter is in both, or a field of the form is unknown.
    """
    for name in form:
        if name not in SegmentQuery.model_fields:
            raise unknown_parameter(f"the form field {name[:60]!r} is not a parameter", name, _NAMES, _FILE_ADVICE)
        if name in query:
            raise InvalidQuery(f"{name}: is in the query and in the form; give it once")
    return {**query, **form}


def read_query(parameters: Parameters) -> SegmentQuery:
    """Check the parameters of a request.

    Done here because FastAPI takes a third of a millisecond for it in every request.

    Raises:
        InvalidQuery: a parameter is unknown, has an invalid value, or has several values and is not `classes`.
    """
    content: dict[str, Any] = {}
    for name, value in parameters.items():
        values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if name not in SegmentQuery.model_fields:
            raise unknown_parameter(f"unknown parameter {name[:60]!r}", name, _NAMES)
        if name != "classes" and len(values) != 1:
            raise InvalidQuery(f"{name}: is given {len(values)} times; give it once")
        content[name] = values if name == "classes" else values[0]
    try:
        return SegmentQuery.model_validate(content)
    except ValidationError as problem:
        raise invalid_query(problem.errors()) from problem


def unknown_parameter(message: str, name: str, known: Iterable[str], advice: str = "") -> InvalidQuery:
    """A problem with the message, the known name nearest to `name`, and all known names."""
    names = list(known)
    match = nearest(name[:60].lower().replace("-", "_"), names)
    suggestion = f"; did you mean {match}?" if match else ";"
    return InvalidQuery(f"{message}{suggestion} known are {', '.join(names)}{advice}")


def read_timeout(text: str | None, name: str = TIMEOUT_HEADER) -> int | None:
    """The header `X-Request-Timeout-Ms`, in milliseconds. name: of the parameter, where it is one.

    Raises:
        InvalidQuery: not a whole number from 1 to `MAX_TIMEOUT_MS`.
    """
    if text is None:
        return None
    if not (text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MAX_TIMEOUT_MS):
        raise InvalidQuery(f"{name}: must be a whole number of milliseconds, 1 to {MAX_TIMEOUT_MS}")
    return int(text)


def openapi_parameters() -> list[dict[str, Any]]:
    """The parameters of `read_query` and `read_timeout`, for the OpenAPI document."""
    return [
        *({"name": name, "in": "query", "required": False, "schema": schema, "description": schema.get("description", "")}
          for name, schema in SegmentQuery.model_json_schema()["properties"].items()),
        timeout_parameter(),
    ]  # fmt: skip


def form_properties() -> dict[str, Any]:
    """The parameters of `read_query` as fields of a form, for the OpenAPI document."""
    return dict(SegmentQuery.model_json_schema()["properties"])


def timeout_parameter() -> dict[str, Any]:
    """The header of `read_timeout`, for the OpenAPI document."""
    schema = {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS}
    description = "answer within this many milliseconds, or with 504; images that time out are not inferred"
    return {"name": TIMEOUT_HEADER, "in": "header", "required": False, "schema": schema, "description": description}


def invalid_query(errors: Sequence[Any]) -> InvalidQuery:
    """The first of pydantic's errors, as `parameter: message`."""
    first = errors[0]
    return InvalidQuery(f"{first['loc'][0] if first['loc'] else 'query'}: {first['msg']}")


def result_json(
    result: ImageResult, name: str, version: str, class_names: Sequence[str], query: SegmentQuery = DEFAULTS
) -> dict[str, Any]:
    """The JSON of one image. name, version: of the model, as it is served; query: decides how masks are given."""
    return {
        "image": {"width": result.original_hw[1], "height": result.original_hw[0]},
        "model": {"name": name, "version": version},
        "timings_ms": {stage: round(ms, 3) for stage, ms in result.timings_ms.items()},
        "instances": [
            {
                "label": class_names[i.class_id],
                "class_id": i.class_id,
                "score": round(i.score, 6),
                "box_xywh": list(i.box_xywh),
                "area": i.area,
                **mask,
            }
            for i, mask in zip(result.instances, _masks(result, query), strict=True)
        ],
    }


def named_result(result: ImageResult, name: str, version: str, class_names: Sequence[str]) -> Result:
    """The result as the record that `solo_results.formats` writes."""
    instances = (
        Instance(
            class_names[i.class_id],
            i.class_id,
            round(i.score, 6),
            i.box_xywh,
            i.area,
            RleMask(i.mask.size, i.mask.counts),
        )
        for i in result.instances
    )
    height, width = result.original_hw
    return Result(width, height, name, version, result.timings_ms, tuple(instances))


def _masks(result: ImageResult, query: SegmentQuery) -> list[dict[str, Any]]:
    """The member `mask` or `polygons` of each instance."""
    if query.format != "polygon":
        return [{"mask": {"size": list(i.mask.size), "counts": i.mask.counts}} for i in result.instances]
    counts = [instance.mask.counts for instance in result.instances]
    parts_of_masks = polygons_of_counts(result.original_hw, counts, query.tolerance or 0.0)
    return [{"polygons": [part.to_flat() for part in parts]} for parts in parts_of_masks]


def _class_ids(values: Iterable[str], spec: ModelSpec, hint: str) -> tuple[int, ...]:
    """The ids without duplicates. A value that equals a class name is that class; any other is split at its commas."""
    ids = {name: number for number, name in reversed(list(enumerate(spec.class_names)))}
    are_numbers = any(map(_is_digits, ids))
    split = ([value] if value in ids else value.split(",") for value in values)
    return tuple(dict.fromkeys(_class_id(name, ids, are_numbers, spec, hint) for names in split for name in names))


def _class_id(name: str, ids: Mapping[str, int], are_numbers: bool, spec: ModelSpec, hint: str) -> int:
    """The id of a class name, or the id itself. are_numbers: some names are digits; ids are not accepted then."""
    stripped = name.strip()
    for form in (name, stripped):
        if form in ids:
            return ids[form]
    unknown = f"classes: the model has no class {stripped[:60]!r}; {hint}"
    if are_numbers and _is_digits(stripped):
        raise InvalidQuery(f"{unknown}; this model has class names that are numbers, so ids are not accepted")
    if (
        _is_digits(stripped)
        and len(stripped) < 10
        and str(int(stripped)) == stripped
        and int(stripped) < spec.num_classes
    ):
        return int(stripped)
    if any("," in known for known in ids):
        unknown += "; repeat `classes` for each name with a comma in it"
    raise InvalidQuery(unknown)


def _is_digits(name: str) -> bool:
    """Whether the name could be an id."""
    return name.isascii() and name.isdecimal()
