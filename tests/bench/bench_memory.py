"""Memory does not grow with the image: peak of a command over the memory that its imports take."""

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
TOLERANCE = 0.1
SLACK_BYTES = 12_000_000
"""What the allocator keeps is allowed to differ too: an archive takes 50 MB in all."""
BUDGET = "1GB"
JOBS = {
    "embed": ("--encoder", "handcrafted", "--where", "all", "--memory", BUDGET),
    "map": ("--stage", "tests.bench.filters:green", "--where", "all", "--memory", BUDGET),
    "ingest": ("--profile", "archive"),
}
"""Command → its options."""
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


def memory_rows(job: str, gigapixels: Sequence[float] = GIGAPIXELS, *, is_sparse: bool = False) -> list[dict[str, Any]]:
    """Return the peak memory of a command for images of some sizes; the ratio is to the median of all.

    Parameters
    ----------
    job : str
        One of `JOBS`.
    gigapixels : sequence of float
        Sizes.
    is_sparse : bool
        Whether three quarters of the tiles are left out, as scanners do: as many units, in a quarter of the time.

    Returns
    -------
    list of dict
        A row a size.
    """
    peaks = []
    for size in gigapixels:
        with TemporaryDirectory() as folder:
            slide = write_gigapixel(Path(folder) / f"{size:g}.svs", shape_of(size), is_sparse=is_sparse)
            words = [job, str(slide), "--out", f"{folder}/out", "--cluster", "threads:2", *JOBS[job]]
            peaks.append(peak_bytes(words))
    middle = statistics.median(peaks)
    most = max(TOLERANCE, SLACK_BYTES / middle)
    return [
        make_row(
            f"peak memory of {job}, {size:g} Gpx",
            peak / 1e6,
            "MB",
            rival=("median of the sizes", middle / 1e6),
            bar=(1 - most, 1 + most),
            note=f"VmHWM less VmRSS after imports, two threads, `{' '.join(JOBS[job])}`"
            if size == gigapixels[0]
            else "",
        )
        for size, peak in zip(gigapixels, peaks, strict=True)
    ]


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; those of `map` are in its own."""
    return [*memory_rows("embed"), *memory_rows("ingest")]
