"""The table of exact rewrites: plain and ours on the same numbers, and the test that compares both."""

from __future__ import annotations

from collections.abc import Iterator

from page_markdown import head, number, row
from page_results import BadResult, Results

TESTS = {  # the beginning of a rewrite's name in algebra.py: the test that compares it with the plain form
    "solo: last mask": "tests/backends/cpu/test_masks.py::test_masks_are_those_of_the_plain_form",
    "decoupled: last mask": "tests/backends/cpu/test_masks.py::test_masks_are_those_of_the_plain_form",
    "decoupled_light: last mask": "tests/backends/cpu/test_masks.py::test_masks_are_those_of_the_plain_form",
    "mask tower: levels": "tests/pipeline/test_pipeline.py::test_the_mask_tower_of_a_level_without_candidates_is_never_run",
    "P2: halving": "tests/export/test_graphs.py::test_halving_folds_into_the_convolution",
    "first mask convolution": "tests/export/test_graphs.py::test_outputs_follow_any_size_and_batch",
    "BatchNorm": "tests/export/test_graphs.py::test_outputs_follow_any_size_and_batch",
    "3x3 convolution": "tests/backends/cpu/test_towers.py::test_a_convolution_is_torchs_at_every_size",
    "tower: GroupNorm": "tests/export/test_graphs.py::test_outputs_follow_any_size_and_batch",
    "tower: ours": "tests/backends/cpu/test_towers.py::test_a_tower_is_torchs",
    "100 masks to RLE": "tests/backends/cpu/test_encode.py::test_soft_masks_become_the_masks_of_two_torch_resizes",
    "IoU of": "tests/backends/cpu/kernels/test_nms.py::test_ious_are_those_of_the_masks_whatever_the_boxes",
}


def rewrites(results: Results) -> Iterator[str]:
    """Each exact rewrite, plain and ours, and the test that compares both."""
    content = results.read("algebra")
    yield from head("", "plain", "ours", "gain", "difference", "tested by")
    for name, found in content["rewrites"].items():
        times = (f"{number(found['plain_ms'])} ms", f"{number(found['ours_ms'])} ms", f"{found['ratio']:.1f}x")
        yield row(name, *times, f"{found['difference']:.1g}", _test_of(name))


def _test_of(rewrite: str) -> str:
    """A link to the test of a rewrite; rewrites without a test are not published."""
    found = next((test for prefix, test in TESTS.items() if rewrite.startswith(prefix)), None)
    if found is None:
        raise BadResult(f"algebra.json: no test for {rewrite!r}")
    file, _, name = found.partition("::")
    return f"[{name}](../{file})"
