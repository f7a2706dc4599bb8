"""Parsing requests of Label Studio: tasks with their images, and the labelling configuration. Fetches and decodes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from solo_server.errors import InvalidQuery
from solo_server.http.json_bodies import json_object, member_list, member_object, member_text
from solo_server.http.label_studio.labelling_config import ControlTag, read_labelling_config
from solo_server.types import Query

MAX_VALUES = 4_000_000
"""Tasks come with their annotations, whose brush masks are arrays of numbers below 256: 8 bytes each as Python objects."""
MAX_TASKS = 1000


@dataclass(frozen=True, slots=True)
class Task:
    """One task. data: its data, whose members name images; image_key: which of them; field: its place in the request."""

    data: Mapping[str, Any]
    image_key: str
    field: str

    @property
    def image_field(self) -> str:
        """The place of the image in the request, for errors."""
        return f"{self.field}.data.{self.image_key}"

    def image_uri(self) -> str:
        """The URI of the image. Raises InvalidQuery: the task has none."""
        if self.image_key not in self.data:
            raise InvalidQuery("is missing; the labelling configuration names it")
        return member_text(self.data[self.image_key], "the image")


@dataclass(frozen=True, slots=True)
class PredictBody:
    """A parsed body of `/predict`."""

    tasks: tuple[Task, ...]
    tags: tuple[ControlTag, ...]


def read_predict(body: bytes) -> PredictBody:
    """What a body of `/predict` asks for.

    Raises:
        InvalidQuery: a member is missing or of a wrong type, there are too many tasks, or the configuration cannot be used.
    """
    content = json_object(body, MAX_VALUES)
    tasks = member_list(content.get("tasks"), "tasks")
    if not 1 <= len(tasks) <= MAX_TASKS:
        raise InvalidQuery(f"tasks: has {len(tasks)} tasks; 1 to {MAX_TASKS} are accepted at a time")
    tags = read_labelling_config(member_text(content.get("label_config"), "label_config"))
    key = tags[0].data_key
    return PredictBody(tuple(_task(task, key, f"tasks[{i}]") for i, task in enumerate(tasks)), tags)


def read_setup(body: bytes) -> tuple[ControlTag, ...]:
    """The tags in a body of `/setup`; raises what `read_predict` raises."""
    content = json_object(body, MAX_VALUES)
    return read_labelling_config(member_text(content.get("schema"), "schema"))


def to_query(tags: Sequence[ControlTag], class_names: Sequence[str]) -> Query:
    """The query that finds what any of the tags labels.

    Raises:
        InvalidQuery: no label is a class of the model.
    """
    class_ids = sorted({class_id for tag in tags for class_id in tag.labels_of_classes(class_names)})
    if not class_ids:
        known = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
        advice = "name classes as labels, or in the attribute predicted_values of a <Label>"
        raise InvalidQuery(f"label_config: no label is a class of the model, which has {known}; {advice}")
    return Query(min(tag.score_threshold for tag in tags), None, tuple(class_ids))


def _task(value: Any, image_key: str, field: str) -> Task:
    return Task(member_object(member_object(value, field).get("data"), f"{field}.data"), image_key, field)
