"""Figures of score maps and token plans: the image beside itself in colours, with a legend; no matplotlib needed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.pipelines.attend_figure import RECIPE, bar_px
from tilestream.pipelines.look_panels import MAP_OPACITY, WASHED, Ground, Pixels, over
from tilestream.pipelines.report_colours import heat_rgba
from tilestream.pyramid.display import DAMAGED, HATCH_PX, UNMEASURED
from tilestream.pyramid.lettering import draw_text, text_px

MARGIN_PX, GAP_PX, LINE_PX, SIZE_PX = 20, 16, 22, 15
PAPER, INK, SOFT, WARN = (255, 255, 255), (20, 20, 20), (96, 96, 96), (178, 34, 34)
COLOURLESS = 212, 212, 212
"""What stands for the grey image in a legend."""
SWATCH_PX = 14


@dataclass(frozen=True, kw_only=True, eq=False)
class Swatch:
    """A colour of the legend, and what it stands for."""

    colour: Pixels
    """`(y, x, 3)`, at most a swatch high."""
    words: tuple[str, ...]
    """Columns of a table; the first has what it is called."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What stands around the pictures."""

    title: str
    """The image and what is shown of it."""
    facts: tuple[str, ...] = ()
    """Lines below the title."""
    warning: str = ""
    """What nobody may overlook."""


def swatch(colour: npt.NDArray[np.uint8] | tuple[int, int, int]) -> Pixels:
    """Return a square of one colour with a rim, for a legend."""
    square = np.full((SWATCH_PX, SWATCH_PX, 3), colour, np.uint8)
    square[[0, -1]] = square[:, [0, -1]] = SOFT
    return square


def box_swatch(ink: int) -> Pixels:
    """Return an outline as `mark_boxes` draws it, for a legend."""
    square = np.full((SWATCH_PX, SWATCH_PX, 3), 255 - ink, np.uint8)
    square[2:-2, 2:-2] = ink
    square[4:-4, 4:-4] = COLOURLESS
    square[[0, -1]] = square[:, [0, -1]] = SOFT
    return square


def hatch_swatches(ground: Ground) -> list[Swatch]:
    """Return what the hatches mean, as far as there are such in a picture."""
    found = []
    for where, (paper, ink), words in (
        (ground.damaged, DAMAGED, "damaged"),
        (ground.unknown & ~ground.damaged, UNMEASURED, "not measured"),
    ):
        if where.any():
            square = np.full((SWATCH_PX, SWATCH_PX, 3), paper, np.uint8)
            row, column = np.ogrid[:SWATCH_PX, :SWATCH_PX]
            lines = (row + column) % HATCH_PX == 0
            square[lines | ((row - column) % HATCH_PX == 0) if words == "damaged" else lines] = ink
            found.append(Swatch(colour=square, words=(words,)))
    return found


def ramp(limits: tuple[float, float], *, width_px: int) -> Pixels:
    """Return the colours of a map from low to high with numbers below them, `(y, x, 3)`."""
    low, high = limits
    scale = np.linspace(low, high, width_px, dtype=np.float32)[None]
    colours = heat_rgba(scale, low, high)
    grey = np.full((SWATCH_PX, width_px, 3), sum(WASHED) / 2, np.uint8)
    drawn = np.full((SWATCH_PX + LINE_PX, width_px + 60, 3), PAPER, np.uint8)
    drawn[:SWATCH_PX, 30 : 30 + width_px] = over(grey, np.repeat(colours, SWATCH_PX, axis=0), MAP_OPACITY)
    for share in (0.0, 0.5, 1.0):
        label = f"{low + share * (high - low):.3g}"
        at = 30 + share * (width_px - 1)
        drawn[SWATCH_PX : SWATCH_PX + 3, round(at)] = INK
        draw_text(drawn, label, (SWATCH_PX + 4, at - text_px(label, 13) / 2), size_px=13, ink=INK)
    return drawn


def compose(
    ground: Ground, panels: Sequence[Pixels], words: Words, *, bar: Pixels | None = None, legend: Sequence[Swatch] = ()
) -> Pixels:
    """Return a figure: title, pictures with a scale bar, and the legend below them.

    Parameters
    ----------
    ground : Ground
        What the pictures are of.
    panels : sequence of ndarray
        `(y, x, 3)` of one size.
    words : Words
        Title, facts and warning.
    bar : ndarray of uint8, optional
        Colours of a map, from `ramp`.
    legend : sequence of Swatch
        Rows of the legend; their columns are aligned.

    Returns
    -------
    ndarray of uint8
        `(y, x, 3)`.
    """
    height, width = ground.unknown.shape
    is_wide = width > 1.5 * height
    pictures_px = (
        len(panels) * height + GAP_PX if is_wide else height,
        width if is_wide else len(panels) * width + GAP_PX,
    )
    lines = [(words.title, 18, INK), *((fact, SIZE_PX, SOFT) for fact in words.facts)]
    lines += [(words.warning, SIZE_PX, WARN)] if words.warning else []
    head_px = MARGIN_PX + LINE_PX * len(lines) + 12
    table, table_px = _columns(legend)
    bar_yx = (0, 0) if bar is None else (bar.shape[0] + 8, bar.shape[1])
    texts_px = max(text_px(line, size) for line, size, _ in lines)
    foot_px = bar_yx[0] + LINE_PX * len(legend) + MARGIN_PX
    canvas_px = max(pictures_px[1], min(texts_px, 1600), table_px, bar_yx[1]) + 2 * MARGIN_PX
    figure = np.full((head_px + pictures_px[0] + 14 + foot_px, canvas_px, 3), PAPER, np.uint8)
    for number, (line, size, ink) in enumerate(lines):
        draw_text(figure, line, (MARGIN_PX + number * LINE_PX, MARGIN_PX), size_px=size, ink=ink)
    for number, panel in enumerate(panels):
        y = head_px + (number * (height + GAP_PX) if is_wide else 0)
        x = MARGIN_PX + (0 if is_wide else number * (width + GAP_PX))
        view = figure[y : y + height, x : x + width]
        view[...] = panel
        _scale_bar(view, ground)
    below = head_px + pictures_px[0] + 14
    if bar is not None:
        figure[below : below + bar.shape[0], MARGIN_PX - 20 : MARGIN_PX - 20 + bar.shape[1]] = bar
    _draw_legend(figure, legend, table, below + bar_yx[0])
    return figure


def _columns(legend: Sequence[Swatch]) -> tuple[list[int], int]:
    """Return where each column of the legend begins, and how wide it is in all."""
    starts = [SWATCH_PX + 10]
    for column in range(max((len(row.words) for row in legend), default=0)):
        cells = [row.words[column] for row in legend if column < len(row.words)]
        starts.append(starts[-1] + max(text_px(cell, SIZE_PX) for cell in cells) + 22)
    return starts, starts[-1]


def _draw_legend(figure: Pixels, legend: Sequence[Swatch], starts: Sequence[int], top: int) -> None:
    for number, row in enumerate(legend):
        y = top + number * LINE_PX
        figure[y : y + row.colour.shape[0], MARGIN_PX : MARGIN_PX + row.colour.shape[1]] = row.colour
        for column, text in enumerate(row.words):
            x = MARGIN_PX + starts[column]
            if column:  # numbers end below each other
                x = MARGIN_PX + starts[column + 1] - 22 - text_px(text, SIZE_PX)
            draw_text(figure, text, (y - 2, x), size_px=SIZE_PX, ink=INK)


def _scale_bar(view: Pixels, ground: Ground) -> None:
    """Draw a scale bar with its length into the lower left corner, on a plate of paper."""
    scale = ground.frame.scale_yx[1]
    length, label = bar_px(view.shape[1] * scale, ground.um_per_px)
    long_px, wide_px = max(1, round(length / scale)), text_px(label, 13)
    height = view.shape[0]
    plate = view[max(0, height - 34) : height - 6, 6 : 6 + max(long_px, wide_px) + 12]
    plate[...] = np.rint(plate * 0.15 + 255 * 0.85).astype(np.uint8)
    view[height - 13 : height - 10, 12 : 12 + long_px] = INK
    draw_text(view, label, (height - 32, 12), size_px=13, ink=INK)


def png_of(figure: Pixels, *, recipe: str) -> bytes:
    """Return a figure as a PNG file that says what it was made of.

    Parameters
    ----------
    figure : ndarray of uint8
        `(y, x, 3)`.
    recipe : str
        For whoever finds the file.

    Returns
    -------
    bytes
        The file.
    """
    from PIL import Image, PngImagePlugin

    facts = PngImagePlugin.PngInfo()
    facts.add_text("Software", "tilestream")
    facts.add_text(RECIPE, recipe)
    file = io.BytesIO()
    Image.fromarray(figure).save(file, "PNG", pnginfo=facts)
    return file.getvalue()
