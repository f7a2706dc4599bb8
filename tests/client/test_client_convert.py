"""`solo convert`: files and folders, their classes and images, failures of single files, and what is never overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from solo_client.conversion import sources
from solo_models.cli import main
from solo_results.formats import Classes, Context, NamedResult, open_format
from support.results import NAMES, made_up, named

CSV = ["found.json", "--to", "csv", "-o", "x.csv"]
Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `solo convert` in `tmp_path`: the exit code and the lines on stderr."""
    monkeypatch.chdir(tmp_path)

    def convert(*words: str) -> tuple[int, list[str]]:
        status = main(["convert", *words])
        captured = capsys.readouterr()
        assert captured.out == ""
        return status, [line.removeprefix("solo convert: ") for line in captured.err.splitlines()]

    return convert


def write(images: Sequence[NamedResult], name: str, output: Path) -> None:
    for file in open_format(name).write(images, Context(Classes(NAMES))):
        path = output / file.name if file.name else output
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)


@pytest.fixture
def found(tmp_path: Path) -> list[NamedResult]:
    """Two results in `found.json`, and their images in `images/`."""
    results = [named(1, "b/1.png"), named(2, "2.png", size=(31, 47))]
    write(results, "json", tmp_path / "found.json")
    for one in results:
        path = tmp_path / "images" / one.file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (one.result.width, one.result.height)).save(path)
    return results


def masks(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Labels and run lengths by image, from our own JSON."""
    content = json.loads(path.read_text())
    entries = content if isinstance(content, list) else [content]
    return {entry["file"]: [(one["label"], one["mask"]["counts"]) for one in entry["instances"]] for entry in entries}


@pytest.mark.parametrize(
    ("name", "output", "options"),
    [
        ("polygon", "out.json", []),
        ("coco-annotations", "out.json", []),
        ("coco", "out.json", ["--classes", "names.txt", "--images", "images"]),
        ("labelme", "out", []),
        ("yolo", "out", ["--images", "images"]),
    ],
)
def test_masks_are_the_same_after_both_ways(
    run: Run, found: list[NamedResult], tmp_path: Path, name: str, output: str, options: list[str]
) -> None:
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    assert run("found.json", "--to", name, "-o", output)[0] == 0
    assert run(output, "--to", "json", "-o", "back.json", *options)[0] == 0
    expected = {
        one.file: sorted(
            (i.label, i.mask.counts) for i in one.result.instances if i.area or name not in ("labelme", "yolo")
        )
        for one in found
    }
    back = {file: sorted(instances) for file, instances in masks(tmp_path / "back.json").items()}
    if name == "labelme":  # which has no folders of images, but its own folders
        assert (tmp_path / "out" / "b" / "1.json").is_file()
    assert back == expected


def test_what_a_format_loses_is_told_in_one_line(run: Run, found: list[NamedResult]) -> None:
    assert run("found.json", "--to", "yolo", "-o", "out") == (0, ["note: yolo does not keep scores and sizes"])
    assert run("found.json", "--to", "csv", "-o", "out.csv") == (0, ["note: csv does not keep masks"])
    assert run("found.json", "--to", "polygon", "-o", "out.json") == (0, [])


def test_low_scores_are_dropped(run: Run, found: list[NamedResult], tmp_path: Path) -> None:
    assert run("found.json", "--to", "json", "-o", "out.json", "--min-score", "0.5")[0] == 0
    kept = masks(tmp_path / "out.json")
    assert kept == {
        one.file: [(i.label, i.mask.counts) for i in one.result.instances if i.score >= 0.5] for one in found
    }
    assert 0 < sum(map(len, kept.values())) < 12


def test_a_tolerance_makes_polygons_smaller(run: Run, found: list[NamedResult], tmp_path: Path) -> None:
    run("found.json", "--to", "polygon", "-o", "exact.json")
    run("found.json", "--to", "polygon", "-o", "simple.json", "--tolerance", "1.5")
    assert (tmp_path / "simple.json").stat().st_size < 0.6 * (tmp_path / "exact.json").stat().st_size


def test_one_bad_file_fails_alone(run: Run, tmp_path: Path) -> None:
    write([named(1, "a.jpg"), named(2, "b.jpg"), named(3, "c.jpg")], "labelme", tmp_path / "in")
    bad = tmp_path / "in" / "b.json"
    bad.write_text(bad.read_text().replace('"imageWidth": 90', '"imageWidth": 9'))
    status, lines = run("in", "--to", "json", "-o", "out.json")
    assert status == 1
    assert len(lines) == 2
    assert lines[0].startswith("in/b.json: shapes[0].points: the point (")
    assert lines[0].endswith("is outside of the image of 9 x 60 pixels")
    kept = masks(tmp_path / "out.json")
    assert sorted(kept) == ["a.jpg", "c.jpg"]
    assert lines[1] == f"2 files, 2 images, {sum(map(len, kept.values()))} instances, 1 failed"


def test_a_file_that_is_too_large_is_refused_before_it_is_parsed(
    run: Run, found: list[NamedResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 100)
    status, lines = run("found.json", "--to", "csv", "-o", "x.csv")
    assert (status, lines) == (1, ["found.json: is larger than 0 MiB"])


def test_if_all_files_fail_nothing_is_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    status, lines = run("a.json", "--to", "coco", "-o", "out.json")
    assert status == 1
    assert lines[0].startswith("a.json: is not JSON")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("kind", ["json", "labelme"])
def test_an_input_is_never_overwritten(run: Run, tmp_path: Path, kind: str) -> None:
    write([named(1, "a.jpg")], "labelme", tmp_path / "in")
    before = (tmp_path / "in" / "a.json").read_bytes()
    output = "in/a.json" if kind == "json" else "in"
    status, lines = run("in", "--to", kind, "-o", output)
    assert status == 2
    assert lines == ["-o: in/a.json is an input, which would be lost"]
    assert (tmp_path / "in" / "a.json").read_bytes() == before


def test_two_images_of_one_name_are_not_written_over_each_other(run: Run, tmp_path: Path) -> None:
    write([named(1, "a.jpg"), named(2, "a.png")], "json", tmp_path / "in.json")
    status, lines = run("in.json", "--to", "labelme", "-o", "out")
    assert (status, lines) == (2, ["out/a.json would be written twice: two images have the same name"])


def test_a_name_in_a_file_cannot_lead_out_of_the_output(run: Run, tmp_path: Path) -> None:
    write([named(1, "../../escaped.jpg")], "json", tmp_path / "in.json")
    (tmp_path / "deep").mkdir()
    assert run("in.json", "--to", "labelme", "-o", "deep/out")[0] == 0
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("escaped*")] == ["deep/out/escaped.json"]


def test_one_image_can_be_written_to_a_file_of_its_own(run: Run, tmp_path: Path, found: list[NamedResult]) -> None:
    write([NamedResult("a.jpg", made_up(3))], "json", tmp_path / "one.json")
    assert run("one.json", "--to", "png", "-o", "mask.png")[0] == 0
    assert np.asarray(Image.open(tmp_path / "mask.png")).shape == (60, 90)
    status, lines = run("found.json", "--to", "png", "-o", "mask.png")
    assert (status, lines) == (2, ["mask.png would be written twice: -o must be a folder"])


def test_class_names_come_from_the_file_beside_yolo_or_from_the_argument(run: Run, tmp_path: Path) -> None:
    write([named(1, "a.jpg")], "yolo", tmp_path / "in")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (90, 60)).save(tmp_path / "images" / "a.jpg")
    words = ["in", "--to", "json", "-o", "out.json", "--images", "images"]
    assert run(*words)[0] == 0
    assert {label for label, _ in masks(tmp_path / "out.json")["a.jpg"]} == set(NAMES)
    assert run(*words, "--classes", "x,y,z")[0] == 0
    assert {label for label, _ in masks(tmp_path / "out.json")["a.jpg"]} == {"x", "y", "z"}
    status, lines = run(*words, "--classes", "x")
    assert status == 1
    assert "unknown class" in lines[0]
    (tmp_path / "in" / "classes.txt").unlink()
    status, lines = run(*words)
    assert status == 1
    assert lines[0].startswith("in/a.txt: line 1: unknown class")
    assert lines[0].endswith("; give --classes")


def test_sizes_are_those_of_upright_images(run: Run, tmp_path: Path) -> None:
    write([named(1, "a.jpg", size=(60, 90))], "yolo", tmp_path / "in")
    (tmp_path / "images").mkdir()
    sideways = Image.Exif()
    sideways[274] = 6
    Image.new("RGB", (60, 90)).save(tmp_path / "images" / "a.jpg", exif=sideways)
    assert run("in", "--to", "json", "-o", "out.json", "--images", "images")[0] == 0
    assert json.loads((tmp_path / "out.json").read_text())["image"] == {"width": 90, "height": 60}


def test_an_image_that_is_missing_or_damaged_fails_its_file_alone(run: Run, tmp_path: Path) -> None:
    write([named(1, "a.jpg"), named(2, "b.jpg"), named(3, "c.jpg")], "yolo", tmp_path / "in")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (90, 60)).save(tmp_path / "images" / "a.jpg")
    (tmp_path / "images" / "b.jpg").write_bytes(b"nothing")
    status, lines = run("in", "--to", "json", "-o", "out.json", "--images", "images")
    assert status == 1
    assert lines[0] == "in/b.txt: its image images/b.jpg cannot be read"
    assert lines[1] == "in/c.txt: the image is needed for its size, and is not in the folder of images: --images DIR"
    assert list(masks(tmp_path / "out.json")) == ["a.jpg"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.json", "--to", "csv", "-o", "x.csv"], "none.json: no such file or folder"),
        (["images/b", "--to", "csv", "-o", "x/y.csv"], "-o: x: no such folder"),
        (["found.json", "--to", "csv", "-o", "images"], "-o: images is a folder; this format is one file"),
        (["found.json", "--to", "yolo", "-o", "found.json"],
         "-o: found.json is a file; this format is a folder with a file an image"),
        ([*CSV, "--min-score", "2"], "--min-score must be from 0 to 1, not 2"),
        ([*CSV, "--tolerance", "nan"], "--tolerance must be from 0 to 1000, not nan"),
        ([*CSV, "--tolerance", "x"], "--tolerance must be a number, not 'x'"),
        ([*CSV, "--classes", "a,,b"], "--classes: class names must not be empty, and must differ"),
        ([*CSV, "--classes", "a,a"], "--classes: class names must not be empty, and must differ"),
        ([*CSV, "--images", "x"], "--images: x: no such folder"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_line_and_exit_code_2(
    run: Run, found: list[NamedResult], words: list[str], message: str
) -> None:
    assert run(*words) == (2, [message])


def test_the_given_format_is_used_instead_of_the_content(run: Run, found: list[NamedResult]) -> None:
    status, lines = run("found.json", "--from", "labelme", "--to", "csv", "-o", "x.csv")
    assert status == 1
    assert lines[0].startswith("found.json: should be an object, not [")


def test_results_of_solo_segment_keep_their_model(run: Run, tmp_path: Path) -> None:
    result = replace(made_up(1), model_name="demo", model_version="1")
    (tmp_path / "a.json").write_text(json.dumps(result.to_dict()))
    assert run("a.json", "--to", "polygon", "-o", "out.json")[0] == 0
    assert json.loads((tmp_path / "out.json").read_text())["model"] == {"name": "demo", "version": "1"}


def test_help_needs_neither_numpy_nor_pillow() -> None:
    program = (
        "import sys; sys.modules['numpy'] = sys.modules['PIL'] = None; from solo_models.cli import main; "
        "main(['convert', '-h'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--min-score" in done.stdout


def test_without_pillow_png_is_refused_with_what_to_install(tmp_path: Path) -> None:
    write([named(1, "a.jpg")], "json", tmp_path / "in.json")
    program = (
        "import sys; sys.modules['PIL'] = None; from solo_models.cli import main; "
        "sys.exit(main(['convert', 'in.json', '--to', 'png', '-o', 'out']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "solo convert: png needs PIL: pip install numpy pillow\n"
