"""Runs of the main job on a small slide, in this process or as a command."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, RunOutcome, run_embed
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.stream.engine import Event
from tilestream.stream.journal import LEDGER

UNITS = 30
"""Super-tiles of 256 px of the slide."""


def embed(client: Client, source: Path | list[Path], out: Path, **options: Any) -> RunOutcome:
    """Run in this process, in units of one tile."""
    listen = options.pop("on_event", None)
    encoder = options.pop("encoder", "tests.pipelines.faults.faulty:mean")
    given = {
        "where": "all",
        "super_tile_px": 256,
        "encoders": (EncoderChoice(name=encoder),),
        "tile_px": 256,
        **options,
    }
    paths = [str(path) for path in (source if isinstance(source, list) else [source])]
    return run_embed(read_cohort(paths), EmbedConfig(out=out, **given), client=client, on_event=listen)


def stores(out: Path) -> dict[str, bytes]:
    """All outputs but the report and the receipts, which hold times."""
    skipped = ("receipts", "report", "report.html", "report.json", "cohort.npz", "cohort.csv", "cohort.parquet")
    files = {path.relative_to(out): path for path in out.rglob("*") if path.is_file() and path.suffix != ".prom"}
    return {str(name): path.read_bytes() for name, path in files.items() if name.parts[0] not in skipped}


class Stop(Exception):
    """Ends a run from the outside."""


def stopped_after(count: int, client: Client, slide: Path, out: Path, **options: Any) -> None:
    """Run until `count` units are done, then stop as an interrupt does, and wait for what is in flight."""
    seen = 0

    def stop(event: Event) -> None:
        nonlocal seen
        seen += event.kind == "unit"
        if seen == count:
            raise Stop

    with pytest.raises(Stop):
        embed(client, slide, out, on_event=stop, **options)
    quiet = 0
    while quiet < 3:  # tasks that had begun end by themselves
        is_busy = any(client.processing().values()) or list((out / "receipts" / slide.name).glob("[LT]*.lease"))
        quiet = 0 if is_busy else quiet + 1
        time.sleep(0.02)


def command(source: Path, out: Path, *options: str) -> list[str]:
    program = [sys.executable, "-c", "from tilestream.cli import main; main()", "embed", str(source), "--out", str(out)]
    return [*program, "--where", "all", "--super-tile", "256", "--tile", "256", *options]


def start(source: Path, out: Path, *options: str, encoder: str = "mean", **more: Any) -> subprocess.Popen[str]:
    options = ("--encoder", f"tests.pipelines.faults.faulty:{encoder}", *options)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    pipes.setdefault("env", {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])})
    return subprocess.Popen(command(source, out, *options), text=True, **pipes)


def receipts(out: Path, source: Path) -> int:
    return len(list((out / "receipts" / source.name).glob("[LT]*.json")))


def done(out: Path, source: Path) -> dict[str, str]:
    """Which process has done each super-tile of an image, by its key; also while others write there."""
    folder = out / "receipts" / source.name
    documents = []
    for path in folder.glob("[LT]*.json"):
        with contextlib.suppress(FileNotFoundError):  # the image has been finished meanwhile
            documents.append(json.loads(path.read_text()))
    if (folder / LEDGER).exists():
        documents += json.loads((folder / LEDGER).read_text())["receipts"]
    return {document["key"]: document["worker"] for document in documents}


def wait_for(count: int, process: subprocess.Popen[str], out: Path, source: Path) -> None:
    stop = time.monotonic() + 60
    while receipts(out, source) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < stop
        time.sleep(0.005)
