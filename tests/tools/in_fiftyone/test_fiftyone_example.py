"""examples/fiftyone_dataset.py, with FiftyOne's database where there is one, and with a stand-in for it everywhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from fiftyone.core.service import DatabaseService, ServiceExecutableNotFound
from solo_client import SoloClient
from support.paths import ASTRONAUT
from tools_page import ROOT, run_example, shown_output

STAND_IN = """
import fiftyone as fo
import fiftyone.utils.coco as fouc

class Dataset:
    def add_samples(self, samples):
        self.samples = samples

    def export(self, export_dir, dataset_type, label_field):
        with dataset_type().get_dataset_exporter_cls()(export_dir=export_dir) as exporter:
            for sample in self.samples:
                exporter.export_sample(sample.filepath, sample[label_field])

fo.Dataset = Dataset
"""


def _has_database() -> bool:
    if os.environ.get("FIFTYONE_DATABASE_URI"):
        return True
    try:
        DatabaseService.find_mongod()
    except ServiceExecutableNotFound:
        return False
    return True


def _check(url: str, folder: Path, setup: str = "") -> None:
    printed = run_example("fiftyone_dataset.py", url, folder / "export", ASTRONAUT.relative_to(ROOT), setup=setup)
    assert printed.splitlines()[-1:] == shown_output("FiftyOne").splitlines()
    exported = json.loads((folder / "export" / "labels.json").read_text())
    with SoloClient(url) as client:
        (instance,) = client.segment(ASTRONAUT, score_threshold=0.3).instances
    (annotation,) = exported["annotations"]
    np.testing.assert_allclose(annotation["bbox"], instance.box_xywh, atol=1e-6)
    assert [category["name"] for category in exported["categories"]] == ["person"]


def test_the_example_exports_the_person_with_a_stand_in_for_the_database(url: str, tmp_path: Path) -> None:
    _check(url, tmp_path, STAND_IN)


@pytest.mark.skipif(
    not _has_database(), reason="datasets of FiftyOne: its package found no mongod when it was installed"
)
def test_the_example_exports_the_person_with_fiftyones_database(url: str, tmp_path: Path) -> None:
    _check(url, tmp_path)
