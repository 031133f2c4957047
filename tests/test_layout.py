"""The house keeps its shape: sizes, packages, import cost and public names."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import tilestream

REPO = Path(__file__).resolve().parents[1]
ROOTS = ("tilestream", "kernels", "pipelines", "cluster", "tests")
MAPPED = {"kernels": "tilestream.kernels", "pipelines": "tilestream.pipelines", "cluster": "tilestream.cluster"}
FILE_LINES = 400
FUNCTION_LINES = 60
IMPORT_SECONDS = 0.35
HEAVY = ("numba", "distributed", "torch", "openslide", "pydicom", "xarray", "pandas", "typer", "rich", "rasterio")
SHAPELESS = {"utils.py", "helpers.py", "common.py", "misc.py"}

FILES = sorted(path for root in ROOTS for path in (REPO / root).rglob("*.py"))


def function_lengths(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length of each function, its docstring and the functions inside it left out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0]
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if ast.get_docstring(node, clean=False) is not None:
            lines -= (first.end_lineno or first.lineno) - first.lineno + 1
        yield node.name, lines


def test_there_are_files_to_look_at() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPO)))
def test_file_is_small_and_named_after_its_concept(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= FILE_LINES, f"{lines} lines, at most {FILE_LINES}: give each concept a file"
    long = {name: count for name, count in function_lengths(path) if count > FUNCTION_LINES}
    assert not long, f"functions of more than {FUNCTION_LINES} lines: {long}"
    assert path.name not in SHAPELESS, "a file is named after what it holds"
    assert path.stem == "__init__" or path.stem == "__main__" or not path.stem.startswith("_"), "no private modules"


def test_what_is_told_to_be_installed_can_be() -> None:
    """There is no `tilestream` on an index: an extra is installed from the clone."""
    found = {}
    for path in FILES:
        hints = re.findall(r"pip install[^\n{]*\[[a-z,]+\]", path.read_text(encoding="utf-8"))
        found |= {str(path.relative_to(REPO)): hint for hint in hints if ".[" not in hint and ".\\[" not in hint}
    assert not found


def test_length_counts_code_but_not_the_docstring(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text('def f():\n    """One.\n\n    Two.\n    """\n    a = 1\n    return a\n', encoding="utf-8")
    assert list(function_lengths(path)) == [("f", 3)]


def test_package_list_is_the_folders() -> None:
    declared = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = []
    for root in ROOTS[:-1]:
        for init in (REPO / root).rglob("__init__.py"):
            parts = init.parent.relative_to(REPO).parts
            found.append(".".join((MAPPED.get(parts[0], parts[0]), *parts[1:])))
    assert sorted(declared) == declared
    assert sorted(found) == declared


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in FILES if path.relative_to(REPO).parts[0] != "tests"}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_mapped_folders_are_installed_from_this_checkout() -> None:
    from importlib.util import find_spec

    for folder, name in MAPPED.items():
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        assert Path(spec.origin).resolve().parent == REPO / folder


def test_import_is_quick_and_light() -> None:
    code = (
        "import json, sys, time; start = time.process_time(); import tilestream; "
        f"print(json.dumps([time.process_time() - start, [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    results = [
        json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    assert results[0][1] == []
    assert min(seconds for seconds, _ in results) < IMPORT_SECONDS


def test_public_names_exist_and_are_documented() -> None:
    names = getattr(tilestream, "__all__", [])
    assert names
    assert sorted(names) == sorted(set(names))
    undocumented = [
        name for name in names if not name.startswith("__") and not (getattr(tilestream, name).__doc__ or "").strip()
    ]
    assert not undocumented
