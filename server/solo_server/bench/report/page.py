"""One or several results as an HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from solo_server.bench.errors import BenchError
from solo_server.bench.machine import NOISY_SHARE
from solo_server.bench.report.engine_section import engine_section
from solo_server.bench.report.markup import Markup, card, facts, tag
from solo_server.bench.report.numbers import percent
from solo_server.bench.report.pipeline_section import pipeline_section
from solo_server.bench.report.server_section import point_name, server_section
from solo_server.bench.report.style import STYLE
from solo_server.bench.result import Document

SECTIONS = {"pipeline": pipeline_section, "engine": engine_section, "server": server_section}
TITLES = {
    "pipeline": "Pipeline: bytes to RLE",
    "engine": "Engine: the network alone",
    "server": "Server under load",
}
LEADS = {
    "pipeline": "One image at a time, from the bytes of its file to COCO RLE masks at original size.",
    "engine": "Category scores and the mask towers of all levels (the worst case), without decoding and post-processing.",
    "server": "Requests over loopback HTTP to one server; the load generator shares the machine with it.",
}


def page(documents: Sequence[Document]) -> str:
    """A complete HTML page, which is also well-formed XML.

    Raises:
        BenchError: a document is incomplete.
    """
    try:
        sections = [_section(document) for document in documents]
    except (KeyError, TypeError, IndexError, ValueError) as problem:
        raise BenchError(f"a result is damaged: {type(problem).__name__} {problem}") from problem
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", "SOLO benchmark"),
        Markup(f"<style>{STYLE}</style>"),
    )
    body = tag("body", tag("main", _heading(documents[0]), sections))
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en") + "\n"


def _heading(document: Document) -> Markup:
    hardware = document["hardware"]
    instructions = ", ".join(hardware["instructions"])
    where = f"{hardware['cpu']}, {hardware['cores']} cores ({instructions}), {document['date'][:10]}"
    return tag("header", tag("h1", "SOLO benchmark"), tag("p", where, class_="lead"))


def _section(document: Document) -> Markup:
    warnings = [tag("p", text, class_="warn") for text in _warnings(document)]
    surroundings = card("How this was measured", "", facts(_surroundings(document)), wide=True)
    return tag(
        "section",
        tag("h2", TITLES[document["kind"]]),
        tag("p", LEADS[document["kind"]], class_="lead"),
        warnings,
        SECTIONS[document["kind"]](document),
        tag("div", surroundings, class_="cards"),
    )


def _warnings(document: Document) -> list[str]:
    found = [f"Ended early: {document['ended_early']}"] if document["ended_early"] else []
    noisy = [f"{name} {percent(share)}" for name, share in _foreign_shares(document) if share > NOISY_SHARE]
    if noisy:
        found.append(
            f"The machine was not idle. CPU used by others: {', '.join(noisy)}. This slows spinning thread pools more than "
            "others, so times and ratios are not reliable; use the undisturbed samples, or measure again."
        )
    return found


def _foreign_shares(document: Document) -> list[tuple[str, float]]:
    """The share for each load, and for each contender the highest over its batch sizes."""
    shares = [
        (point_name(point), point["foreign_share"]) for point in document.get("points", []) if point["foreign_share"]
    ]
    for entry in document.get("contenders", []):
        figures = [entry.get("figures"), *(batch["figures"] for batch in entry.get("batches", []))]
        known = [f["foreign_share"] for f in figures if f and f["foreign_share"] is not None]
        shares += [(entry["name"], max(known))] if known else []
    return shares


def _surroundings(document: Document) -> dict[str, str]:
    hardware, load = document["hardware"], document["load_average"]
    contenders = {e["name"]: f"{e['description']}; {_listed(e['versions'])}" for e in document.get("contenders", [])}
    return {
        "command": document["command"],
        "date": document["date"],
        "commit": document["commit"] or "not in a checkout",
        "processor": f"{hardware['cpu']}, {hardware['cores']} cores, {' '.join(hardware['instructions'])}",
        "memory": f"{hardware['memory_gib']} GiB",
        "GPU": hardware["gpu"] or "none used",
        "load average": f"{_numbers(load['before'])} before, {_numbers(load['after'])} after",
        "settings": _listed(document["settings"]),
        "versions": _listed(document["versions"]),
        **contenders,
    }


def _listed(entries: dict[str, object]) -> str:
    return ", ".join(f"{k} {_plain(v)}" for k, v in entries.items() if v is not None)


def _plain(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values) or "not known"
