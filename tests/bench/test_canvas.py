"""The canvas is fair: what matters differs from what does not by shape alone, and answers are in the finest pixels."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from tests.bench.canvas import ALONG_X, ALONG_Y, CELL_PX, FIELD_PX, Canvas
from tests.bench.canvas_file import BLOCK_PX, LEVELS, write_canvas
from tests.bench.canvas_glyphs import PARTS, SIZES_PX, digits, draw, ink_of, split
from tilestream.kernels.mip import mip
from tilestream.kernels.tile_entropy import tile_entropy
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.types import Box

pytest.importorskip("sklearn")
ALIKE = 0.01
"""Least p of a two-sided Kolmogorov-Smirnov test."""


@pytest.fixture(scope="module")
def canvas() -> Canvas:
    """Many digits of all classes, so that a small difference would show."""
    return Canvas(seed=0, part="tune", rows=1, columns=2, density=0.6, all_classes=True)


@pytest.fixture(scope="module")
def pixels(canvas: Canvas) -> np.ndarray:
    return canvas.field_rows(0)


def both(canvas: Canvas, values: np.ndarray) -> float:
    """Return the p of digits that matter and others having the same distribution."""
    matters = np.array([p.matters for p in canvas.placed])
    assert matters.sum() > 150
    return float(ks_2samp(values[matters], values[~matters]).pvalue)


def cells_of(pixels: np.ndarray, canvas: Canvas) -> np.ndarray:
    rows, columns = (edge // CELL_PX for edge in canvas.shape)
    grid = pixels.reshape(rows, pixels.shape[0] // rows, columns, -1).transpose(0, 2, 1, 3)
    return np.stack([grid[p.cell_yx] for p in canvas.placed])


@pytest.mark.parametrize("digit", range(10))
def test_drawings_hold_the_same_ink(digit: int) -> None:
    image = digits()[0][np.flatnonzero(digits()[1] == digit)[0]]
    for edge, degrees in ((SIZES_PX[0], 0.0), (SIZES_PX[1], -9.0)):
        assert np.array_equal(np.sort(draw(image, edge, degrees=degrees), axis=None), ink_of(edge))


def test_parts_share_no_digit_and_have_all_classes() -> None:
    for seed in range(5):
        parts = split(seed)
        assert sorted(np.concatenate([parts[name] for name in PARTS])) == list(range(len(digits()[0])))
        assert all(len(np.unique(digits()[1][parts[name]])) == 10 for name in PARTS)
    assert {digit for seed in range(5) for digit in Canvas(seed=seed, part="test", rows=1, columns=1).targets} == {
        *range(10)
    }


def test_sizes_contrasts_and_hatchings_are_alike(canvas: Canvas) -> None:
    assert both(canvas, np.array([p.glyph.edge for p in canvas.placed])) > ALIKE
    assert both(canvas, np.array([p.contrast for p in canvas.placed])) > ALIKE
    assert both(canvas, np.array([p.state for p in canvas.placed])) > ALIKE


def test_entropy_and_contrast_of_pixels_are_alike(canvas: Canvas, pixels: np.ndarray) -> None:
    entropy = tile_entropy(pixels, tile_px=CELL_PX)
    cells = cells_of(pixels, canvas).astype(np.float64)
    measured = {
        "entropy": np.array([entropy[p.cell_yx] for p in canvas.placed]),
        "mean": cells.mean((1, 2)),
        "deviation": cells.std((1, 2)),
        "gradient": np.abs(np.diff(cells, axis=1)).mean((1, 2)) + np.abs(np.diff(cells, axis=2)).mean((1, 2)),
    }
    for name, values in measured.items():
        assert both(canvas, values) > ALIKE, name
    written = digits()[0].std((1, 2))[[p.glyph.source for p in canvas.placed]]
    assert both(canvas, written) < ALIKE, "as they were written they differ, and this test sees it"


def test_ground_is_about_as_rich_as_digits(canvas: Canvas, pixels: np.ndarray) -> None:
    entropy = tile_entropy(pixels, tile_px=CELL_PX)
    holds = np.zeros(entropy.shape, bool)
    holds[tuple(np.array([p.cell_yx for p in canvas.placed]).T)] = True
    above = (entropy[holds][:, None] > entropy[~holds][None, ::3]).mean()
    assert 0.5 < above < 0.95, "entropy alone says something of where digits are, but does not give them away"


def test_a_detector_of_digits_is_not_enough() -> None:
    canvas = Canvas(seed=0, part="tune", rows=6, columns=6)
    side = BLOCK_PX // CELL_PX
    blocks = np.zeros((canvas.shape[0] // BLOCK_PX, canvas.shape[1] // BLOCK_PX, 2))
    for placed in canvas.placed:
        y, x = placed.cell_yx
        blocks[y // side, x // side] += 1, placed.matters
    flat = blocks.reshape(-1, 2)
    order = np.argsort(-flat[:, 0], kind="stable")  # where most digits are, by an oracle
    found = flat[order[: len(flat) // 10], 1].sum() / flat[:, 1].sum()
    assert found < 0.6
    assert 1e-4 < canvas.ratio < 14e-4
    counts = np.bincount(canvas.answers.ravel())
    assert counts.tolist() == [12, 12, 12]


def test_digits_lie_in_their_cells_and_fields_have_one_answer() -> None:
    canvas = Canvas(seed=0, part="tune", rows=3, columns=3)
    side = FIELD_PX // CELL_PX
    seen = {}
    for placed in canvas.placed:
        edge, (y, x) = placed.glyph.edge, placed.cell_yx
        assert ((placed.y + edge - 1) // CELL_PX, (placed.x + edge - 1) // CELL_PX) == (y, x)
        if placed.matters:
            seen.setdefault((y // side, x // side), set()).add(placed.state)
    answers = {place: {int(answer)} for place, answer in np.ndenumerate(canvas.answers) if answer}
    assert seen == answers


def test_hatching_is_in_the_finest_pixels_alone(canvas: Canvas, pixels: np.ndarray) -> None:
    """The share of variation along y, of digits hatched along y and along x, at level 0 and at level 1."""

    def share(cells: np.ndarray) -> np.ndarray:
        along_y = np.abs(np.diff(cells.astype(float), axis=1)).mean((1, 2))
        return along_y / (along_y + np.abs(np.diff(cells.astype(float), axis=2)).mean((1, 2)))

    def told_apart(cells: np.ndarray) -> float:
        found = share(cells)
        return float((found[state == ALONG_Y][:, None] > found[state == ALONG_X][None, :]).mean())

    state = np.array([p.state for p in canvas.placed])
    halves = mip(pixels, levels=1)[0]
    assert told_apart(cells_of(pixels, canvas)) > 0.99
    assert told_apart(cells_of(halves, canvas)) < 0.65


def test_file_holds_the_canvas(tmp_path: Path) -> None:
    canvas = Canvas(seed=0, part="tune", rows=1, columns=1)
    pyramid = open_pyramid(write_canvas(tmp_path / "canvas.tif", canvas))
    assert [level.shape.yx for level in pyramid.levels] == [(FIELD_PX >> i,) * 2 for i in range(LEVELS)]
    assert {level.block.yx for level in pyramid.levels[:4]} == {(BLOCK_PX, BLOCK_PX)}
    drawn = canvas.field_rows(0)
    for index, exact in enumerate([drawn, *mip(drawn, levels=LEVELS - 1)]):
        part = exact[:700, -600:]
        stored = pyramid.read(
            Box(level=index, y=0, x=exact.shape[1] - part.shape[1], height=len(part), width=part.shape[1])
        )
        assert np.abs(stored[0].astype(float) - part).mean() < 4


def test_canvas_follows_from_its_seed() -> None:
    first, again, other = (Canvas(seed=seed, part="tune", rows=1, columns=1).placed for seed in (0, 0, 4))
    assert first == again
    assert [(p.y, p.x) for p in first] != [(p.y, p.x) for p in other]
