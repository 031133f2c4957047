"""Entropy maps against numpy.bincount a tile, and structure against SciPy and OpenCV, on tissue and on glass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from tests.bench.table import at_least, make_row, rates
from tilestream.kernels.coarser_histograms import coarser_histograms
from tilestream.kernels.entropy import entropy
from tilestream.kernels.gradient import gradient
from tilestream.kernels.structure_tensor import structure_tensor
from tilestream.kernels.tile_entropy import tile_entropy
from tilestream.kernels.tile_histogram import tile_histograms
from tilestream.testing.tissue import Tissue
from tilestream.types import Box, Shape

EDGE_PX = 4096
TILE_PX = 64
BINS = 32
ENTROPY_BAR = 20.0
"""Times numpy.bincount a tile, on two cores."""
GLASS_CODE = 243

Pixels = npt.NDArray[np.uint8]


def tissue(edge_px: int = EDGE_PX) -> Pixels:
    """Return interleaved RGB of synthetic tissue, painted once and repeated."""
    painted = min(edge_px, 2048)
    area = Tissue(shape=Shape(y=painted, x=painted), seed=1, mpp=0.5).paint(
        Box(y=0, x=0, height=painted, width=painted)
    )
    return np.ascontiguousarray(np.tile(area, (edge_px // painted, edge_px // painted, 1)))


def bincount_entropy(plane: Pixels) -> npt.NDArray[np.float32]:
    """Return the same map as users make it: numpy.bincount a tile, then one expression over all of them."""
    rows, columns = plane.shape[0] // TILE_PX, plane.shape[1] // TILE_PX
    counts = np.empty((rows, columns, BINS))
    for i in range(rows):
        for j in range(columns):
            tile = plane[i * TILE_PX : (i + 1) * TILE_PX, j * TILE_PX : (j + 1) * TILE_PX]
            counts[i, j] = np.bincount((tile >> 3).ravel(), minlength=BINS)
    n = TILE_PX * TILE_PX
    bits = np.log2(n) - (counts * np.log2(np.maximum(counts, 1))).sum(axis=2) / n
    return np.asarray(bits / np.log2(BINS), np.float32)


def _contest(ours: Callable[[], object], theirs: Callable[[], object], size: float, share: float, rounds: int) -> Any:
    """Return the rates of both; the rival gets through a `share` of the work."""

    def work(operation: Callable[[], object], amount: float) -> Callable[[], float]:
        def run() -> float:
            operation()
            return amount

        operation()  # compiles, or loads what was compiled
        return run

    return rates([work(ours, size), work(theirs, size * share)], rounds=rounds)


def entropy_row(
    name: str, image: Pixels, *, threads: int | None, rounds: int = 7, bar: float | None = None
) -> dict[str, Any]:
    """Return the rate of `tile_entropy` on an image beside that of numpy.bincount on a quarter of one channel."""
    plane = image if image.ndim == 2 else image[0]
    part = plane[: plane.shape[0] // 2, : plane.shape[1] // 2]
    mine = tile_entropy(part, tile_px=TILE_PX, bins=BINS)
    np.testing.assert_allclose(mine, bincount_entropy(part), atol=1e-6)
    ours, theirs = _contest(
        lambda: tile_entropy(image, tile_px=TILE_PX, bins=BINS, threads=threads),
        lambda: bincount_entropy(part),
        image.size / 1e6,
        part.size / image.size,
        rounds,
    )
    return make_row(
        f"tile entropy, {name}", ours, "M samples/s", rival=("numpy.bincount a tile", theirs),
        bar=None if bar is None else at_least(bar),
        note=f"8-bit, {image.shape}, tiles of {TILE_PX} px, {BINS} bins; the rival's time holds its shift and entropy",
    )  # fmt: skip


def _levels_row(plane: Pixels) -> dict[str, Any]:
    """Return what the entropy of all coarser levels costs after the finest."""

    def chain() -> None:
        histograms = tile_histograms(plane, tile_px=TILE_PX, bins=BINS)
        entropy(histograms, bins=BINS)
        while histograms.shape[0] > 1:
            histograms = coarser_histograms(histograms)
            entropy(histograms, bins=BINS)

    def passes() -> None:
        tile_px = TILE_PX
        while tile_px <= plane.shape[0]:
            tile_entropy(plane, tile_px=tile_px, bins=BINS)
            tile_px *= 2

    ours, theirs = _contest(chain, passes, plane.size / 1e6, 1.0, 5)
    note = "entropy of every level from one pass and sums of four; the rival reads the pixels for each level"
    return make_row(
        "entropy pyramid, 64 to 4096 px", ours, "M samples/s", rival=("tile_entropy a level", theirs), note=note
    )


def _scipy_tensor(plane: npt.NDArray[np.float32], sigma: float) -> list[npt.NDArray[Any]]:
    iy, ix = (ndimage.sobel(plane, axis=axis, mode="nearest") for axis in (0, 1))
    return [ndimage.gaussian_filter(p, sigma, mode="nearest") for p in (iy * iy, iy * ix, ix * ix)]


def _structure_rows(plane: Pixels) -> list[dict[str, Any]]:
    image = plane[:2048, :2048].astype(np.float32)
    mpx = image.size / 1e6
    tensor = _contest(lambda: structure_tensor(image, 1.5), lambda: _scipy_tensor(image[:512], 1.5), mpx, 0.25, 3)
    codes = np.ascontiguousarray(plane[:2048, :2048])
    slopes = _contest(
        lambda: gradient(codes),
        lambda: (
            cv2.Sobel(codes, cv2.CV_32F, 0, 1, borderType=cv2.BORDER_REPLICATE),
            cv2.Sobel(codes, cv2.CV_32F, 1, 0, borderType=cv2.BORDER_REPLICATE),
        ),
        mpx,
        1.0,
        5,
    )
    return [
        make_row("structure tensor, sigma 1.5", tensor[0], "Mpx/s", rival=("SciPy, as scikit-image does", tensor[1]),
                 note="float32; two Sobel filters, three Gaussians"),
        make_row("gradient, Sobel", slopes[0], "Mpx/s", rival=("cv2.Sobel twice", slopes[1]), note="8-bit to float32"),
    ]  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    image = tissue()
    rgb = np.moveaxis(image, 2, 0)
    plane = np.ascontiguousarray(image[..., 1])
    glass = np.full_like(plane, GLASS_CODE)
    return [
        entropy_row("one channel of tissue", plane, threads=None, bar=ENTROPY_BAR),
        entropy_row("one channel of glass", glass, threads=None, bar=ENTROPY_BAR),
        entropy_row("one channel of tissue, 1 thread", plane, threads=1),
        entropy_row("interleaved RGB", rgb, threads=None),
        entropy_row("planar RGB", np.ascontiguousarray(rgb), threads=None),
        _levels_row(plane),
        *_structure_rows(plane),
    ]
