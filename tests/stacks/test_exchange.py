"""Stores that one stack of libraries writes are read by the other, to the bit; `make test-new` names the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
OTHER = os.environ.get("TILESTREAM_OTHER_PYTHON")

STORES = {"slide ü.svs.features.zarr", "slide.entropy.zarr", "archive.zarr", "portable.zarr", "gdal.zarr"}

pytestmark = pytest.mark.skipif(not OTHER, reason="needs an interpreter with another stack: run `make test-new`")


def run(python: str, *arguments: str) -> str:
    done = subprocess.run(
        [python, "-m", "tests.stacks.exchange", *arguments], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def zarr_of(python: str) -> str:
    return subprocess.run(
        [python, "-c", "import zarr; print(zarr.__version__)"], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture(scope="module")
def pythons() -> dict[str, str]:
    return {"this": sys.executable, "other": str(REPO / OTHER) if OTHER else ""}


def test_the_stacks_differ(pythons: dict[str, str]) -> None:
    assert zarr_of(pythons["this"]) != zarr_of(pythons["other"])


@pytest.mark.parametrize("writer", ["this", "other"])
def test_what_one_writes_the_other_reads(tmp_path: Path, pythons: dict[str, str], writer: str) -> None:
    run(pythons[writer], "write", str(tmp_path))
    seen: dict[str, Any] = {name: json.loads(run(python, "read", str(tmp_path))) for name, python in pythons.items()}
    assert {name.partition("/")[0] for name in seen["this"]} == STORES
    assert seen["this"] == seen["other"]
