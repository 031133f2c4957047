"""The notebooks: stored without outputs, short, and executed from beginning to end."""

from __future__ import annotations

import ast
import base64
import os

import imagecodecs
import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPO

NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))
FUNCTION_LINES = 5
PLOTS = {"hierarchy": 3, "neural_fields": 3, "reading_less": 4, "scene": 2, "slide": 3}


def test_there_is_one_of_each_question():
    assert [path.stem for path in NOTEBOOKS] == ["hierarchy", "neural_fields", "reading_less", "scene", "slide"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs_and_asks_one_question(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.partition("\n")[0].endswith("?")
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        assert cell.outputs == []
        assert cell.execution_count is None
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                assert lines <= FUNCTION_LINES, f"{node.name} belongs into the library"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, shared_data, tmp_path, monkeypatch):
    monkeypatch.setenv("TILESTREAM_DATA", str(shared_data))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    monkeypatch.delenv("SLIDE", raising=False)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == PLOTS[path.stem]
    for picture in pictures:
        pixels = imagecodecs.png_decode(base64.b64decode(picture))
        assert pixels[..., :3].std() > 20  # something is drawn
    if folder := os.environ.get("TILESTREAM_NOTEBOOKS"):  # to look at
        nbformat.write(notebook, f"{folder}/{path.name}")
