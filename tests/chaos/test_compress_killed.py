"""kill -9 of `tilestream compress`: tiles that are done are kept, the others are fitted, and the bits are the same."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.codecs.exactfield import NAME
from tests.codecs.exactfield import PATH as QUICK
from tilestream.cli import app
from tilestream.registry import CODECS

TILES = 25
KEPT = 4
WAIT_S = 120.0


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    picture = tmp_path / "picture.png"
    picture.write_bytes(imagecodecs.png_encode(rng.integers(0, 255, (300, 300, 3), np.uint8)))
    out, receipts = tmp_path / "out", tmp_path / "out/receipts/picture.png.field.zarr"
    words = ["compress", str(picture), "--codec", NAME, "--tile", "64", "--cluster", "threads:2", "--out"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen([sys.executable, "-m", "tests.chaos.slowfields", *words, str(out)], **quiet)
    stop = time.monotonic() + WAIT_S
    while len(list(receipts.glob("L*.json"))) < KEPT:
        assert run.poll() is None, "it has ended too soon"
        assert time.monotonic() < stop
        time.sleep(0.01)
    run.kill()
    run.wait()
    done = len(list(receipts.glob("L*.json")))
    assert KEPT <= done < TILES
    monkeypatch.setitem(CODECS, NAME, QUICK)
    again = CliRunner().invoke(app, [*words, str(out)], catch_exceptions=False)
    assert again.exit_code == 0, again.stderr
    assert f"{TILES} tiles ({done} from an earlier run), 0 damaged" in again.stdout
    alone = CliRunner().invoke(app, [*words, str(tmp_path / "alone")], catch_exceptions=False)
    assert alone.exit_code == 0, alone.stderr
    assert files(out / "picture.png.field.zarr") == files(tmp_path / "alone/picture.png.field.zarr")
