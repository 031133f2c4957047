"""Figures of attention: the map over the image with a scale bar and a legend, and every head of one region."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.durable import write_durable
from tilestream.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
COLOURS = "viridis"
"""Even in lightness and safe for all forms of colour blindness; pink and violet of a stain are not in it."""
OPACITY = 0.6
"""Of a map over an image: nuclei stay visible."""
FULL = (0.0, 100.0)
"""Range of percentiles."""
BAR = 0.2
"""Longest scale bar, in widths of a picture."""
UNITS_UM = (1e9, "km"), (1e6, "m"), (1e3, "mm"), (1, "µm")
"""Micrometres in the units of scale bars; images of which millimetres are wide are slides, of metres scenes."""
RECIPE = "Recipe"
"""Key under which a PNG says what it was made of."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Pixels and where they lie."""

    pixels: npt.NDArray[Any]
    """`(y, x, 3)` uint8 of an image, or `(y, x)` float32 of a map, NaN where there is no value."""
    yxhw: tuple[float, float, float, float]
    """Upper edge, left edge, height and width in level-0 pixels of the image."""

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Return left, right, lower and upper edge, as matplotlib wants them."""
        y, x, height, width = self.yxhw
        return x, x + width, y + height, y


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What maps are drawn over."""

    image: Layer
    """Its pixels."""
    mpp: float | None
    """Micrometres per level-0 pixel; without it the scale bar is in pixels."""
    recipe: str
    """What a figure was made of, for the next run."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What stands around the pictures."""

    title: str
    """The image, the encoder and what is shown; a line each."""
    legend: str
    """What the colours mean."""
    notes: tuple[str, ...] = ()
    """Lines below: how the map was made."""
    warning: str = ""
    """What nobody may overlook."""


def require_figures() -> None:
    """Raise `ConfigError` where figures cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError.of(
            "figures", got="no matplotlib", expected="it to be installed", do="pip install -e '.[figures]'."
        )


def recipe_of(path: Path) -> str | None:
    """Return what a PNG says that it was made of, None where there is no such file or it says nothing."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            found = image.info.get(RECIPE)
    except OSError:
        return None
    return None if found is None else str(found)


def draw_overview(path: Path, subject: Subject, heat: Layer, *, words: Words) -> None:
    """Draw an image beside itself under a map.

    Parameters
    ----------
    path : Path
        PNG to write; replaced whole.
    subject : Subject
        The whole image.
    heat : Layer
        Percentiles.
    words : Words
        Title, legend and notes.
    """
    from matplotlib.figure import Figure

    image = subject.image
    _, _, height, width = image.yxhw
    panel = 5.2 * min(1.0, width / height), 5.2 * min(1.0, height / width)
    figure = Figure(figsize=(max(7.0, 2 * panel[0] + 1.3), max(3.2, panel[1] + 1.2)), dpi=DPI, layout="compressed")
    left, right = figure.subplots(1, 2)
    limits = shown_range(heat)
    for axes in (left, right):
        _show(axes, image)
        _add_bar(axes, subject)
    _show(right, heat, limits)
    _add_legend(figure, [left, right], words.legend, limits)
    _add_words(figure, words)
    _save(figure, path, subject.recipe)


def draw_heads(
    path: Path, subject: Subject, mean: Layer | None, rows: Mapping[str, Sequence[Layer]], *, words: Words
) -> None:
    """Draw what each head of each network looks at in one region.

    Parameters
    ----------
    path : Path
        PNG to write; replaced whole.
    subject : Subject
        The region.
    mean : Layer, optional
        Its map over all heads.
    rows : Mapping
        Title of a network → percentiles of its heads.
    words : Words
        Title, legend and notes.
    """
    from matplotlib.figure import Figure

    heads = max(2, *(len(row) for row in rows.values()))
    image = subject.image
    _, _, height, width = image.yxhw
    each = 2.1 * min(1.0, width / height), 2.1 * min(1.0, height / width)
    size = max(7.0, heads * each[0] + 1.0), (len(rows) + 1) * (each[1] + 0.3) + 1.0
    figure = Figure(figsize=size, dpi=DPI, layout="compressed")
    grid = figure.subplots(len(rows) + 1, heads, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    first = grid[0]
    _panel(first[0], image, None, title="region")
    if mean is not None:
        _panel(first[1], image, mean, title="mean of all heads")
    _add_bar(first[0], subject)
    for line, (name, row) in zip(grid[1:], rows.items(), strict=True):
        for number, (axes, heat) in enumerate(zip(line, row, strict=False)):
            _panel(axes, image, heat, title=f"{name}, head {number}")
    _add_legend(figure, list(grid.ravel()), words.legend, FULL)
    _add_words(figure, words)
    _save(figure, path, subject.recipe)


def shown_range(heat: Layer) -> tuple[float, float]:
    """Return the values between which a map is coloured: all but a hundredth at each end, whole percents."""
    known = heat.pixels[np.isfinite(heat.pixels)]
    if not known.size:
        return FULL
    low, high = np.percentile(known, (1, 99))
    return (math.floor(low), math.ceil(high)) if high > low else FULL


def bar_px(width_px: float, mpp: float | None) -> tuple[float, str]:
    """Return length and label of a scale bar: 1, 2 or 5 times a power of ten, at most a fifth of the width.

    Parameters
    ----------
    width_px : float
        Width of what is shown, level-0 pixels.
    mpp : float, optional
        Micrometres per pixel; None gives a bar of so many pixels.

    Returns
    -------
    length_px : float
        Level-0 pixels.
    label : str
        Such as `500 µm`, `2 mm` or `10 km`.
    """
    limit = width_px * BAR * (1.0 if mpp is None else mpp)
    power = 10.0 ** math.floor(math.log10(limit))
    length = power * max(step for step in (1, 2, 5) if step * power <= limit * (1 + 1e-9))
    if mpp is None:
        return length, f"{length:g} px"
    unit_um, unit = next(pair for pair in UNITS_UM if length >= pair[0] * (1 - 1e-9) or pair[0] == 1)
    return length / mpp, f"{length / unit_um:g} {unit}"


def _panel(axes: Axes, image: Layer, heat: Layer | None, *, title: str) -> None:
    _show(axes, image)
    if heat is not None:
        _show(axes, heat, FULL)
    axes.set_title(title, fontsize=8)


def _show(axes: Axes, layer: Layer, limits: tuple[float, float] | None = None) -> None:
    """Show an image, or with limits a map over it; the frame stays the image's, beyond which maps have cells."""
    frame = axes.get_xlim(), axes.get_ylim()
    if limits is None:
        axes.imshow(layer.pixels, extent=layer.extent, interpolation="antialiased")
    else:
        values = np.ma.masked_invalid(layer.pixels)
        low, high = limits
        axes.imshow(
            values, extent=layer.extent, alpha=OPACITY, interpolation="nearest", cmap=COLOURS, vmin=low, vmax=high
        )
        axes.set(xlim=frame[0], ylim=frame[1])
    axes.set_axis_off()


def _add_bar(axes: Axes, subject: Subject) -> None:
    y, x, height, width = subject.image.yxhw
    length, label = bar_px(width, subject.mpp)
    from matplotlib.patheffects import withStroke

    at_y, at_x, edge = y + 0.965 * height, x + 0.03 * width, [withStroke(linewidth=4, foreground="white")]
    axes.plot([at_x, at_x + length], [at_y, at_y], color="black", linewidth=2, path_effects=edge, solid_capstyle="butt")
    axes.text(at_x, at_y - 0.012 * height, label, ha="left", va="bottom", fontsize=8, path_effects=edge)


def _add_legend(figure: Figure, axes: list[Axes], legend: str, limits: tuple[float, float]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    colours = ScalarMappable(Normalize(*limits), COLOURS)
    extend = "neither" if limits == FULL else "both"
    bar = figure.colorbar(colours, ax=axes, fraction=0.04, pad=0.02, aspect=40, extend=extend)
    bar.set_label(legend, fontsize=8)
    bar.ax.tick_params(labelsize=8)


def _add_words(figure: Figure, words: Words) -> None:
    title = f"{words.title}\n{words.warning}" if words.warning else words.title
    figure.suptitle(title, fontsize=10, color="firebrick" if words.warning else "black", wrap=True)
    figure.supxlabel("\n".join(words.notes), fontsize=7, x=0.01, ha="left", color="0.3")


def _save(figure: Figure, path: Path, recipe: str) -> None:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={RECIPE: recipe, "Software": "tilestream"})
    write_durable(path, file.getvalue())
