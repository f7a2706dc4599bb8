"""A specification is complete, typed and in range, or it names the field that is not."""

import json
from dataclasses import replace

import pytest
from solo_models.spec import ModelSpec, PostprocessSpec, PreprocessSpec, SpecError
from support.specs import tiny_spec

SPEC = tiny_spec("solo")


def test_json_round_trip_is_the_same_specification() -> None:
    assert ModelSpec.from_dict(json.loads(json.dumps(SPEC.to_dict()))) == SPEC


def test_published_grids_have_3872_cells() -> None:
    assert ModelSpec("solo", "resnet50", ("a",)).num_cells == 3872


def test_masks_of_published_networks_have_stride_4() -> None:
    assert ModelSpec("solo", "resnet50", ("a",)).mask_stride == 4


def test_one_class_is_singular() -> None:
    assert ModelSpec("solo", "resnet50", ("a",)).classes_in_words == "1 class"
    assert ModelSpec("solo", "resnet50", ("a", "b")).classes_in_words == "2 classes"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"variant": "yolo"}, "variant"),
        ({"backbone": "vgg"}, "backbone"),
        ({"class_names": []}, "class_names"),
        ({"grids": [8, 7]}, "fpn_strides"),
        ({"head_channels": 30}, "head_channels"),
        ({"head_depth": 0}, "head_depth"),
        ({"strides": [8, 8, 16, 32, 5]}, "strides"),
        ({"head_depth": "2"}, "head_depth"),
        ({"head_depth": True}, "head_depth"),
        ({"grids": 8}, "grids"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, object], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        ModelSpec.from_dict(SPEC.to_dict() | change)
    assert caught.value.field == field


def test_a_missing_field_is_named() -> None:
    value = SPEC.to_dict()
    del value["preprocess"]["mean"]
    with pytest.raises(SpecError, match=r"preprocess\.mean: is missing"):
        ModelSpec.from_dict(value)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: PreprocessSpec(long_side=10), "preprocess.long_side"),
        (lambda: PreprocessSpec(std=(1.0, 0.0, 1.0)), "preprocess.std"),
        (lambda: PostprocessSpec(score_threshold=1.5), "postprocess.score_threshold"),
        (lambda: PostprocessSpec(max_instances=0), "postprocess.max_instances"),
        (lambda: PostprocessSpec(nms="soft"), "postprocess.nms"),  # type: ignore[arg-type]  # that is the point
        (lambda: replace(SPEC, preprocess=PreprocessSpec(pad_multiple=16)), "preprocess.pad_multiple"),
    ],
)
def test_values_out_of_range_are_named(make: object, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()  # type: ignore[operator]  # a lambda
    assert caught.value.field == field
