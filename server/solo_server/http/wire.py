"""The HTTP edge: what a query may hold, and results as the JSON that callers see. The wire format is the contract."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from solo_models.spec import ModelSpec
from solo_models.suggestion import nearest

from solo_server.errors import InvalidQuery, ServerError, Unavailable
from solo_server.service.model_registry import ModelStatus
from solo_server.service.served_model import ServedModel
from solo_server.types import ImageResult, Query

MAX_INSTANCES = 500
MAX_TIMEOUT_MS = 600_000
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
TIMEOUT_KEY = TIMEOUT_HEADER.lower().encode()
_FILE_ADVICE = "; a part that is a file needs a file name"
OVERLAY_SCORE_THRESHOLD = 0.3  # an image for people: below it overlays fill up with doubtful masks


class SegmentQuery(BaseModel):
    """Query parameters of `POST /segment`; unknown names are refused."""

    model_config = ConfigDict(extra="forbid")

    score_threshold: Annotated[
        float | None, Field(ge=0, le=1, description="lowest final score (default 0.05; for overlays 0.3)")
    ] = None
    max_instances: Annotated[int | None, Field(ge=1, le=MAX_INSTANCES, description="at most so many (default 100)")] = (
        None
    )
    classes: Annotated[
        tuple[str, ...] | None,
        Field(
            description="names or ids of the wanted classes: comma-separated, repeated for a name with a comma, or both"
        ),
    ] = None
    nms: Annotated[
        Literal["matrix", "mask", "none"] | None,
        Field(description="matrix NMS (reference, default), greedy mask NMS, or none"),
    ] = None
    format: Annotated[Literal["rle", "overlay"], Field(description="JSON with RLE masks, or a PNG to look at")] = "rle"
    overlay: Annotated[
        bool, Field(description="the JSON answer also has that PNG, as overlay_png in base64; one image a request")
    ] = False

    @property
    def drawn_from(self) -> float:
        """Of overlays: the lowest score that is drawn."""
        return OVERLAY_SCORE_THRESHOLD if self.score_threshold is None else self.score_threshold

    def to_query(self, spec: ModelSpec, hint: str = "GET /model lists them") -> Query:
        """Resolve class names against a model; for overlays with the instances that are counted but not drawn.

        hint: where the caller finds the names that there are.

        Raises:
            InvalidQuery: a class that the model does not know; an overlay in an answer that is one.
        """
        if self.overlay and self.format == "overlay":
            raise InvalidQuery("overlay: adds the PNG to a JSON answer, but this request asks for the PNG alone")
        threshold = self.score_threshold
        if threshold is not None and (self.overlay or self.format == "overlay"):
            threshold = min(threshold, spec.postprocess.score_threshold)
        class_ids = None if self.classes is None else _class_ids(self.classes, spec, hint)
        return Query(threshold, self.max_instances, class_ids, self.nms)

    def answered(self, result: ImageResult) -> ImageResult:
        """What a JSON answer with an overlay has: not the instances that the overlay only counts."""
        if self.score_threshold is None:
            return result
        lowest = np.float32(self.score_threshold)  # as the network's scores are compared with it
        return replace(result, instances=tuple(each for each in result.instances if np.float32(each.score) >= lowest))


_NAMES = sorted(SegmentQuery.model_fields)
DEFAULTS = SegmentQuery()
"""What `read_query` makes of no parameters."""
Parameters = dict[str, list[str]]
"""Names with all values that were given, in their order."""


def gather(pairs: Iterable[tuple[str, str]]) -> Parameters:
    """Names and values of a query or a form, as they came."""
    gathered: Parameters = {}
    for name, value in pairs:
        gathered.setdefault(name, []).append(value)
    return gathered


def join_form(query: Parameters, form: Parameters) -> Parameters:
    """Parameters of a query and of the form that came with it.

    Raises:
        InvalidQuery: one is given both ways, or a field of the form is unknown.
    """
    for name in form:
        if name not in SegmentQuery.model_fields:
            raise unknown_parameter(f"the form's field {name[:60]!r} is no parameter", name, _NAMES, _FILE_ADVICE)
        if name in query:
            raise InvalidQuery(f"{name}: is given in the query and in the form; give it once")
    return query | form


def read_query(parameters: Mapping[str, Any]) -> SegmentQuery:
    """Parameters with a value each, or a sequence of values where one was given several times.

    FastAPI would do the same in a third of a millisecond, for every request.

    Raises:
        InvalidQuery: one is unknown, has an impossible value, or several values and is not `classes`.
    """
    content = {}
    for name, given in parameters.items():
        values = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        if name not in SegmentQuery.model_fields:
            raise unknown_parameter(f"there is no parameter {name[:60]!r}", name, _NAMES)
        if name != "classes" and len(values) != 1:
            raise InvalidQuery(f"{name}: is given {len(values)} times; give it once")
        content[name] = values if name == "classes" else values[0]
    try:
        return SegmentQuery.model_validate(content)
    except ValidationError as problem:
        raise invalid_query(problem.errors()) from problem


def unknown_parameter(told: str, name: str, known: Iterable[str], advice: str = "") -> InvalidQuery:
    """What was told, the nearest known name, and all of them."""
    names = list(known)
    found = nearest(name[:60].lower().replace("-", "_"), names)
    suggestion = f"; did you mean {found}?" if found else ";"
    return InvalidQuery(f"{told}{suggestion} known are {', '.join(names)}{advice}")


def read_timeout(text: str | None) -> int | None:
    """The header `X-Request-Timeout-Ms`, in milliseconds.

    Raises:
        InvalidQuery: it is no whole number of 1 to `MAX_TIMEOUT_MS`.
    """
    if text is None:
        return None
    if not (text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MAX_TIMEOUT_MS):
        raise InvalidQuery(f"{TIMEOUT_HEADER}: must be a whole number of milliseconds, 1 to {MAX_TIMEOUT_MS}")
    return int(text)


def openapi_parameters() -> list[dict[str, Any]]:
    """What `read_query` and `read_timeout` take, for the OpenAPI document."""
    return [
        *({"name": name, "in": "query", "required": False, "schema": schema, "description": schema.get("description", "")}
          for name, schema in SegmentQuery.model_json_schema()["properties"].items()),
        timeout_parameter(),
    ]  # fmt: skip


def form_properties() -> dict[str, Any]:
    """The same parameters as fields of a form, for the OpenAPI document."""
    return dict(SegmentQuery.model_json_schema()["properties"])


def timeout_parameter() -> dict[str, Any]:
    """What `read_timeout` takes, for the OpenAPI document."""
    timeout = {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS}
    told = "answer within so many milliseconds, or with 504; an image whose time is over is not inferred"
    return {"name": TIMEOUT_HEADER, "in": "header", "required": False, "schema": timeout, "description": told}


def invalid_query(errors: Sequence[Any]) -> InvalidQuery:
    """The first of pydantic's complaints, as `parameter: what is wrong`."""
    first = errors[0]
    return InvalidQuery(f"{first['loc'][0] if first['loc'] else 'query'}: {first['msg']}")


def result_json(result: ImageResult, name: str, version: str, class_names: Sequence[str]) -> dict[str, Any]:
    """The answer for one image. name, version: of the model, as it is served."""
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
                "mask": {"size": list(i.mask.size), "counts": i.mask.counts},
            }
            for i in result.instances
        ],
    }


def model_json(served: ServedModel) -> dict[str, Any]:
    """The answer of `GET /models/{name}`. bundle: twelve hex digits that tell the content, whatever the version is called."""
    pipeline = served.pipeline
    bundle = pipeline.bundle
    return {
        "name": served.name,
        "version": served.version,
        "bundle": bundle.version,
        "precision": bundle.precision,
        "engine": pipeline.backend.description,
        "engine_reason": pipeline.engine_reason,
        "classes": list(bundle.spec.class_names),
        "spec": bundle.spec.to_dict(),
        "provenance": bundle.provenance,
        "parity": bundle.parity,
    }


def listed_json(listed: Sequence[ModelStatus], default: str | None) -> dict[str, Any]:
    """The answer of `GET /models`."""
    return {"default": default, "models": [_listed(one) for one in listed]}


def _listed(one: ModelStatus) -> dict[str, Any]:
    content: dict[str, Any] = {"name": one.name, "version": one.version, "state": one.state}
    if one.served is None:
        return content
    pipeline = one.served.pipeline
    bundle = pipeline.bundle
    engine = pipeline.backend.description
    return content | {"bundle": bundle.version, "precision": bundle.precision, "engine": engine}


def problem_json(problem: ServerError, request_id: str) -> dict[str, Any]:
    """A failure as RFC 9457 problem details with a stable `code`; those that can pass also have a `reason`."""
    content = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }
    return content | {"reason": problem.reason} if isinstance(problem, Unavailable) else content


def _class_ids(values: Iterable[str], spec: ModelSpec, hint: str) -> tuple[int, ...]:
    """Each once. A value that is exactly a name is taken whole, any other is split at its commas."""
    ids = {name: number for number, name in reversed(list(enumerate(spec.class_names)))}
    are_numbers = any(map(_is_digits, ids))
    whole = ([value] if value in ids else value.split(",") for value in values)
    return tuple(dict.fromkeys(_class_id(name, ids, are_numbers, spec, hint) for names in whole for name in names))


def _class_id(name: str, ids: Mapping[str, int], are_numbers: bool, spec: ModelSpec, hint: str) -> int:
    """Of a name, or an id itself. are_numbers: some names are digits; there are no ids then, which could be taken for names."""
    stripped = name.strip()
    for form in (name, stripped):
        if form in ids:
            return ids[form]
    unknown = f"classes: the model has no class {stripped[:60]!r}; {hint}"
    if are_numbers and _is_digits(stripped):
        raise InvalidQuery(f"{unknown}; names of this model are numbers, so that ids cannot be given")
    if (
        _is_digits(stripped)
        and len(stripped) < 10
        and str(int(stripped)) == stripped
        and int(stripped) < spec.num_classes
    ):
        return int(stripped)
    if any("," in known for known in ids):
        unknown += "; give `classes` once for each name that has a comma"
    raise InvalidQuery(unknown)


def _is_digits(name: str) -> bool:
    """Whether it could be an id."""
    return name.isascii() and name.isdecimal()
