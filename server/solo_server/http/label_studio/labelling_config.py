"""Label Studio's labelling configuration, an XML text: which tags label an image, where a task has that image, and the labels.

    <View>
      <Image name="image" value="$photo"/>
      <BrushLabels name="mask" toName="image" model_score_threshold="0.5">
        <Label value="Car"/>  <Label value="Vehicle" predicted_values="bus,truck"/>
      </BrushLabels>
    </View>

`model_score_threshold`, `model_skip` and `predicted_values` are the attributes of Label Studio's own backends. The text comes from
outside: a document type, and with it every entity, is refused, and so are very large texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.parsers import expat

from solo_server.errors import InvalidQuery
from solo_server.http.wire import OVERLAY_SCORE_THRESHOLD

BRUSH, POLYGON, RECTANGLE = "brushlabels", "polygonlabels", "rectanglelabels"
KINDS = (BRUSH, POLYGON, RECTANGLE)
MAX_TEXT_BYTES = 1 << 20
MAX_ELEMENTS = 20_000
_TAGS = "<BrushLabels>, <PolygonLabels> or <RectangleLabels>"


@dataclass(frozen=True, slots=True)
class Label:
    """One label. value: as results name it; names: the model's classes that it stands for, by name."""

    value: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ControlTag:
    """A tag that labels an image. kind: one of `KINDS`; data_key: the member of a task's data that has the image."""

    kind: str
    name: str
    to_name: str
    data_key: str
    score_threshold: float
    labels: tuple[Label, ...]

    def labels_of_classes(self, class_names: Sequence[str]) -> dict[int, str]:
        """The label of each class that has one, by class id. Names that differ in case only are the same if none is equal."""
        by_name = {name: label.value for label in reversed(self.labels) for name in label.names}
        by_folded_name = {name.casefold(): value for name, value in by_name.items()}
        found = ((i, by_name.get(name, by_folded_name.get(name.casefold()))) for i, name in enumerate(class_names))
        return {class_id: value for class_id, value in found if value is not None}


def read_labelling_config(text: str) -> tuple[ControlTag, ...]:
    """The tags that this server makes predictions for: at least one, all for the same image.

    Raises:
        InvalidQuery: no valid XML, too large, with a document type, without such a tag for an image, or with several images.
    """
    elements = _Elements(text)
    tags = tuple(
        _control_tag(kind, attributes, labels, elements.images[attributes["toName"]])
        for kind, attributes, labels in elements.controls
        if elements.images.get(attributes.get("toName", ""), "").startswith("$")
    )
    if not tags:
        raise InvalidQuery(f"label_config: has no {_TAGS} for an <Image> whose value is a variable, such as $image")
    if len({tag.to_name for tag in tags}) > 1:
        raise InvalidQuery("label_config: labels several images; one is supported")
    return tags


class _Elements:
    """The elements of a configuration that matter. images: values by name; controls: kind, attributes and labels of each."""

    def __init__(self, text: str) -> None:
        self.images: dict[str, str] = {}
        self.controls: list[tuple[str, Mapping[str, str], list[Mapping[str, str]]]] = []
        self._count = 0
        self._open: list[
            list[Mapping[str, str]] | None
        ] = []  # of each open element: its labels, if it is a control tag
        encoded = text.encode("utf-8", "surrogatepass")
        if len(encoded) > MAX_TEXT_BYTES:
            raise InvalidQuery(f"label_config: has more than {MAX_TEXT_BYTES} bytes")
        parser = expat.ParserCreate("utf-8")
        parser.StartDoctypeDeclHandler = self._refuse_document_type
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        try:
            parser.Parse(encoded, True)
        except expat.ExpatError as problem:
            raise InvalidQuery(f"label_config: is not valid XML: line {problem.lineno}") from problem

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS:
            raise InvalidQuery(f"label_config: has more than {MAX_ELEMENTS} elements")
        kind = tag.lower()
        labels: list[Mapping[str, str]] | None = None
        if kind == "image":
            self.images[attributes.get("name", "")] = attributes.get("value", "")
        elif kind in KINDS and attributes.get("model_skip", "false").lower() != "true":
            labels = []
            self.controls.append((kind, attributes, labels))
        elif kind == "label" and self._open and self._open[-1] is not None:
            self._open[-1].append(attributes)
        self._open.append(labels)

    def _end(self, _: str) -> None:
        self._open.pop()

    def _refuse_document_type(self, *_: object) -> None:
        raise InvalidQuery("label_config: must not have a document type")


def _control_tag(
    kind: str, attributes: Mapping[str, str], labels: list[Mapping[str, str]], variable: str
) -> ControlTag:
    """variable: of the image, `$image` for example."""
    return ControlTag(
        kind,
        attributes.get("name", ""),
        attributes["toName"],
        variable[1:],
        _threshold(attributes),
        tuple(map(_label, labels)),
    )


def _threshold(attributes: Mapping[str, str]) -> float:
    text = attributes.get("model_score_threshold")
    if text is None:
        return OVERLAY_SCORE_THRESHOLD
    try:
        threshold = float(text)
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:
        raise InvalidQuery("label_config: model_score_threshold: must be a number from 0 to 1")
    return threshold


def _label(attributes: Mapping[str, str]) -> Label:
    value, alias = attributes.get("value", ""), attributes.get("alias", "")
    predicted = tuple(name.strip() for name in attributes.get("predicted_values", "").split(",") if name.strip())
    return Label(alias or value, predicted or tuple(name for name in (value, alias) if name))
