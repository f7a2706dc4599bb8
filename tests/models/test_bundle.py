"""A bundle reads back as written; one that is damaged, newer or not a bundle is refused, and the message names the fault."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from solo_models.bundle import BundleContent, BundleError, kernel_shapes, read_bundle, write_bundle
from support.specs import tiny_spec


@pytest.fixture(scope="module")
def small() -> BundleContent:
    """Bytes in place of graphs, which nothing here reads."""
    spec, rng = tiny_spec("solo"), np.random.default_rng(0)
    kernels = {name: rng.normal(size=shape).astype(np.float32) for name, shape in kernel_shapes(spec).items()}
    return BundleContent("small", spec, rng.bytes(2000), rng.bytes(1000), kernels, {"layout": "own"}, {})


@pytest.fixture
def small_bundle(small: BundleContent, tmp_path: Path) -> Path:
    """A bundle that the test may damage."""
    return write_bundle(tmp_path / "bundle", small)


def test_a_folder_reads_back_as_written(content: BundleContent, bundle_path: Path) -> None:
    bundle = read_bundle(bundle_path)
    assert bundle.spec == content.spec
    assert bundle.files["masks.onnx"] == content.masks
    assert {k: v.shape for k, v in bundle.kernels.items()} == kernel_shapes(content.spec)
    assert all(np.array_equal(bundle.kernels[k], content.kernels[k]) for k in content.kernels)


def test_a_zip_reads_as_the_folder_does(small: BundleContent, small_bundle: Path, tmp_path: Path) -> None:
    folder, archive = read_bundle(small_bundle), read_bundle(write_bundle(tmp_path / "b.zip", small))
    assert (archive.name, archive.version, archive.files) == (folder.name, folder.version, folder.files)


def test_the_version_changes_with_the_weights(small: BundleContent, small_bundle: Path, tmp_path: Path) -> None:
    kernels = {name: array + 1 for name, array in small.kernels.items()}
    other = read_bundle(write_bundle(tmp_path / "other", replace(small, kernels=kernels)))
    assert other.version != read_bundle(small_bundle).version


def test_extra_files_are_stored_and_do_not_change_the_version(
    small: BundleContent, small_bundle: Path, tmp_path: Path
) -> None:
    path = write_bundle(tmp_path / "b", replace(small, extra_files={"MODEL_CARD.md": b"# card"}))
    assert read_bundle(path).files["MODEL_CARD.md"] == b"# card"
    assert read_bundle(path).version == read_bundle(small_bundle).version


@pytest.mark.parametrize(
    ("precision", "requested", "form"),
    [("int8", None, "cpu"), ("int8", "tensorrt", "tensorrt"), ("fp16", None, None)],
)
def test_an_int8_bundle_records_its_form(
    small: BundleContent, tmp_path: Path, precision: str, requested: str | None, form: str | None
) -> None:
    path = write_bundle(tmp_path / "b", replace(small, precision=precision, int8_for=requested))
    assert read_bundle(path).int8_for == form


def test_an_older_int8_bundle_is_for_cpus_and_an_unknown_form_is_refused(small: BundleContent, tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "b", replace(small, precision="int8", int8_for="tensorrt"))
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != "int8_for"}))
    assert read_bundle(path).int8_for == "cpu"
    _edit(int8_for="abacus")(path)
    with pytest.raises(BundleError, match=r"manifest\.json: int8_for: must be one of cpu, tensorrt"):
        read_bundle(path)


def test_an_existing_bundle_is_replaced_only_with_overwrite(small: BundleContent, tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "b", small)
    with pytest.raises(BundleError, match="exists already"):
        write_bundle(path, small)
    write_bundle(path, replace(small, name="new"), overwrite=True)
    assert read_bundle(path).name == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_folder_that_is_no_bundle_is_never_replaced(small: BundleContent, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").write_bytes(b"x")
    with pytest.raises(BundleError, match="not replaced"):
        write_bundle(tmp_path / "photos", small, overwrite=True)
    assert (tmp_path / "photos" / "me.jpg").exists()


def _edit(**changes: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps(manifest | changes))

    return edit


def _flip_a_byte(path: Path) -> None:
    damaged = bytearray((path / "masks.onnx").read_bytes())
    damaged[100] ^= 1
    (path / "masks.onnx").write_bytes(damaged)


def _truncate(path: Path) -> None:
    (path / "categories.onnx").write_bytes((path / "categories.onnx").read_bytes()[:-1])


def _replace_kernels(path: Path) -> None:
    np.savez(path / "kernels.npz", level0=np.zeros((3, 3), np.float32))
    content = (path / "kernels.npz").read_bytes()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["kernels.npz"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "manifest.json").unlink(), r"manifest\.json: is missing"),
        (lambda p: (p / "manifest.json").write_text("{"), "is not JSON"),
        (lambda p: (p / "manifest.json").write_text("[]"), "format: must be"),
        (_edit(format="other"), "format: must be"),
        (_edit(format_version=2), "newer than 1"),
        (_edit(format_version=0), "at least 1"),
        (_edit(format_version="1"), "format_version: must be of type int"),
        (_edit(spec={}), r"spec\.\w+: is missing"),
        (_edit(files={}), "files: categories.onnx is not listed"),
        (_edit(name=3), "name: must be of type str"),
        (lambda p: (p / "kernels.npz").unlink(), r"kernels\.npz: is missing"),
        (_flip_a_byte, r"masks\.onnx: sha256 differs"),
        (_truncate, r"categories\.onnx: has \d+ bytes"),
        (_replace_kernels, r"kernels\.npz: level0"),
    ],
)
def test_a_damaged_bundle_is_refused_by_the_name_of_the_fault(
    small_bundle: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(small_bundle)
    with pytest.raises(BundleError, match=message):
        read_bundle(small_bundle)


def test_names_that_leave_the_folder_are_refused(small_bundle: Path) -> None:
    manifest = json.loads((small_bundle / "manifest.json").read_text())
    manifest["files"]["../secret"] = {"bytes": 1, "sha256": ""}
    (small_bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="not a plain file name"):
        read_bundle(small_bundle)


def test_a_file_larger_than_announced_is_not_read(small_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    manifest = json.loads((small_bundle / "manifest.json").read_text())
    manifest["files"]["masks.onnx"]["bytes"] = 10
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        archive.writestr("categories.onnx", (small_bundle / "categories.onnx").read_bytes())
        archive.writestr("kernels.npz", (small_bundle / "kernels.npz").read_bytes())
        archive.writestr("masks.onnx", bytes(50_000_000))
    with pytest.raises(BundleError, match=r"masks\.onnx: is larger than 10 bytes"):
        read_bundle(path)


@pytest.mark.parametrize("name", ["missing", "text.zip"])
def test_other_files_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(BundleError):
        read_bundle(tmp_path / name)
