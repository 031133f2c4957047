"""Slides into stores: ours beside ome-zarr-py, ngff-zarr and libvips, and beside `cp` where nothing is decoded."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tilestream as ts
from tests.bench import converters
from tests.bench.bench_archive import write_whole_slide
from tests.bench.converters import Convert, seconds
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import at_least, make_row
from tilestream.types import Shape

EDGE_PX = 20_000
WRITER_BAR, VIPS_BAR, ARCHIVE_BAR, COPY_BAR, UPDATE_BAR = 3.0, 1.0, 50.0, 0.5, 20.0
OPEN_S, OPEN_MB = 0.2, 20.0
MEMORY_GIGAPIXELS = (0.5, 1.0, 2.0, 5.0)
MEMORY_TOLERANCE = 0.1
OPEN = """
import json, sys, time
import psutil, xarray as xr
with xr.open_datatree(sys.argv[1], engine="tilestream"):  # a small one, which pays for what is imported late
    pass
process = psutil.Process()
before, start = process.memory_info().rss, time.perf_counter()
tree = xr.open_datatree(sys.argv[2], engine="tilestream")
spent = time.perf_counter() - start
print(json.dumps([spent, process.memory_info().rss - before, str(dict(tree["0"].sizes))]))
"""
INGEST = """
import json, re, sys
from pathlib import Path
import tilestream as ts
from tilestream.cluster.client import open_client

def status(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

with open_client("threads:2") as client:
    ts.build_pyramid(sys.argv[1], sys.argv[2] + "/small.zarr", profile="portable", client=client)
    before = status("VmRSS")
    ts.build_pyramid(sys.argv[3], sys.argv[2] + "/large.zarr", profile="portable", client=client)
print(json.dumps(status("VmHWM") - before))
"""
OURS = {"portable": converters.portable, "archive": converters.archive}
PEERS = {"ome-zarr-py": converters.ome_zarr, "ngff-zarr": converters.ngff_zarr}
VIPS = {"vips tiffsave": converters.vips_tiff, "vips dzsave": converters.vips_dz}


def portable_rows(slide: Path, folder: Path, *, px: int, share: float = 1.0) -> list[dict[str, Any]]:
    """Return the rate of `--profile portable` beside those of the peers that decode and pack anew.

    Parameters
    ----------
    slide : Path
        Tiled JPEG.
    folder : Path
        Where they write.
    px : int
        Edge of the slide.
    share : float
        Of the bars that must be held.

    Returns
    -------
    list of dict
        A row for each peer; libvips where its command is there.
    """
    peers = PEERS | (VIPS if converters.has_vips() else {})
    found = _rates(slide, folder, {"portable": converters.portable, **peers}, px=px)
    bars = {"ome-zarr-py": WRITER_BAR, "ngff-zarr": WRITER_BAR, "vips tiffsave": VIPS_BAR}
    note = f"chunks of 256 px, zstd level {converters.LEVEL}, until all is on the disk; peers read by tifffile and Dask"
    return [
        make_row(
            f"ingest --profile portable, {px:,}² RGB",
            found["portable"],
            "Mpx/s",
            rival=(peer, found[peer]),
            bar=at_least(share * bars[peer]) if peer in bars else None,
            note=note if peer == "ome-zarr-py" else "",
        )
        for peer in peers
    ]


def archive_rows(
    slide: Path, folder: Path, *, px: int, share: float = 1.0, copy: bool = True, peer_px: int | None = None
) -> list[dict[str, Any]]:
    """Return the rate of `--profile archive` beside ome-zarr-py, and beside a copy of what it wrote; see above.

    Parameters
    ----------
    slide, folder, px, share
        As above.
    copy : bool
        Whether the row of the copy is wanted.
    peer_px : int, optional
        Edge of a smaller slide for ome-zarr-py. It takes seconds where a copy of tiles takes a quarter of one, so that
        its rate is the same on a smaller slide, while ours on such a one would be that of opening and planning.
    """
    theirs = slide if peer_px is None else write_whole_slide(folder / "peer.svs", Shape(y=peer_px, x=peer_px))
    contestants = {"archive": converters.archive, "ome-zarr-py": converters.ome_zarr}
    found = _rates(slide, folder, contestants, px=px, theirs=(theirs, peer_px or px))
    return [
        make_row(
            f"ingest --profile archive, {px:,}² RGB",
            found["archive"],
            "Mpx/s",
            rival=(peer, found[peer]),
            bar=at_least(share * bar),
        )
        for peer, bar in (("ome-zarr-py", ARCHIVE_BAR), ("cp and sync", COPY_BAR))[: 1 + copy]
    ]


def _rates(
    slide: Path,
    folder: Path,
    contestants: Mapping[str, Convert],
    *,
    px: int,
    theirs: tuple[Path, int] | None = None,
) -> dict[str, float]:
    """Return Mpx/s of each, ours thrice, before, among and after the peers; no folder is used twice."""
    given = dict.fromkeys(("cp and sync", *contestants), (slide, px))
    given |= dict.fromkeys(contestants.keys() & PEERS.keys(), theirs or (slide, px))
    taken: dict[str, list[float]] = {name: [] for name in (*contestants, "cp and sync")}
    small = write_whole_slide(folder / "small.svs", Shape(y=960, x=960))
    ours = [name for name in contestants if name in OURS]
    peers = [name for name in contestants if name not in OURS]
    with TemporaryDirectory(dir=folder) as room:
        for name, convert in contestants.items():  # pays for imports and compilation
            convert(small, Path(room) / f"small {name}")
        for turn, name in enumerate((*ours, *peers[:1], *ours, *peers[1:], *ours)):
            out = Path(room) / f"{turn} {name}"
            taken[name].append(seconds(contestants[name], given[name][0], out))
            if name == "archive":
                taken["cp and sync"].append(seconds(converters.copied, out, Path(room) / f"{turn} copy"))
    return {name: given[name][1] ** 2 / 1e6 / statistics.median(times) for name, times in taken.items() if times}


def update_row(slide: Path, folder: Path, *, px: int, share: float = 1.0) -> dict[str, Any]:
    """Return how much faster a hundredth of the area is updated than the store is built again."""
    store, edge = folder / "updated" / "x.zarr", px // 10
    box = ts.Box(level=0, y=4 * edge, x=4 * edge, height=edge, width=edge)
    built, updated = [], []
    for _ in range(3):
        shutil.rmtree(store.parent, ignore_errors=True)
        built.append(_timed(lambda: ts.build_pyramid(slide, store, profile="portable")))
        updated.append(_timed(lambda: ts.update_pyramid(store, [box], src=slide)))
    return make_row(
        f"update of 1 % of {px:,}² RGB",
        1 / statistics.median(updated),
        "1/s",
        rival=("a rebuild", 1 / statistics.median(built)),
        bar=at_least(share * UPDATE_BAR),
    )


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    os.sync()
    return time.perf_counter() - start


def open_rows(slide: Path, folder: Path) -> list[dict[str, Any]]:
    """Return what it takes to open a slide through xarray, in a process that has opened another one."""
    small = write_whole_slide(folder / "other.svs", Shape(y=960, x=960))
    done = [_child(OPEN, small, slide) for _ in range(3)]
    spent, nbytes = (min(one[index] for one in done) for index in (0, 1))
    return [
        make_row("xr.open_datatree of a slide", spent, "s", bar=(0.0, OPEN_S), note=f"{done[0][2]}, imports left out"),
        make_row("memory of the opened slide", nbytes / 1e6, "MB", bar=(float("-inf"), OPEN_MB)),
    ]


def memory_rows(gigapixels: Sequence[float] = MEMORY_GIGAPIXELS) -> list[dict[str, Any]]:
    """Return the peak memory of an ingest for some sizes; the ratio is to the median of all."""
    peaks = []
    with TemporaryDirectory() as folder:
        small = write_whole_slide(Path(folder) / "small.svs", Shape(y=960, x=960))
        for size in gigapixels:
            slide = write_gigapixel(Path(folder) / "large.svs", shape_of(size))
            out = Path(folder) / f"out-{size:g}"
            peaks.append(_child(INGEST, small, out, slide))
            shutil.rmtree(out)
    middle = statistics.median(peaks)
    return [
        make_row(
            f"peak memory of ingest, {size:g} Gpx",
            peak / 1e6,
            "MB",
            rival=("median of the sizes", middle / 1e6),
            bar=(1 - MEMORY_TOLERANCE, 1 + MEMORY_TOLERANCE),
            note="VmHWM less VmRSS after a small slide, profile portable, two threads" if size == gigapixels[0] else "",
        )
        for size, peak in zip(gigapixels, peaks, strict=True)
    ]


def _child(code: str, *arguments: Path) -> Any:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        slide = write_whole_slide(folder / "slide.svs", Shape(y=EDGE_PX, x=EDGE_PX))
        return [
            *portable_rows(slide, folder, px=EDGE_PX),
            *archive_rows(slide, folder, px=EDGE_PX),
            update_row(slide, folder, px=EDGE_PX),
            *open_rows(slide, folder),
            *memory_rows(),
        ]
