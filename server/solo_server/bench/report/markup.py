"""Builds HTML elements: text is escaped unless it is `Markup`, and every element is closed, so that the page is valid XML."""

from __future__ import annotations

from html import escape
from typing import Literal

VOID = ("meta", "rect", "line", "circle", "br")

Better = Literal["lower", "higher"]


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element. `class_` is `class`, other underscores are hyphens; attributes that are None are left out."""
    given = {k.rstrip("_").replace("_", "-"): v for k, v in attributes.items() if v is not None}
    head = "".join([name, *(f' {k}="{escape(str(v))}"' for k, v in given.items())])
    if name in VOID and not children:
        return Markup(f"<{head}/>")
    return Markup(f"<{head}>{join(children)}</{name}>")


def join(parts: object, between: str = "") -> Markup:
    """Several elements or texts, one after the other; nested sequences too."""
    if isinstance(parts, Markup):
        return parts
    if isinstance(parts, list | tuple):
        return Markup(between.join(join(part) for part in parts if part is not None))
    return Markup(escape(str(parts)))


def card(title: str, text: str, *content: object, wide: bool = False, better: Better | None = None) -> Markup:
    """A figure with a heading and a text. better: whether lower or higher values are better."""
    direction = tag("span", f"{better} is better", class_="better") if better else None
    heading = tag(
        "figcaption", tag("div", tag("h3", title), direction, class_="title"), tag("p", text) if text else None
    )
    return tag("figure", heading, *content, class_="card wide" if wide else "card")


def table(headings: list[str], rows: list[list[str]]) -> Markup:
    """A table that scrolls sideways if too wide; the first column names the row and stays visible."""
    head = tag("tr", [tag("th", heading, scope="col") for heading in headings])
    body = [tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]]) for row in rows]
    return _scrolling(tag("table", tag("thead", head), tag("tbody", body)), f"{headings[0]}: {', '.join(headings[1:])}")


def facts(entries: dict[str, str]) -> Markup:
    """Names and values, one per row."""
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in entries.items() if value]
    return _scrolling(tag("table", tag("tbody", rows), class_="facts"), "how this was measured")


def _scrolling(content: Markup, name: str) -> Markup:
    """A container that scrolls by touch, mouse or arrow keys."""
    return tag("div", content, class_="scroll", role="region", tabindex=0, aria_label=name)
