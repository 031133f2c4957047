"""The main job over the real images, run once for all tests that look at it, and the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from typer.testing import CliRunner

from tests.madecohort import made_cohort as made_cohort
from tilestream.cli import app
from tilestream.testing.scene import write_scene
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

FOLDERS = ("slides", "satellite", "zarr")
"""Folders of real images of which every input is readable."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one call of `tilestream embed` has left."""

    out: Path
    """Its folder."""
    exit_code: int
    """As the shell sees it."""
    stdout: str
    """The last line, notes."""
    stderr: str
    """Progress."""

    @cached_property
    def report(self) -> dict[str, Any]:
        """`report.json`."""
        return json.loads((self.out / "report.json").read_text())

    @cached_property
    def rows(self) -> Mapping[str, dict[str, Any]]:
        """Rows of the report by path."""
        return {row["path"]: row for row in self.report["inputs"]}

    def paths(self, status: str) -> set[str]:
        """Paths of a status."""
        return {path for path, row in self.rows.items() if row["status"] == status}

    def tree(self, key: str) -> xr.DataTree:
        """Feature store of an input, opened by xarray alone and held in memory."""
        with xr.open_datatree(self.out / f"{key}.features.zarr", engine="zarr") as tree:
            return tree.load()

    def stores(self) -> dict[str, bytes]:
        """Every file but the reports and receipts, which hold times and places, and what lists the inputs."""
        kept = {}
        cohort = "cohort.npz", "cohort.csv", "cohort.parquet"
        skipped = ("receipts", "report.html", "report.json", "report", "metrics.prom", *cohort)
        for path in self.out.rglob("*"):
            relative = path.relative_to(self.out)
            if path.is_file() and relative.parts[0] not in skipped:
                kept[relative.as_posix()] = path.read_bytes()
        return kept


Embed = Callable[..., Run]


def run_embed_command(*arguments: object, out: Path) -> Run:
    """Call `tilestream embed` in this process."""
    words = ["embed", *map(str, arguments), "--out", str(out)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    return Run(out=out, exit_code=result.exit_code, stdout=result.stdout, stderr=result.stderr)


@pytest.fixture
def embed(tmp_path: Path) -> Embed:
    """Embed some inputs into a folder of this test."""

    def call(*arguments: object, out: str = "out") -> Run:
        return run_embed_command(*arguments, out=tmp_path / out)

    return call


@pytest.fixture(scope="session")
def everything(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All real slides, scenes and stores, with the damaged files."""
    folders = [shared_data / name for name in (*FOLDERS, "broken")]
    return run_embed_command(*folders, out=tmp_path_factory.mktemp("everything"))


@pytest.fixture(scope="session")
def four_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small slides and two small scenes of several levels, by themselves in a folder."""
    folder = tmp_path_factory.mktemp("four")
    for seed in (1, 2):
        write_slide(folder / f"slide{seed}.svs", Shape(y=700 + 200 * seed, x=1100), seed=seed, tile_px=64)
        write_scene(folder / f"scene{seed}.tif", Shape(y=700, x=500 + 200 * seed), seed=seed)
    return folder
