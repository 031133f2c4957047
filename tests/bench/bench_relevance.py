"""Relevance of a coarse picture: each term beside the kernel that it wraps, or what users write with OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from tests.bench.bench_entropy import Pixels, tissue
from tests.bench.table import at_least, make_row, rates
from tilestream.kernels.tile_entropy import tile_entropy
from tilestream.pyramid import open_pyramid
from tilestream.relevance import Entropy, Gradient, Relevance
from tilestream.relevance.look import CELL_PX, Look

EDGE_PX = 2048
"""Long edge of the coarse picture of any image, however large."""
ENTROPY_BAR = 0.7
"""Of the rate of the kernel."""


def _work(operation: Callable[[], object], amount: float) -> Callable[[], float]:
    def run() -> float:
        operation()
        return amount

    operation()  # compiles, or loads what was compiled
    return run


def entropy_row(image: Pixels, *, rounds: int = 7, bar: float = ENTROPY_BAR) -> dict[str, Any]:
    """Return the rate of the term `entropy` beside that of its kernel on the same samples."""
    look = Look.of(open_pyramid(image))
    codes, _ = look.codes()
    ours, kernel = rates(
        [
            _work(lambda: Entropy().of_look(look), image.size / 1e6),
            _work(lambda: tile_entropy(codes, tile_px=CELL_PX), image.size / 1e6),
        ],
        rounds=rounds,
    )
    return make_row(
        "relevance: term entropy", ours, "M samples/s", rival=("its kernel", kernel), bar=at_least(bar),
        note=f"coarse picture {image.shape}, cells of {CELL_PX} px",
    )  # fmt: skip


def _opencv_gradient(image: Pixels) -> Any:
    slopes = [
        cv2.Sobel(image, cv2.CV_32F, *way, scale=1 / 8, borderType=cv2.BORDER_REPLICATE) for way in ((1, 0), (0, 1))
    ]
    length = np.sqrt(sum((one * one).sum(axis=2) for one in slopes) / 3)
    return cv2.resize(length, None, fx=1 / CELL_PX, fy=1 / CELL_PX, interpolation=cv2.INTER_AREA)


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    image = tissue(EDGE_PX)
    pyr = open_pyramid(image)
    look = Look.of(pyr)
    mpx = image.shape[0] * image.shape[1] / 1e6
    np.testing.assert_allclose(Gradient().of_look(look).values, _opencv_gradient(image), rtol=1e-3)
    ours, theirs = rates(
        [_work(lambda: Gradient().of_look(look), mpx), _work(lambda: _opencv_gradient(image), mpx)], rounds=5
    )
    every = Relevance.of("entropy,gradient,residual,itti")
    (whole,) = rates([_work(lambda: every(pyr), mpx)], rounds=5)
    note = "from an array in memory: read, four terms, normalised and added up; a larger image has no larger picture"
    return [
        entropy_row(image),
        make_row("relevance: term gradient", ours, "Mpx/s", rival=("cv2.Sobel twice, and its mean", theirs)),
        make_row("relevance: four terms", whole, "Mpx/s of picture", note=note),
    ]
