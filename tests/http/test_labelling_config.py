"""Label Studio's labelling configurations: which tags and labels are read, and that hostile XML is refused."""

import pytest
from solo_server.errors import InvalidQuery
from solo_server.http.label_studio.labelling_config import (
    MAX_ELEMENTS,
    MAX_TEXT_BYTES,
    ControlTag,
    Label,
    read_labelling_config,
)

IMAGE = '<Image name="image" value="$photo"/>'
BRUSH = '<BrushLabels name="mask" toName="image"><Label value="Car"/></BrushLabels>'


def config(*parts: str) -> str:
    return f"<View>{''.join(parts)}</View>"


def test_a_control_tag_has_its_image_its_threshold_and_its_labels() -> None:
    text = config(
        '<BrushLabels name="mask" toName="image" model_score_threshold="0.5">',
        '<Label value="Car" background="#f00"/><View><Label value="not a child"/></View>',
        '<Label value="Vehicle" predicted_values="bus, truck"/><Label value="Person" alias="p"/></BrushLabels>',
        IMAGE,
    )
    labels = (Label("Car", ("Car",)), Label("Vehicle", ("bus", "truck")), Label("p", ("Person", "p")))
    assert read_labelling_config(text) == (ControlTag("brushlabels", "mask", "image", "photo", 0.5, labels),)


def test_all_three_kinds_are_read_in_their_order_and_skipped_on_request() -> None:
    kinds = ("RectangleLabels", "PolygonLabels", "BrushLabels")
    tags = [f'<{kind} name="{kind}" toName="image"><Label value="{kind}"/></{kind}>' for kind in kinds]
    assert [tag.kind for tag in read_labelling_config(config(IMAGE, *tags))] == [kind.lower() for kind in kinds]
    skipped = tags[0].replace("<RectangleLabels ", '<RectangleLabels model_skip="true" ')
    left = read_labelling_config(config(IMAGE, tags[1], skipped))
    assert [(tag.kind, len(tag.labels)) for tag in left] == [("polygonlabels", 1)]


def test_tags_for_texts_and_sounds_are_left_out() -> None:
    other = (
        '<Text name="text" value="$text"/><RectangleLabels name="r" toName="text"><Label value="a"/></RectangleLabels>'
    )
    assert [tag.name for tag in read_labelling_config(config(IMAGE, BRUSH, other))] == ["mask"]


def test_classes_are_matched_by_name_and_then_without_regard_to_case() -> None:
    labels = '<Label value="Car"/><Label value="BUS"/><Label value="bus" alias="exact"/><Label value="truck"/>'
    tag = read_labelling_config(config(IMAGE, BRUSH.replace('<Label value="Car"/>', labels)))[0]
    assert tag.labels_of_classes(["person", "car", "bus", "Truck"]) == {1: "Car", 2: "exact", 3: "truck"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid XML"),
        ("<View>", "not valid XML"),
        (config(IMAGE, BRUSH) + "<View/>", "not valid XML"),
        (config("&unknown;"), "not valid XML"),
        ("\ud800", "not valid XML"),
        ("<View/>", "has no <BrushLabels>"),
        (config(BRUSH), "has no <BrushLabels>"),
        (config(IMAGE.replace("$", ""), BRUSH), "has no <BrushLabels>"),
        (config(IMAGE, BRUSH, BRUSH.replace("image", "b"), IMAGE.replace("image", "b")), "several images"),
        (config(IMAGE, BRUSH.replace(" toName", ' model_score_threshold="2" toName')), "model_score_threshold"),
        (config(IMAGE, BRUSH.replace(" toName", ' model_score_threshold="nan" toName')), "model_score_threshold"),
        ("<!DOCTYPE View>" + config(IMAGE, BRUSH), "document type"),
        ('<!DOCTYPE v [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;">]><View>&b;</View>', "document type"),
        ('<!DOCTYPE v [<!ENTITY a SYSTEM "file:///etc/passwd">]><View>&a;</View>', "document type"),
        ('<!DOCTYPE v SYSTEM "http://127.0.0.1/x.dtd"><View/>', "document type"),
        (config("<a/>" * MAX_ELEMENTS), "elements"),
        (config("x" * MAX_TEXT_BYTES), "bytes"),
    ],
)
def test_what_cannot_be_used_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidQuery, match=message):
        read_labelling_config(text)


def test_deep_nesting_is_no_failure() -> None:
    depth = MAX_ELEMENTS // 2
    text = config("<a>" * depth, "</a>" * depth, IMAGE, BRUSH)
    assert len(read_labelling_config(text)) == 1
