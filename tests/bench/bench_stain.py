"""Stain separation against the formula that users write, and how fast masks, nodata and coverage are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.bench_kernels import tissue_batch
from tests.bench.table import at_least, make_row, rates
from tilestream.kernels.coverage import TileAxis, coverage
from tilestream.kernels.macenko import estimate_stains
from tilestream.kernels.mask import tissue_brightfield
from tilestream.kernels.nodata import nodata_mask
from tilestream.kernels.stain import optical_density, stain_separation, unmixing

SEPARATION_BAR = 5.0
"""Times the rate of NumPy, on one thread each."""


def picture(edge_px: int = 2048) -> npt.NDArray[np.uint8]:
    """Return `(3, y, x)` of synthetic stained tissue, a view of interleaved memory."""
    tiles = tissue_batch().pixels.transpose(0, 2, 3, 1).reshape(8, 8, 256, 256, 3).swapaxes(1, 2).reshape(2048, 2048, 3)
    return np.ascontiguousarray(tiles[:edge_px, :edge_px]).transpose(2, 0, 1)


def by_numpy(rgb: npt.NDArray[np.uint8], matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the amounts of stains as users write it, in float32: half the work of float64."""
    interleaved = rgb.transpose(1, 2, 0).astype(np.float32)
    return np.asarray(-np.log10((interleaved + 1) / 256) @ matrix)


def separation_row(rgb: npt.NDArray[np.uint8], *, rounds: int = 5, bar: float | None = None) -> dict[str, Any]:
    """Return the rate of `stain_separation` beside that of NumPy."""
    mpx, matrix = rgb[0].size / 1e6, np.array(unmixing(), np.float32)
    out = np.empty(rgb.shape, np.float32)
    np.testing.assert_allclose(
        stain_separation(rgb, out=out, threads=1).transpose(1, 2, 0), by_numpy(rgb, matrix), atol=1e-5
    )
    ours, theirs = rates(
        [_times(lambda: stain_separation(rgb, out=out, threads=1), mpx), _times(lambda: by_numpy(rgb, matrix), mpx)],
        rounds=rounds,
    )
    return make_row(
        "stain separation, 1 thread", ours, "Mpx/s", rival=("NumPy log10 and matmul, float32", theirs),
        bar=None if bar is None else at_least(bar), note="8-bit RGB interleaved in memory to three float32 planes",
    )  # fmt: skip


def _times(work: Callable[[], object], mpx: float) -> Callable[[], float]:
    def run() -> float:
        work()
        return mpx

    return run


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    rgb = picture()
    mpx, out, mask = rgb[0].size / 1e6, np.empty(rgb.shape, np.float32), np.empty(rgb.shape[1:], np.bool_)
    tiles = TileAxis(size=16), TileAxis(size=16)
    tissue = tissue_brightfield(rgb)
    cases: tuple[tuple[str, Callable[[int | None], object], str], ...] = (
        ("optical density", lambda n: optical_density(rgb, out=out, threads=n), "8-bit RGB to three float32 planes"),
        ("estimate of stains (Macenko)", lambda n: estimate_stains(rgb, threads=n), "both passes"),
        ("tissue, brightfield", lambda n: tissue_brightfield(rgb, out=mask, threads=n), "8-bit RGB"),
        ("nodata", lambda n: nodata_mask(rgb, 0, out=mask, threads=n), "8-bit RGB, one value, all channels"),
        ("coverage", lambda n: coverage(tissue, tiles, threads=n), "share of tiles of 16 mask pixels"),
    )
    table = [separation_row(rgb, bar=SEPARATION_BAR)]
    for name, work, note in cases:
        work(1)
        one, two = rates([_times(lambda w=work: w(1), mpx), _times(lambda w=work: w(2), mpx)], rounds=5)
        table += [make_row(f"{name}, 1 thread", one, "Mpx/s", note=note), make_row(f"{name}, 2 threads", two, "Mpx/s")]
    return table
