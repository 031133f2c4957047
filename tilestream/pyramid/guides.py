"""Pictures with axes in level-0 pixels, by which people and vision-language models can name a place and ask for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import imagecodecs
import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need_kind
from tilestream.pyramid.display import display_pixels, hatch
from tilestream.pyramid.frame import Frame
from tilestream.pyramid.lettering import draw_text, text_px
from tilestream.pyramid.overview import Crop, require_box
from tilestream.pyramid.pyramid import OPEN_FIRST, Pyramid
from tilestream.types import Box

Unit: TypeAlias = Literal["px", "um"]
UNITS = {"px": "px", "um": "µm"}
LEAST_PX, MOST_PX = 256, 8192
"""Smallest picture in which axes leave room for the image."""
TICKS = 6
"""About so many lines along the longer edge."""
PAPER, INK, SOFT = (255, 255, 255), (0, 0, 0), (70, 70, 70)
DASH_PX = 4
"""Black and white dashes in turn, so that a line is seen on glass, on stains and on black alike."""
OPACITY = 0.55
"""Of the lines: what lies under them stays visible."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GuidedCrop:
    """A crop as a picture with axes; positions in it are those of the whole picture, margins included."""

    pixels: npt.NDArray[np.uint8]
    """`(y, x, 3)`, RGB."""
    frame: Frame
    """From pixels of the picture to level 0 and back: `frame.to_level0((y, x))`, `frame.box_of(box)`."""
    area: Box
    """Where in the picture the image lies."""
    crop: Crop
    """What the picture was made of: samples, validity, the stored level, µm per pixel."""
    caption: str
    """One line: the box, the level that was read and the scale; for a prompt, and at the foot of the picture."""

    def png(self) -> bytes:
        """Return the picture as a PNG file."""
        return bytes(imagecodecs.png_encode(self.pixels))


def guided_crop(pyramid: Pyramid, box: Box, out_px: int = 1024, *, unit: Unit = "px") -> GuidedCrop:
    """Return a box of an image as a picture with axes that name places on level 0.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    box : Box
        What to show, of any level; it may reach outside the image.
    out_px : int
        Longest edge of the whole picture with its margins, px, 256 to 8192: what a model takes. Boxes of few stored
        pixels are enlarged by a whole number.
    unit : {"px", "um"}
        What the axes count from the image's corner: pixels of level 0, or micrometres.

    Returns
    -------
    GuidedCrop
        The picture, where its pixels lie, and a caption.

    Raises
    ------
    ConfigError
        When the picture is too small or too large, the box is empty or far larger than the image, or micrometres are
        wanted of an image of unknown resolution.

    Notes
    -----
    The pattern is that of GIANT (arXiv 2511.19652): a model that sees a picture with axes answers with a box of level
    0, which is the next picture. What was not measured is hatched, what is damaged cross-hatched.

    Examples
    --------
    >>> import numpy as np
    >>> from tilestream.pyramid import open_pyramid
    >>> pyramid = open_pyramid(np.zeros((3000, 4000, 3), np.uint8))
    >>> seen = guided_crop(pyramid, pyramid.levels[0].box, 512)
    >>> closer = guided_crop(pyramid, Box(y=1000, x=2000, height=500, width=500), 512)  # as read off the axes
    >>> closer.caption
    'rows 1000 to 1500 and columns 2000 to 2500 of level 0; read from level 0; a pixel is 1.089 x 1.089 px of level 0'
    """
    need_kind("guided_crop", "pyramid", pyramid, Pyramid, do=OPEN_FIRST)
    require_box(box, pyramid.levels)
    unit_yx = _units_per_px(pyramid, unit)
    if not LEAST_PX <= out_px <= MOST_PX:
        expected = f"at least {LEAST_PX} and at most {MOST_PX}"
        raise ConfigError.of("`guided_crop`", got=f"out_px={out_px}", expected=expected, do="Ask for another size.")
    size_px = min(max(out_px // 64, 12), 24)
    top, left, foot = 2 * size_px, _label_px(pyramid, box, unit_yx, size_px), round(1.6 * size_px)
    most_px = _room(box, (out_px - top - foot, out_px - left - size_px))
    shown = pyramid.crop(box, most_px)
    times = max(1, most_px // max(shown.valid.shape))
    height, width = (edge * times for edge in shown.valid.shape)
    frame = shown.frame.enlarged(times).moved((top, left))
    area = Box(y=top, x=left, height=height, width=width)
    words = _foot(shown, size_px, out_px)
    canvas = top + height + foot, max(left + width + size_px, text_px(words, size_px) + size_px)
    pixels = np.full((*canvas, 3), PAPER, np.uint8)
    view = pixels[area.slices_yx]
    view[...] = _enlarged(display_pixels(shown, pyramid.channels, kind=pyramid.kind), times)
    hatch(view, ~_enlarged(shown.valid, times), _enlarged(shown.damaged, times))
    for axis in (0, 1):
        _draw_axis(pixels, area, frame, axis=axis, unit_px=unit_yx[axis], size_px=size_px)
    draw_text(pixels, UNITS[unit], (0.4 * size_px, 0.4 * size_px), size_px=size_px, ink=SOFT)
    draw_text(pixels, words, (area.y_stop + 0.3 * size_px, 0.4 * size_px), size_px=size_px, ink=SOFT)
    return GuidedCrop(pixels=pixels, frame=frame, area=area, crop=shown, caption=caption_of(shown))


def caption_of(shown: Crop) -> str:
    """Return in a sentence what a crop shows, from which level, and at which scale.

    Parameters
    ----------
    shown : Crop
        The crop.

    Returns
    -------
    str
        For a prompt.
    """
    box = shown.box
    scale_y, scale_x = shown.frame.scale_yx
    parts = [
        f"rows {box.y} to {box.y_stop} and columns {box.x} to {box.x_stop} of level 0",
        f"read from level {shown.stored}",
        f"a pixel is {scale_y:.4g} x {scale_x:.4g} px of level 0" + ("" if shown.mpp is None else _um(shown.mpp)),
    ]
    if not shown.valid.all():
        parts.append(f"{100 * (1 - shown.valid.mean()):.1f} % was not measured (hatched)")
    if shown.damage:
        parts.append(f"damaged blocks: {len(shown.damage)} (cross-hatched)")
    return "; ".join(parts)


def _um(mpp: float) -> str:
    return f" ({mpp:.3g} µm)"


def _foot(shown: Crop, size_px: int, most_px: int) -> str:
    """Return as much of what was read as fits under a picture."""
    words = f"level {shown.stored}, 1:{max(shown.frame.scale_yx):.4g}"
    parts = [] if shown.mpp is None else [f"{shown.mpp:.3g} µm/px"]
    parts += [f"{len(shown.damage)} damaged (cross-hatched)"] if shown.damage else []
    parts += ["not measured: hatched"] if not (shown.valid | shown.damaged).all() else []
    for part in parts:
        longer = f"{words}, {part}"
        words = longer if text_px(longer, size_px) + size_px <= most_px else words
    return words


def _units_per_px(pyramid: Pyramid, unit: str) -> tuple[float, float]:
    """Return the units of the axes in a level-0 pixel."""
    if unit not in UNITS:
        raise ConfigError.of("`unit`", got=repr(unit), expected=f"one of {', '.join(UNITS)}", do="Choose one.")
    if unit == "px":
        return 1.0, 1.0
    if pyramid.info.mpp_yx is None:
        raise ConfigError.of(
            "`unit`",
            got="um for an image of unknown resolution",
            expected="`px`, or an image that states µm per pixel",
            do="Give it with `pyramid.choose(mpp=…)`.",
        )
    return pyramid.info.mpp_yx


def _room(box: Box, most_yx: tuple[int, int]) -> int:
    """Return the longest edge at which a box stays inside a height and a width, a pixel left for rounding."""
    longest = max(box.height, box.width)
    return min(most * longest // max(1, edge) for edge, most in zip(box.shape.yx, most_yx, strict=True)) - 1


def _enlarged(pixels: npt.NDArray[Any], times: int) -> npt.NDArray[Any]:
    """Return every pixel as a square of so many."""
    return pixels if times == 1 else pixels.repeat(times, axis=0).repeat(times, axis=1)


def _label_px(pyramid: Pyramid, box: Box, unit_yx: tuple[float, float], size_px: int) -> int:
    """Return the width of the margin that holds the longest number of the upright axis."""
    scale = pyramid.levels[min(box.level, len(pyramid.levels) - 1)].scale_yx[0]
    ends = [round(at * scale * unit_yx[0]) for at in (box.y, box.y_stop)]
    return max(text_px(f"{end}", size_px) for end in ends) + size_px


def _draw_axis(
    pixels: npt.NDArray[np.uint8], area: Box, frame: Frame, *, axis: int, unit_px: float, size_px: int
) -> None:
    """Draw the lines of one axis (0 = y) across the image, and their numbers beside it."""
    first = (area.y, area.x)[axis]
    length_px = area.shape.yx[axis]
    start, stop = (frame.to_level0((at, at))[axis] * unit_px for at in (first, first + length_px))
    lines = max(2, min(TICKS, length_px // (5 * size_px)))
    free = -math.inf
    for value in ticks(start, stop, lines):
        at = frame.to_picture((value / unit_px, value / unit_px))[axis]
        place = min(int(at), first + length_px - 1)
        _dash(pixels, area, place, axis=axis)
        label, wide = f"{value:g}" if abs(value) < 1 else f"{value:.0f}", text_px(f"{value:.0f}", size_px)
        if axis == 0:
            spot = at - 0.6 * size_px, area.x - 0.5 * size_px - wide
            pixels[place, area.x - size_px // 3 : area.x] = INK
        else:
            left = min(max(at - wide / 2, 0), pixels.shape[1] - wide)
            if left < free:
                continue
            free = left + wide + 0.6 * size_px
            spot = area.y - 1.6 * size_px, left
            pixels[area.y - size_px // 3 : area.y, place] = INK
        draw_text(pixels, label, spot, size_px=size_px, ink=INK)


def ticks(start: float, stop: float, most: int) -> list[float]:
    """Return round numbers in a range, 1, 2 or 5 times a power of ten apart.

    Parameters
    ----------
    start, stop : float
        Ends of the range, of which the second does not belong to it.
    most : int
        About how many.

    Returns
    -------
    list of float
        Whole numbers, ascending.
    """
    wanted = max(1.0, (stop - start) / most)
    power = 10.0 ** math.floor(math.log10(wanted))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= wanted * (1 - 1e-9))
    return [step * n for n in range(math.ceil(start / step), math.ceil(stop / step))]


def _dash(pixels: npt.NDArray[np.uint8], area: Box, place: int, *, axis: int) -> None:
    """Draw a line of black and white dashes across the image; an upright one for axis 1."""
    line = pixels[place, area.x : area.x_stop] if axis == 0 else pixels[area.y : area.y_stop, place]
    ink = np.where(np.arange(len(line)) // DASH_PX % 2, 255, 0)[:, None]
    line[...] = np.rint(line * (1 - OPACITY) + ink * OPACITY).astype(np.uint8)
