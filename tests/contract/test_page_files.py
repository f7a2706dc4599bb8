"""Every file that README.md or a page of docs/ names exists, and every relative link leads to a file and to a heading in it."""

import re
from pathlib import Path

import pytest
from support.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = ROOT / "server" / "solo_server"
IN_BUNDLES = {"MODEL_CARD.md"}
FILE = re.compile(r"(?<![\w/.*-])[\w.][\w./-]*\.(?:py|md|cuh|cu)\b(?!\.?\w)")
FOLDER = re.compile(r"`([\w./-]+/)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def _prose(page: Path) -> str:
    return FENCED.sub("", page.read_text())


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings: small letters, no punctuation, a hyphen for every space."""
    headings = re.findall(r"^#+ (.*)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """Paths begin in the repository, in `server/solo_server`, beside the page, or in or beside a folder that the page names."""
    text = _prose(page)
    folders = [at / folder for folder in FOLDER.findall(text) for at in (ROOT, SOURCES)]
    begins = [ROOT, SOURCES, page.parent, *folders, *(folder.parent for folder in folders if folder.exists())]
    named = set(FILE.findall(text)) - IN_BUNDLES
    assert {path for path in named if not any((begin / path).exists() for begin in begins)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = set()
    for path, anchor in LINK.findall(_prose(page)):
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.add(f"{path}#{anchor}")
    assert broken == set()


def test_files_and_links_are_found_on_the_pages() -> None:
    texts = [_prose(page) for page in PAGES]
    assert sum(len(FILE.findall(text)) for text in texts) > 100
    assert sum(len(LINK.findall(text)) for text in texts) > 100
