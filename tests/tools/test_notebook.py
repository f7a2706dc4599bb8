"""examples/quickstart.ipynb runs against a real server, and stores what it shows there."""

from __future__ import annotations

import nbformat
import numpy as np
import pytest
from notebook import NOTEBOOK, executed, pictures, texts
from solo_client import SoloClient
from support.paths import ASTRONAUT

MAX_BYTES = 400_000


@pytest.fixture(scope="module")
def run(url: str) -> nbformat.NotebookNode:
    return executed(url)


def test_stored_outputs_are_those_of_a_run(run: nbformat.NotebookNode) -> None:
    """`python tests/tools/notebook.py` stores them."""
    stored = nbformat.read(NOTEBOOK, as_version=4)
    assert texts(run) == texts(stored)
    assert len(pictures(run)) == len(pictures(stored)) == 3


def test_a_result_and_its_drawing_are_shown_in_full_size(run: nbformat.NotebookNode) -> None:
    shown, _, by_class = pictures(run)
    assert shown.size == by_class.size == (512, 512)


def test_the_cutout_is_the_mask(run: nbformat.NotebookNode, url: str) -> None:
    with SoloClient(url) as client:
        (instance,) = client.segment(ASTRONAUT, score_threshold=0.3).instances
    left, top, width, height = instance.box_xywh
    alpha = np.asarray(pictures(run)[1])[:, :, 3]
    np.testing.assert_array_equal(alpha == 255, instance.mask_array()[top : top + height, left : left + width])


def test_the_stored_notebook_is_small_and_valid() -> None:
    nbformat.validate(nbformat.read(NOTEBOOK, as_version=4))
    assert NOTEBOOK.stat().st_size < MAX_BYTES
