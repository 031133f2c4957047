"""Canvases as tokens that are chosen around a fixation, which is found by an example, told, or drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

import tilestream as ts
from tests.bench.platecanvas import EDGE_PX, PATCH_PX, SIZES_PX, Canvas, Pixels, draw
from tests.bench.tokenreader import NONE, Tokens
from tilestream.fovea import Fovea, fixations_of
from tilestream.kernels.gather import gather
from tilestream.kernels.mip import mip
from tilestream.models.handcrafted import handcrafted
from tilestream.plan.tokens import plan_tokens
from tilestream.pyramid import Pyramid
from tilestream.relevance.likeness import likeness, unit_vectors
from tilestream.relevance.query import map_of
from tilestream.relevance.standard import Standard
from tilestream.types import Batch, ScoreMap, Shape

BUDGET = 85
"""Nodes of the tree down to level 2."""
DEEPEST = 5
"""Level at which one token holds a canvas."""
E0_PX = 32.0
"""Radius of the fovea; not tuned."""
COARSE_LEVEL, CELL_PX = 3, 4
"""Where a query looks: level 3, tiles of 4 px there, 32 px of level 0; a 64th of the pixels."""
LEAST_PX = 5
"""Edge in a token from which a digit counts as readable when the encoder is trained."""
Way: TypeAlias = Literal["uniform", "query", "random", "told"]
WAYS: tuple[Way, ...] = ("uniform", "query", "random", "told")

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Canvases as tokens, chosen in several ways."""

    tokens: dict[Way, Tokens]
    """By way of choosing."""
    wanted: torch.Tensor
    """`(n,)` class of the digit that is asked for."""
    frequent: torch.Tensor
    """`(n,)` class that is the most frequent."""
    size_px: npt.NDArray[np.int64]
    """`(n,)` edge of the digits."""
    found: npt.NDArray[np.bool_]
    """`(n,)` whether the fixation of the query lies on the plate."""


def coarse_vectors(pixels: Pixels) -> Vectors:
    """Return the `handcrafted` vectors `(y, x, d)` of the tiles of a canvas at the coarse level."""
    picture = mip(pixels.transpose(2, 0, 1), threads=1)[COARSE_LEVEL - 1]
    edge = picture.shape[1] // CELL_PX
    tiles = picture.reshape(3, edge, CELL_PX, edge, CELL_PX).transpose(1, 3, 0, 2, 4).reshape(-1, 3, CELL_PX, CELL_PX)
    n = len(tiles)
    batch = Batch(
        pixels=tiles, valid=None, valid_share=np.ones(n, np.float32), rows=np.arange(n),
        tile_yx=np.zeros((n, 2), np.int64),
    )  # fmt: skip
    return handcrafted(rgb=True, tile_px=CELL_PX)(batch).reshape(edge, edge, -1)


def example_of(canvas: Canvas) -> Vectors:
    """Return the vector of the tile on which the wanted digit of a canvas stands."""
    y, x = (int(value) // (CELL_PX << COARSE_LEVEL) for value in canvas.centre_yx)
    return coarse_vectors(canvas.pixels)[y, x]


def query_map(canvas: Canvas, example: Vectors) -> ScoreMap:
    """Return how much each tile of the coarse level resembles an example: what `Query` does, without opening a file."""
    vectors = coarse_vectors(canvas.pixels)
    edge = len(vectors)
    standard = Standard.of(vectors.reshape(edge * edge, -1))
    wanted = unit_vectors(standard(example), what="example")
    values = likeness(standard(vectors.reshape(edge * edge, -1)), wanted).reshape(edge, edge)
    return map_of(
        "query", values, np.ones((edge, edge), np.bool_), cell_yx=(float(CELL_PX << COARSE_LEVEL),) * 2,
        shape=Shape(y=EDGE_PX, x=EDGE_PX),
    )  # fmt: skip


def squares_of(pyr: Pyramid, fixation_yx: tuple[float, float] | None) -> npt.NDArray[np.int64]:
    """Return the tokens of a canvas, `(85, 4)`: level, y, x, size; the same for all without a fixation."""
    fovea = None if fixation_yx is None else Fovea(fixations_yx=(fixation_yx,), e0_px=E0_PX)
    plan = plan_tokens(pyr, budget=BUDGET, count="nodes", patch_px=PATCH_PX, fovea=fovea)
    assert len(plan) == BUDGET
    return plan.tokens


def shown_in(canvas: Canvas, squares: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the class of the digit that each token shows whole and at a readable size, `NONE` where it shows none."""
    size = canvas.size_px
    low = np.maximum(squares[:, None, 1:3], canvas.corners_yx)
    high = np.minimum(squares[:, None, 1:3] + squares[:, None, 3:], canvas.corners_yx + size)
    inside = (high - low).clip(0).prod(axis=2) / size**2  # tokens, digits
    is_seen = (inside.max(axis=1) > 0.9) & (size >= LEAST_PX * 2 ** squares[:, 0])
    return np.where(is_seen, canvas.labels[inside.argmax(axis=1)], NONE)


def sample(
    n: int, numbers: npt.NDArray[np.int64], *, seed: int, examples_from: npt.NDArray[np.int64] | None = None
) -> Sample:
    """Return `n` canvases as tokens, a third of each size, with digits out of `numbers`; examples may have others."""
    rng, chance = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    # examples come from canvases of their own, one a size: "more like this" is drawn once by hand
    shown = numbers if examples_from is None else examples_from
    examples = {size: example_of(draw(np.random.default_rng(seed + size), size, shown)) for size in SIZES_PX}
    shape = (n, BUDGET)
    pixels = {way: np.empty((*shape, 3, PATCH_PX, PATCH_PX), np.uint8) for way in WAYS}
    squares = {way: np.empty((*shape, 4), np.int64) for way in WAYS}
    shows = {way: np.empty(shape, np.int64) for way in WAYS}
    canvases, found, uniform = [], np.zeros(n, np.bool_), None
    for index in range(n):
        canvas = draw(rng, SIZES_PX[index % len(SIZES_PX)], numbers)
        pyr = ts.open_pyramid(canvas.pixels)
        uniform = squares_of(pyr, None) if uniform is None else uniform
        (looked,) = fixations_of(query_map(canvas, examples[canvas.size_px]), 1)
        y, x = chance.uniform(0, EDGE_PX, 2)
        fixations = {"query": looked, "random": (float(y), float(x)), "told": canvas.centre_yx}
        off = max(abs(a - b) for a, b in zip(looked, canvas.centre_yx, strict=True))
        found[index] = off <= canvas.size_px / 2 + max(8, canvas.size_px // 2) + (CELL_PX << COARSE_LEVEL) / 2
        levels = [canvas.pixels.transpose(2, 0, 1)]
        levels += mip(levels[0], threads=1)[:DEEPEST]
        for way in WAYS:
            chosen = uniform if way == "uniform" else squares_of(pyr, fixations[way])
            squares[way][index], shows[way][index] = chosen, shown_in(canvas, chosen)
            pixels[way][index] = gather(levels, chosen, patch_px=PATCH_PX, threads=1) + 0.5
        canvases.append((canvas.labels[0], canvas.frequent, canvas.size_px))
    wanted, frequent, sizes = np.array(canvases, np.int64).T
    return Sample(
        tokens={way: Tokens(pixels=pixels[way], squares=squares[way], shows=shows[way]) for way in WAYS},
        wanted=torch.from_numpy(wanted.copy()), frequent=torch.from_numpy(frequent.copy()), size_px=sizes, found=found,
    )  # fmt: skip
