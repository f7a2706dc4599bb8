"""The stand-alone mmdet script, as far as it runs without mmdet: what it builds and what it refuses."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from solo_export.peers import mmdet_model, reference
from solo_models.bundle import read_bundle
from solo_models.demo import demo_bundle
from solo_models.spec import PostprocessSpec
from support.specs import VARIANTS, deformable_spec, tiny_spec


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_configuration_follows_the_specification(variant: str) -> None:
    spec = tiny_spec(variant).to_dict()  # type: ignore[arg-type]
    mmdet_model.check_spec(spec)
    config = mmdet_model.model_config(spec)
    head = config["mask_head"]
    assert head["type"] == {"solo": "SOLOHead", "decoupled": "DecoupledSOLOHead"}.get(variant, "DecoupledSOLOLightHead")
    assert (head["num_grids"], head["num_classes"], head["stacked_convs"]) == ([9, 8, 7, 6, 5], 3, 2)
    assert (head["feat_channels"], head["norm_cfg"]["num_groups"]) == (32, 8)
    assert (config["backbone"]["depth"], config["neck"]["in_channels"]) == (18, [64, 128, 256, 512])
    assert config["test_cfg"] == {
        "nms_pre": 500,
        "score_thr": 0.1,
        "mask_thr": 0.5,
        "filter_thr": 0.05,
        "kernel": "gaussian",
        "sigma": 2.0,
        "max_per_img": 100,
    }


def test_networks_that_mmdet_lacks_are_refused_by_name() -> None:
    greedy = replace(tiny_spec("solo"), postprocess=PostprocessSpec(nms="mask"))
    for spec, message in (
        (read_bundle(demo_bundle()).spec, "efficientnet_lite0"),
        (deformable_spec("solo"), "deformable network"),
        (greedy, "matrix NMS only"),
    ):
        with pytest.raises(mmdet_model.Refused, match=message):
            mmdet_model.check_spec(spec.to_dict())


def test_operators_that_are_not_compiled_raise_when_called() -> None:
    operators = mmdet_model.NotCompiled(["nms", "deform_conv"])
    with pytest.raises(NotImplementedError, match="no compiled operator deform_conv"):
        operators.deform_conv()  # type: ignore[attr-defined]


def test_the_time_after_the_towers_is_the_remainder() -> None:
    class Slow:
        def run(self, index: int) -> int:
            clock.add("decode", 0.001)
            clock.add("towers", 0.002)
            clock.add("towers", 0.003)
            return index

    clock = reference.StageClock()
    reply = reference.timed(clock, Slow(), 3)  # type: ignore[arg-type]
    assert reply["instances"] == 3
    assert reply["stages_ms"]["towers"] == 5.0
    assert sum(reply["stages_ms"].values()) == pytest.approx(reply["total_ms"], abs=0.01)


def test_the_script_imports_nothing_of_ours() -> None:
    code = (
        f"import runpy, sys; runpy.run_path({str(Path(reference.__file__))!r}); "
        "print(*[m for m in sys.modules if m.startswith('solo')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
