"""The page has every figure, is well-formed and self-contained; documents are written and read back unchanged."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from solo_server.bench.contender_process import Hello
from solo_server.bench.errors import BenchError
from solo_server.bench.figures import FLOW, in_flow
from solo_server.bench.load.loops import Shot
from solo_server.bench.load.points import Point
from solo_server.bench.measure import Contender, Measurement
from solo_server.bench.report.bars import CONTENDER_COLOURS, STAGE_COLOURS, stage_colours, stage_name
from solo_server.bench.report.numbers import Scale, ms, short
from solo_server.bench.report.page import page
from solo_server.bench.report.style import STYLE
from solo_server.bench.result import Document, document, read_document, write_document
from solo_server.bench.samples import Plan, Sample
from solo_server.bench.subcommands.engine import EngineResult
from solo_server.bench.subcommands.pipeline import pipeline_document
from solo_server.bench.table import stage_table

STAGES = {"decode": 3.0, "towers": 20.0, "masks": 5.0, "nms": 1.0, "encode": 2.0}


def _contender(name: str, slow: float, tasks: int = 1, gflop: dict[str, float] | None = None) -> Contender:
    hello = Hello(name, "runtime <1.0> & co", {"lib": "1"}, gflop=gflop or {}, load_ms=345.6, loaded_rss_mib=77.0)
    samples = [
        Sample(run, run, task, slow * (40 + run), {k: slow * v for k, v in STAGES.items()}, 4, 0.1, 0.1, 0.05)
        for run in range(3)
        for task in range(tasks)
    ]
    return Contender(name, hello, [50.0], samples, peak_rss_mib=123.0 * slow)


def _pipeline() -> Document:
    measured = Measurement(Plan(3, 1, 1), [_contender("ours <fp32>", 1.0), _contender("theirs", 7.0)])
    return pipeline_document(measured, {"images": ["a.jpg"], "threads": 0})


def _engine() -> Document:
    gflop = {"total": 8.0, "towers": 3.0}
    measured = Measurement(Plan(3, 1, 2), [_contender("ours", 1.0, 2, gflop), _contender("theirs", 2.0, 2)])
    measured.probe_samples = [Sample(0, 0, 0, 10.0, {"1000": 10.0}, 0, 0.1, 0.1, None)]
    settings = {"batches": [1, 4], "padded_hw": [512, 704], "threads": 0}
    return document("engine", settings, EngineResult(measured, (1, 4), 11.0).to_dict())


def _server() -> Document:
    shots = [Shot(i / 10, 70.5 + i, "") for i in range(9)] + [Shot(0.9, 3.0, "overloaded")]
    points = [
        Point("closed", 1, shots, 1.5, 230.0, 0.02, 0.1),
        Point("closed", 8, shots),
        Point("open", 12.5, [Shot(0, 9, "timeout")]),
    ]
    measured = {
        "load_average": {"before": [], "after": [1.0]},
        "ended_early": "solo serve ended with status -9",
        "peak_rss_mib": 240.0,
        "points": [point.to_dict() for point in points],
    }
    model = {"name": "demo", "version": "abc", "precision": "fp32", "engine": "ort"}
    return document("server", {"url": None, "images": ["a.jpg"], "seconds": 1.0}, {"model": model, **measured})


DOCUMENTS = {"pipeline": _pipeline, "engine": _engine, "server": _server}


@pytest.fixture(params=DOCUMENTS.keys())
def content(request: pytest.FixtureRequest) -> Document:
    return DOCUMENTS[request.param]()


def _texts(html: str) -> set[str]:
    return {text.strip() for text in ET.fromstring(html.partition("\n")[2]).itertext() if text.strip()}  # noqa: S314


def _of(document: Document) -> list[dict[str, Any]]:
    return list(document["contenders"])


def test_a_page_is_well_formed_and_self_contained(content: Document) -> None:
    html = page([content])
    root = ET.fromstring(html.partition("\n")[2])  # noqa: S314 - our own
    assert html.startswith("<!DOCTYPE html>\n<html")
    tags = {element.tag for element in root.iter()}
    assert not tags & {"script", "link", "img", "iframe"}
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html


def test_a_pipeline_page_has_every_figure() -> None:
    content = _pipeline()
    texts = _texts(page([content]))
    for entry in _of(content):
        figures = entry["figures"]
        assert {ms(figures[name]) for name in ("median_ms", "mean_ms", "p90_ms", "p99_ms", "after_towers_ms")} <= texts
        assert {short(figures["fps"]), short(figures["cpu_s"]), short(figures["instances"])} <= texts
        assert ", ".join(short(fps) for fps in figures["fps_of_runs"]) in texts
        assert {short(value) for value in figures["stages_ms"].values()} <= texts
        assert {f"{figures['peak_rss_mib']:.0f} MiB", "346 ms", "77 MiB"} <= texts | {"346 ms"}
    against = _of(content)[1]["against_first"]
    assert {f"{against[key]:.2f}\N{MULTIPLICATION SIGN}" for key in ("time", "memory", "after_towers")} <= texts
    assert any("22.5" in text and "other hardware" in text for text in texts)
    assert content["command"] in texts


def test_an_engine_page_has_every_rate() -> None:
    content = _engine()
    texts = _texts(page([content]))
    assert content["best_matmul_gflop_per_s"] == 200.0
    for contender in _of(content):
        for batch in contender["batches"]:
            for rate in batch["rates"]:
                assert {ms(rate["ms"]), short(rate["gflop"]), short(rate["gflop_per_s"])} <= texts
            assert short(batch["figures"]["fps"] * batch["batch"]) in texts
    assert {"theirs", "total", "towers"} <= texts


def test_a_server_page_has_every_load_and_the_reason_of_an_early_end() -> None:
    content = _server()
    texts = _texts(page([content]))
    for point in content["points"]:
        assert {ms(point[key]) for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms")} <= texts
        assert short(point["throughput"]) in texts
    assert {"1 caller", "8 callers", "12.5 requests/s", "1 overloaded", "1 timeout", "230 MiB"} <= texts
    assert "Ended early: solo serve ended with status -9" in texts


def test_several_results_make_one_page() -> None:
    texts = _texts(page([_pipeline(), _engine(), _server()]))
    assert {"Pipeline: bytes to RLE", "Engine: the network alone", "Server under load"} <= texts


def _figures(html: str) -> list[ET.Element]:
    return list(ET.fromstring(html.partition("\n")[2]).iter("figure"))  # noqa: S314 - our own


def _classes(element: ET.Element, name: str) -> list[str]:
    """The second class of all inner elements whose first class is `name`."""
    found = (inner.get("class", "").split() for inner in element.iter())
    return [classes[1] for classes in found if classes[0:1] == [name]]


def _peers_out_of_order() -> Document:
    """Stages in the order of the reference's hooks, and those of a single graph."""
    stages = (
        {"decode": 1.0, "preprocess": 1.0, "categories": 9.0, "towers": 4.0, "masks": 2.0, "nms": 1.0, "encode": 1.0},
        {"decode": 1.0, "neck": 2.0, "towers": 8.0, "categories": 3.0, "backbone": 7.0, "after_towers": 30.0},
        {"encode": 2.0, "odd_one": 1.0, "decode": 1.0, "network": 40.0, "postprocess": 3.0},
    )
    contenders = [_contender(f"contender {i}", 1.0) for i in range(len(stages))]
    for contender, parts in zip(contenders, stages, strict=True):
        contender.samples = [replace(sample, stages_ms=parts) for sample in contender.samples]
    return pipeline_document(Measurement(Plan(3, 1, 1), contenders), {"images": ["a.jpg"], "threads": 0})


def test_stages_and_contenders_have_different_colours_in_light_and_dark() -> None:
    for palette in STYLE.split("prefers-color-scheme: dark"):
        colours = dict(re.findall(r"--([cs]\d+): (#[0-9a-f]+);", palette))
        contenders = [value for name, value in colours.items() if name.startswith("c")]
        stages = [value for name, value in colours.items() if name.startswith("s")]
        assert (len(contenders), len(stages)) == (CONTENDER_COLOURS, STAGE_COLOURS)
        assert len({*contenders, *stages}) == CONTENDER_COLOURS + STAGE_COLOURS
    for content in (_peers_out_of_order(), _engine()):
        html = page([content])
        parts = {name for figure in _figures(html) for name in _classes(figure, "part")}
        bars = {name for figure in _figures(html) for name in _classes(figure, "fill")}
        assert {name[0] for name in parts} == {"s"}
        assert {name[0] for name in bars} <= {"c", "m"}  # m: the paper's grey


def test_stages_are_in_the_order_of_the_flow() -> None:
    (figure,) = (f for f in _figures(page([_peers_out_of_order()])) if f.findtext(".//h3") == "Stages")
    colours = stage_colours([*FLOW, "odd_one"])
    expected = (
        ["decode", "preprocess", "categories", "towers", "masks", "nms", "encode"],
        ["decode", "backbone", "neck", "categories", "towers", "after_towers"],
        ["decode", "network", "postprocess", "encode", "odd_one"],
    )
    for svg, stages in zip(figure.iter("svg"), expected * 2, strict=False):
        assert _classes(svg, "part") == [colours[stage] for stage in stages]
    headings = [heading.text for heading in figure.findall(".//thead//th")]
    in_order = [stage_name(stage) for stage in in_flow(stage for stages in expected for stage in stages)]
    assert headings == ["ms", *in_order]
    assert in_order == [
        *("decode", "preprocess", "network", "backbone", "neck", "categories", "towers"),
        *("masks", "nms", "postprocess", "after towers", "encode", "odd one"),
    ]


def test_the_terminal_table_has_stages_in_the_order_of_the_flow() -> None:
    contenders = [_contender("theirs", 2.0), _contender("ours", 1.0)]
    contenders[0].samples = [replace(s, stages_ms={"towers": 8.0, "categories": 3.0}) for s in contenders[0].samples]
    heading = stage_table(Measurement(Plan(3, 1, 1), contenders)).splitlines()[0]
    assert heading.split()[2:] == ["decode", "categories", "towers", "masks", "nms", "encode", "after", "towers"]


def test_charts_of_the_same_stages_have_one_legend_with_each_stage_once() -> None:
    (figure,) = (f for f in _figures(page([_pipeline()])) if f.findtext(".//h3") == "Stages")
    assert len(figure.findall("div[@class='bars']")) == 2
    (legend,) = figure.findall(".//ul[@class='legend']")
    assert ["".join(key.itertext()) for key in legend] == list(STAGES)


def test_every_chart_says_whether_lower_or_higher_is_better(content: Document) -> None:
    for figure in _figures(page([content])):
        has_chart = figure.find(".//svg") is not None
        text = " ".join("".join(caption.itertext()).lower() for caption in figure.iter("figcaption"))
        assert has_chart == bool(re.search(r"(lower|higher) is better", text)), text


def test_the_better_direction_is_right() -> None:
    directions = {}
    for figure in [f for content in (_pipeline(), _engine()) for f in _figures(page([content]))]:
        directions[figure.findtext(".//h3", "").partition(",")[0]] = figure.findtext(".//span[@class='better']")
    assert {name for name, text in directions.items() if text == "higher is better"} == {
        "Images per second",
        "GFLOP per second",
    }
    assert {"Time relative to the first", "Stages", "Peak memory", "Latency of theirs", "Parts"} <= {
        name for name, text in directions.items() if text == "lower is better"
    }


def test_every_table_scrolls_by_itself_and_by_keyboard(content: Document) -> None:
    root = ET.fromstring(page([content]).partition("\n")[2])  # noqa: S314 - our own
    scrolling = root.findall(".//div[@class='scroll']")
    assert sum(len(div.findall("table")) for div in scrolling) == len(list(root.iter("table"))) > 1
    assert {div.get("tabindex") for div in scrolling} == {"0"}
    assert all(div.get("aria-label") for div in scrolling)
    assert ".scroll { overflow-x: auto" in STYLE


def test_names_are_escaped() -> None:
    html = page([_pipeline()])
    assert "ours &lt;fp32&gt;" in html
    assert "<fp32>" not in html


def test_load_of_other_processes_is_reported() -> None:
    content = _pipeline()
    share = _of(content)[0]["figures"]["foreign_share"]
    assert share > 0.05
    assert any("was not idle" in text and "theirs" in text for text in _texts(page([content])))


def test_a_result_without_samples_still_makes_a_page() -> None:
    measured = Measurement(Plan(3, 1, 1), [Contender("ours", Hello("ours", "ort", {}))], ended_early="it died")
    texts = _texts(page([pipeline_document(measured, {"images": [], "threads": 0})]))
    assert {"No round was completed.", "Ended early: it died"} <= texts


def test_a_document_is_read_back_unchanged(content: Document, tmp_path: Path) -> None:
    write_document(tmp_path / "new" / "result.json", content)
    assert read_document(tmp_path / "new" / "result.json") == json.loads(json.dumps(content))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["result.json"]
    assert {"command", "commit", "date", "hardware", "versions", "settings", "load_average"} <= set(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a result of solo bench"),
        ('{"format": "solo-bundle"}', "is not a result of solo bench"),
        ('{"format": "solo-bench", "format_version": 2}', "format_version 2 is not 1"),
        ('{"format": "solo-bench", "format_version": 1, "kind": "tea"}', "kind: must be one of"),
    ],
)
def test_a_file_that_is_not_a_result_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BenchError, match=message):
        read_document(tmp_path / "x.json")


def test_a_damaged_result_is_refused_naming_the_missing_field() -> None:
    content = _pipeline()
    del content["contenders"][0]["figures"]["p99_ms"]
    with pytest.raises(BenchError, match="p99_ms"):
        page([content])


@pytest.mark.parametrize("values", [[1.0], [0.0], [3.0, 900.0], [12.5, 99.0], [1e-3, 1e5]])
def test_scales_have_a_few_round_ticks_within_their_ends(values: list[float]) -> None:
    scale = Scale.over(values)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 9
    assert all(scale.low <= tick <= scale.high for tick in ticks)
    assert all(0 <= scale.percent(value) <= 100 for value in values)


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.123"), (7.0, "7"), (71.25, "71.2"), (2402.4, "2402"), (100.0, "100"), (0.0, "0")]
)
def test_numbers_have_three_or_four_significant_digits(value: float, text: str) -> None:
    assert short(value) == text
