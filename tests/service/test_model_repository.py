"""A folder of bundles is read by manifests alone; what does not belong there stops the start or is ignored."""

import json
import logging
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest
from solo_models.bundle import BundleError, identify, read_bundle
from solo_server.errors import SettingsError
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import ModelSource, highest_version, model_repository


def sources(folder: Path | None, bundle: Path | None = None) -> list[ModelSource]:
    return list(model_repository(bundle, folder, Pipeline.open)())


def put(bundle: Path, *folders: Path) -> None:
    for folder in folders:
        shutil.copytree(bundle, folder)


def put_zip(bundle: Path, file: Path) -> None:
    """Not compressed, which would take seconds."""
    with ZipFile(file, "w") as archive:
        for path in bundle.iterdir():
            archive.write(path, path.name)


@pytest.mark.parametrize(
    ("versions", "highest"),
    [(["1"], "1"), (["9", "10"], "10"), (["2", "a"], "2"), (["a", "b"], "b"), (["007", "7"], "7")],
)
def test_the_highest_version_is_the_greatest_number_or_the_last_name(versions: list[str], highest: str) -> None:
    assert highest_version(versions) == highest_version(versions[::-1]) == highest


def test_a_bundle_has_its_own_version_unless_a_folder_names_it(solo_bundle: Path, tmp_path: Path) -> None:
    put(solo_bundle, tmp_path / "cats", tmp_path / "dogs" / "1", tmp_path / "dogs" / "2")
    put_zip(solo_bundle, tmp_path / "birds.zip")
    own = read_bundle(solo_bundle).version
    found = [(source.name, source.version) for source in sources(tmp_path)]
    assert found == [("birds", own), ("cats", own), ("dogs", "1"), ("dogs", "2")]
    assert len({source.stamp for source in sources(tmp_path)}) == 1


def test_a_source_opens_its_own_bundle(solo_bundle: Path, tmp_path: Path) -> None:
    put(solo_bundle, tmp_path / "cats")
    opened: list[Path] = []
    (source,) = model_repository(None, tmp_path, lambda path: opened.append(path))()  # type: ignore[arg-type, func-returns-value]
    source.open()
    assert opened == [tmp_path / "cats"]


def test_the_stamp_changes_with_the_manifest(solo_bundle: Path, tmp_path: Path) -> None:
    put(solo_bundle, tmp_path / "cats")
    (before,) = sources(tmp_path)
    manifest = tmp_path / "cats" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"provenance": {"note": "another"}}))
    (after,) = sources(tmp_path)
    assert (before.version, before.stamp == after.stamp) == (after.version, False)


def test_identify_agrees_with_reading_the_whole_bundle(bundle_path: Path) -> None:
    bundle, identity = read_bundle(bundle_path), identify(bundle_path)
    assert (identity.name, identity.version) == (bundle.name, bundle.version)


def test_a_bundle_can_be_served_beside_a_folder(solo_bundle: Path, tmp_path: Path) -> None:
    put(solo_bundle, tmp_path / "cats")
    assert [source.name for source in sources(tmp_path, solo_bundle)] == ["tiny-solo", "cats"]


FOREIGN = (
    "@eaDir",
    "#recycle",
    "__MACOSX",
    "lost+found",
    "$RECYCLE.BIN",
    "System Volume Information",
    ".trash",
    "~snapshot",
)


def test_hidden_and_foreign_entries_are_ignored_with_one_log_line(
    solo_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(solo_bundle, tmp_path / "cats", tmp_path / "dogs" / "1", *(tmp_path / name for name in FOREIGN))
    (tmp_path / "dogs" / "@eaDir").mkdir()
    for name in ("README.md", "Thumbs.db", "._cats.zip", ".DS_Store"):
        (tmp_path / name).write_text("no bundle")
    with caplog.at_level(logging.INFO, "solo_server"):
        found = sources(tmp_path)
    assert [(source.name, source.version == "1") for source in found] == [("cats", False), ("dogs", True)]
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("SOLO_MODELS: ignored")
    assert all(str(tmp_path / name) in line for name in ("@eaDir", "#recycle", ".trash"))
    assert line.endswith(", ...")  # more than ten


def test_a_folder_of_models_alone_logs_nothing(
    solo_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(solo_bundle, tmp_path / "cats", tmp_path / "thumbs", tmp_path / "MACOSX", tmp_path / "recycle")
    with caplog.at_level(logging.INFO, "solo_server"):
        assert len(sources(tmp_path)) == 4
    assert not caplog.records


def test_a_bundle_in_place_of_a_folder_of_bundles_is_reported(solo_bundle: Path) -> None:
    with pytest.raises(SettingsError, match=r"SOLO_MODELS: .* is itself a bundle; .*: solo serve "):
        sources(solo_bundle)


@pytest.mark.parametrize("missing", ["nothing here", "empty"])
def test_a_folder_without_bundles_stops_the_start(tmp_path: Path, missing: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match=r"SOLO_MODELS: .*(is not a folder|holds no bundle)"):
        sources(tmp_path / missing)


def test_errors_name_the_faulty_entry(solo_bundle: Path, tmp_path: Path) -> None:
    put(solo_bundle, tmp_path / "bad name")
    with pytest.raises(SettingsError, match="bad name: a name consists of"):
        sources(tmp_path)
    (tmp_path / "bad name").rename(tmp_path / "cats")
    put_zip(solo_bundle, tmp_path / "cats.zip")
    with pytest.raises(SettingsError, match="cats exists twice"):
        sources(tmp_path)
    (tmp_path / "cats.zip").unlink()
    (tmp_path / "dogs").mkdir()
    with pytest.raises(SettingsError, match=r"dogs holds neither a bundle \(manifest.json\) nor versions"):
        sources(tmp_path)
    (tmp_path / "dogs" / "1").mkdir()
    with pytest.raises(BundleError, match=r"dogs/1: the folder is empty: is it mounted"):
        sources(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "is empty"), (b"no zip at all", "is no checkpoint, bundle, ONNX")]
)
def test_a_file_that_is_no_zip_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "cats.zip").write_bytes(content)
    with pytest.raises(BundleError, match=rf"cats\.zip: {reason}"):
        sources(tmp_path)
