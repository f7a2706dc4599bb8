"""Run examples/quickstart.ipynb; as a command, store its outputs in it, with small pictures: python tests/tools/notebook.py"""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import nbformat
from nbclient import NotebookClient
from PIL import Image
from served import serving
from support.paths import ROOT

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
_WIDTH = 360  # pixels of a stored picture
_COLOURS = 128


def executed(url: str) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run against the server at `url`."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    os.environ["SOLO_URL"] = url
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    return notebook


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    """The outputs that are text only, one a cell; a picture is `picture`."""
    return ["".join(_text(output) for output in cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook: nbformat.NotebookNode) -> list[Image.Image]:
    """The pictures among the outputs."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    found = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    return [Image.open(io.BytesIO(base64.b64decode(png))) for png in found]


def _text(output: nbformat.NotebookNode) -> str:
    data = output.get("data", {})
    return "picture" if "image/png" in data else str(output.get("text") or data.get("text/plain", ""))


def _store() -> None:
    with serving(sys.executable) as url:
        notebook = executed(url)
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data = {"image/png": _small(output.data["image/png"]), "text/plain": "picture"}
    nbformat.write(notebook, NOTEBOOK)


def _small(png: str) -> str:
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    image.thumbnail((_WIDTH, _WIDTH))
    small = io.BytesIO()
    image.quantize(_COLOURS, Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


if __name__ == "__main__":
    _store()
