"""Whoever names something else than a bundle reads what it is and what to type; a zip with its folder on top is a bundle."""

import os
import pickle
import shlex
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from solo_models.bundle import BundleError, identify, read_bundle
from solo_models.file_kinds import UnknownKind, bundle_roots, kind_of, not_a_bundle

PICKLE = pickle.dumps({"w": 1}, protocol=2)
SAFETENSORS = struct.pack("<Q", 2) + b"{}"
PLAN, OURS = b"ftrt: a plan", b"SOLOENG1" + bytes(8)
ONNX = b"\x08\x08\x12\x07pytorch"


def torch_zip(path: Path) -> Path:
    """As `torch.save` writes it, in so far as it is looked at."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", PICKLE)
        archive.writestr("archive/version", "3\n")
    return path


def zipped(bundle: Path, path: Path, folder: str, **more: str) -> Path:
    """The bundle packed below `folder`, beside what else is packed."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in bundle.iterdir():
            archive.write(file, folder + file.name)
        for name, content in more.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["my.pth", "my.pt", "my.safetensors", "my.onnx", "my model"])
@pytest.mark.parametrize("content", [PICKLE, SAFETENSORS, "zip"])
def test_a_checkpoint_is_reported_with_its_export_command(name: str, content: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch_zip(path)
    with pytest.raises(BundleError) as refused:
        read_bundle(path)
    said, command = str(refused.value).split(" first: ")
    assert said == f"{path}: this is a checkpoint, not a bundle; make a bundle of it"
    target = "my" if "." in name else "my model_bundle"
    assert shlex.split(command) == ["solo", "export", str(path), "-o", target]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ONNX, "this is an ONNX file, not a bundle; to make a bundle: solo export CHECKPOINT -o BUNDLE"),
        (PLAN, "this is a TensorRT engine, not a bundle; name the bundle that it was built from"),
        (OURS, "this is a TensorRT engine, not a bundle; name the bundle that it was built from"),
        (b"", "is empty; to make a bundle: solo export CHECKPOINT -o BUNDLE"),
        (b"\xff\xd8\xff\xe0 a photo", "is no checkpoint, bundle, ONNX file or engine; to make a bundle: solo export"),
        (b"PK\x03\x04 cut short", "is a damaged zip (File is not a zip file); to make a bundle: solo export"),
    ],
)
def test_another_file_is_reported_by_its_kind(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "my_model"
    path.write_bytes(content)
    for read in (read_bundle, identify):
        with pytest.raises(BundleError) as refused:
            read(path)
        assert str(refused.value).startswith(f"{path}: {said}")


@pytest.mark.parametrize("name", ["manifest.json", "masks.onnx"])
def test_for_a_file_of_a_bundle_the_message_names_its_folder(name: str, solo_bundle: Path) -> None:
    with pytest.raises(BundleError, match=f"this is one file of a bundle; name its folder: {solo_bundle}"):
        read_bundle(solo_bundle / name)


def newest_checkpoint(folder: Path, bundle: Path) -> str:
    for age, name in enumerate(("latest.pth", "epoch_12.pth", "epoch_2.pth")):
        (folder / name).write_bytes(PICKLE)
        os.utime(folder / name, (10_000 - age, 10_000 - age))
    for number in range(200):
        (folder / f"{number}.jpg").touch()
    return f"holds a checkpoint; make a bundle of it first: solo export {folder}/latest.pth -o latest"


def a_bundle_inside(folder: Path, bundle: Path) -> str:
    shutil.copytree(bundle, folder / "inner")
    (folder / "@eaDir").mkdir()
    return f"this folder is no bundle, but holds one: name {folder}/inner"


def several_inside(folder: Path, bundle: Path) -> str:
    shutil.copytree(bundle, folder / "a")
    zipped(bundle, folder / "b.zip", "")
    return f"this folder is no bundle, but holds 2: name {folder}/a, or serve all: solo serve --models {folder}"


def photos(folder: Path, bundle: Path) -> str:
    (folder / "photo.jpg").write_bytes(b"\xff\xd8")
    return "this folder is no bundle, it has no manifest.json; to make a bundle: solo export CHECKPOINT"


def only_foreign(folder: Path, bundle: Path) -> str:
    (folder / "lost+found").mkdir()
    (folder / ".snapshot").mkdir()
    return "the folder is empty: is it mounted?"


def incomplete(folder: Path, bundle: Path) -> str:
    shutil.copyfile(bundle / "masks.onnx", folder / "masks.onnx")
    return "manifest.json: is missing; this bundle is not complete: copy it again"


@pytest.mark.parametrize("fill", [newest_checkpoint, a_bundle_inside, several_inside, photos, only_foreign, incomplete])
def test_another_folder_is_reported_by_its_content(
    fill: Callable[[Path, Path], str], solo_bundle: Path, tmp_path: Path
) -> None:
    said = fill(tmp_path, solo_bundle)
    with pytest.raises(BundleError) as refused:
        read_bundle(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path}: ")
    assert said in str(refused.value)
    with pytest.raises(UnknownKind) as unknown:  # as `solo inspect` says it
        kind_of(tmp_path)
    assert said in str(unknown.value)


@pytest.mark.parametrize("folder", ["", "my_bundle/", "out/my_bundle/", "./", "../../etc/", "/"])
def test_a_zip_with_its_folder_on_top_is_read(folder: str, solo_bundle: Path, tmp_path: Path) -> None:
    path = zipped(solo_bundle, tmp_path / "b.zip", folder, **{"__MACOSX/my_bundle/._manifest.json": "x"})
    found, expected = read_bundle(path), read_bundle(solo_bundle)
    assert kind_of(path) == "bundle"
    assert not_a_bundle(path) is None
    assert (found.name, found.version, dict(found.files)) == (expected.name, expected.version, dict(expected.files))
    assert identify(path) == identify(solo_bundle)
    assert list(tmp_path.iterdir()) == [path]  # nothing is unpacked, wherever names lead


def test_a_zip_of_several_bundles_is_refused(solo_bundle: Path, tmp_path: Path) -> None:
    more = {"b/manifest.json": "{}", "b/masks.onnx": ""}
    with pytest.raises(BundleError, match=r"is a zip of 2 bundles \(a/, ...\): pack each into a zip of its own"):
        read_bundle(zipped(solo_bundle, tmp_path / "b.zip", "a/", **more))


def test_files_beside_the_folder_on_top_are_not_taken_for_the_bundles_own(solo_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in solo_bundle.iterdir():
            archive.write(file, ("" if file.name == "kernels.npz" else "b/") + file.name)
    with pytest.raises(BundleError, match=r"kernels\.npz: is missing"):
        read_bundle(path)


@pytest.mark.parametrize(
    ("names", "roots"),
    [
        ([], []),
        (["manifest.json"], [""]),
        (["a/manifest.json", "manifest.json", "a/masks.onnx"], [""]),
        (["a/manifest.json", "a/masks.onnx"], ["a/"]),
        (["a/manifest.json"], []),
        (["a/manifest.json", "b/masks.onnx"], []),
        (["b/manifest.json", "a/manifest.json", "a/masks.onnx", "b/masks.onnx"], ["a/", "b/"]),
        (["a/my-manifest.json", "a/masks.onnx"], []),
    ],
)
def test_a_folder_on_top_is_known_by_a_manifest_beside_a_graph(names: list[str], roots: list[str]) -> None:
    assert bundle_roots(names) == roots


@pytest.mark.parametrize(
    ("command", "begins"),
    [
        (["serve", "--port", "0"], "solo serve: "),
        (["bench", "engine", "--model"], "solo bench: "),
        (["segment", "photo.jpg", "--model"], "solo segment: "),
        (["selftest", "--engine", "cuda"], "solo selftest: "),
        (["build-engine"], "solo build-engine: "),
    ],
)
def test_every_command_reports_it_in_one_line(command: list[str], begins: str, tmp_path: Path) -> None:
    """Without torch, which would take seconds and is not installed beside the server."""
    path = torch_zip(tmp_path / "my.pth")
    (tmp_path / "photo.jpg").write_bytes(b"x")
    code = (
        "import sys; from solo_models.cli import main; sys.modules['torch'] = None\n"
        f"status = main({[*command, str(path)]}); sys.exit(status)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SOLO_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last == (
        f"{begins}{path}: this is a checkpoint, not a bundle; make a bundle of it first: solo export {path} -o my"
    )
