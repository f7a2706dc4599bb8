"""Folders of bundles: what they hold is told by manifests alone, and what they should not hold stops the start."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from solo_models.bundle import BundleError, identify, read_bundle
from solo_server.errors import SettingsError
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import ModelSource, highest_version, model_repository


def sources(folder: Path | None, bundle: Path | None = None) -> list[ModelSource]:
    return list(model_repository(bundle, folder, Pipeline.open)())


def put(bundle: Path, *places: Path) -> None:
    for place in places:
        shutil.copytree(bundle, place)


@pytest.mark.parametrize(
    ("versions", "highest"),
    [(["1"], "1"), (["9", "10"], "10"), (["2", "a"], "2"), (["a", "b"], "b"), (["007", "7"], "7")],
)
def test_the_highest_version_is_the_greatest_number_or_the_last_name(versions: list[str], highest: str) -> None:
    assert highest_version(versions) == highest_version(versions[::-1]) == highest


def test_a_bundle_without_versions_has_its_own_and_a_folder_names_the_others(solo_bundle: Path, tmp_path: Path) -> None:
    put(solo_bundle, tmp_path / "cats", tmp_path / "dogs" / "1", tmp_path / "dogs" / "2")
    shutil.make_archive(str(tmp_path / "birds"), "zip", solo_bundle)
    own = read_bundle(solo_bundle).version
    found = [(source.name, source.version) for source in sources(tmp_path)]
    assert found == [("birds", own), ("cats", own), ("dogs", "1"), ("dogs", "2")]
    assert len({source.stamp for source in sources(tmp_path)}) == 1


def test_a_source_opens_the_bundle_that_it_was_found_in(solo_bundle: Path, tmp_path: Path) -> None:
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


def test_identity_is_what_reading_the_whole_bundle_tells(bundle_path: Path) -> None:
    bundle, identity = read_bundle(bundle_path), identify(bundle_path)
    assert (identity.name, identity.version) == (bundle.name, bundle.version)


def test_a_bundle_can_stand_beside_a_folder(solo_bundle: Path, tmp_path: Path) -> None:
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


def test_hidden_and_foreign_entries_are_passed_over_with_one_line(
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
    assert line.startswith("SOLO_MODELS: passed over")
    assert all(str(tmp_path / name) in line for name in ("@eaDir", "#recycle", ".trash"))
    assert line.endswith(", ...")  # more than ten


def test_a_folder_of_models_alone_needs_no_line(
    solo_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(solo_bundle, tmp_path / "cats", tmp_path / "thumbs", tmp_path / "MACOSX", tmp_path / "recycle")
    with caplog.at_level(logging.INFO, "solo_server"):
        assert len(sources(tmp_path)) == 4
    assert not caplog.records


def test_a_bundle_where_a_folder_of_bundles_is_wanted_is_named(solo_bundle: Path) -> None:
    with pytest.raises(SettingsError, match=r"SOLO_MODELS: .* is itself a bundle; .*: solo serve "):
        sources(solo_bundle)


@pytest.mark.parametrize("missing", ["nothing here", "empty"])
def test_a_folder_without_bundles_stops_the_start(tmp_path: Path, missing: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match=r"SOLO_MODELS: .*(is not a folder|holds no bundle)"):
        sources(tmp_path / missing)


def test_what_is_wrong_in_the_folder_is_named(solo_bundle: Path, tmp_path: Path) -> None:
    put(solo_bundle, tmp_path / "bad name")
    with pytest.raises(SettingsError, match="bad name: names have letters"):
        sources(tmp_path)
    (tmp_path / "bad name").rename(tmp_path / "cats")
    shutil.make_archive(str(tmp_path / "cats"), "zip", solo_bundle)
    with pytest.raises(SettingsError, match="cats is there twice"):
        sources(tmp_path)
    (tmp_path / "cats.zip").unlink()
    (tmp_path / "dogs").mkdir()
    with pytest.raises(SettingsError, match=r"dogs holds neither a bundle \(manifest.json\) nor versions"):
        sources(tmp_path)
    (tmp_path / "dogs" / "1").mkdir()
    with pytest.raises(BundleError, match=r"dogs/1: the folder is empty: is it mounted"):
        sources(tmp_path)


@pytest.mark.parametrize(("content", "said"), [(b"", "is empty"), (b"no zip at all", "is no checkpoint, bundle, ONNX")])
def test_a_zip_that_is_none_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "cats.zip").write_bytes(content)
    with pytest.raises(BundleError, match=rf"cats\.zip: {said}"):
        sources(tmp_path)
