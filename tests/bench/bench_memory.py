"""Memory does not grow with the image: peak of `tilestream embed` over the memory that its imports take."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.gigapixel import REPO, shape_of, write_gigapixel
from tests.bench.table import make_row

GIGAPIXELS = (0.5, 1.0, 2.0, 5.0)
TOLERANCE = 0.15
BUDGET = "1GB"
ENCODER = "handcrafted"
CHILD = """
import json, re, sys
from pathlib import Path
import distributed, zarr, xarray
import tilestream.cli, tilestream.pipelines.embed, tilestream.pipelines.map_run

def status(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

after_imports = status("VmRSS")
sys.argv = ["tilestream", *sys.argv[1:]]
try:
    tilestream.cli.main()
    code = 0
except SystemExit as end:
    code = end.code or 0
print(json.dumps({"code": code, "after_imports": after_imports, "peak": status("VmHWM")}))
"""


def measure(slide: Path, out: Path, *, budget: str = BUDGET, where: str = "all") -> int:
    """Return the bytes by which the peak of one run exceeds the memory after imports.

    Parameters
    ----------
    slide : Path
        Input.
    out : Path
        Folder of the outputs.
    budget : str
        What the run may use, as `--memory` takes it.
    where : str
        Which tiles.

    Returns
    -------
    int
        Bytes.
    """
    options = ["--out", str(out), "--where", where, "--memory", budget, "--cluster", "threads:2", "--encoder", ENCODER]
    return peak_bytes(["embed", str(slide), *options])


def peak_bytes(words: Sequence[str]) -> int:
    """Return the bytes by which the peak of one command exceeds the memory after imports.

    Parameters
    ----------
    words : sequence of str
        What stands behind `tilestream`.

    Returns
    -------
    int
        Bytes.
    """
    command = [sys.executable, "-c", CHILD, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600, cwd=REPO)
    lines = done.stdout.strip().splitlines()
    found = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {"code": done.returncode}
    if found["code"] != 0:
        raise RuntimeError(f"{words[0]} ended with {found['code']}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return int(found["peak"]) - int(found["after_imports"])


def rows(gigapixels: tuple[float, ...] = GIGAPIXELS) -> list[dict[str, Any]]:
    """Return one row a size; the ratio is to the median of all sizes."""
    peaks = []
    with TemporaryDirectory() as folder:
        for size in gigapixels:
            slide = write_gigapixel(Path(folder) / f"{size:g}.svs", shape_of(size))
            peaks.append(measure(slide, Path(folder) / f"out-{size:g}"))
    middle = statistics.median(peaks)
    note = f"VmHWM less VmRSS after imports, `--memory {BUDGET}`, all tiles, {ENCODER}"
    return [
        make_row(
            f"peak memory of embed, {size:g} Gpx",
            peak / 1e6,
            "MB",
            rival=("median of the sizes", middle / 1e6),
            bar=(1 - TOLERANCE, 1 + TOLERANCE),
            note=note if size == gigapixels[0] else "",
        )
        for size, peak in zip(gigapixels, peaks, strict=True)
    ]
