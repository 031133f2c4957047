"""Tissue on slides and measured area on scenes, by stated rules, from one coarse picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from tilestream.kernels.fluorescence import tissue_fluorescence
from tilestream.kernels.mask import pen_marks, tissue_brightfield
from tilestream.plan.selection import Selection
from tilestream.pyramid import Pyramid
from tilestream.pyramid.coarse import MASK_UM, Coarse, mask_level, read_coarse
from tilestream.types import Array, ImageInfo, Modality

Mask = npt.NDArray[np.bool_]

DARK = 64
"""8-bit RGB whose typical pixel stays below this in its brightest channel has a black background."""

BAND_PX = 1 << 19
"""Pixels whose distances are held at a time."""
GLASS = 245
"""Brightness of glass in 8 bits, where a camera is exposed as usual."""
LEAST_EOSIN = 4
"""Steps of 8 bits by which red exceeds green where there is any eosin; as in `tissue_brightfield`."""
CROP_SHARE = 0.1
"""Share of the picture from which a piece counts whatever its area: small crops show only a part of it."""


@dataclass(frozen=True, kw_only=True)
class TissueRules:
    """How a mask of single pixels becomes pieces of tissue; lengths in um, mask pixels of unknown size count as 8."""

    close_um: float = 24.0
    """Radius by which gaps between cells are closed."""
    open_um: float = 8.0
    """Radius below which threads and dust are dropped."""
    least_um2: float = 10_000.0
    """Area below which a piece is a speck: a square of 100 um (or a tenth of the picture)."""
    hole_um2: float = 40_000.0
    """Area below which a hole is filled: fat cells and tears up to 200 um."""
    pen_um2: float = 40_000.0
    """Area from which ink is a pen's stroke, or a tenth of the picture; smaller spots may be nuclei and blood."""
    rim_um: float = 80.0
    """Least width of the blurred rim around a stroke; a stroke's own half-width where that is more."""
    rim_most_um: float = 1_000.0
    """Greatest width of that rim."""


RULES = TissueRules()
NAME = "tissue-1"
"""Name and version of the rules; raised when the same picture would give another mask."""


def select_tissue(pyr: Pyramid, *, mpp: float | None = None, rules: TissueRules = RULES) -> Selection:
    """Return the tissue of a slide, or the measured area of a scene or of a class image.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    mpp : float, optional
        Micrometres per pixel of level 0 that the user states.
    rules : TissueRules
        How pixels become pieces.

    Returns
    -------
    Selection
        The mask; empty with a note on a blank slide. What a damaged block hides is selected, so that its tiles are
        counted as damaged and do not vanish.
    """
    info = pyr.info
    level = mask_level(info, mpp=mpp)
    by_validity = info.modality == "scene" or info.crs is not None or info.kind == "labels"
    coarse = read_coarse(pyr, level, pixels=not by_validity)
    notes = tuple(f"coarse picture: {reason}" for reason in coarse.damage)
    if by_validity:
        mask, name = coarse.valid, "valid-1"
    else:
        light = judge_light(coarse, info)
        if info.modality != light:
            notes += (f"kind of light not stated: judged to be {light} by the background",)
        base = info.mpp if mpp is None else mpp
        pixel_um = MASK_UM if base is None else base * max(level.scale_yx)
        mask, name = _tissue(coarse, light, pixel_um=pixel_um, rules=rules), f"{NAME}-{light}"
    mask = mask | coarse.damaged
    if not mask.any():
        notes += ("no valid pixel found" if by_validity else "no tissue found",)
    return Selection(name=name, mask=mask, scale_yx=level.scale_yx, area=info.shape, notes=notes)


def judge_light(coarse: Coarse, info: ImageInfo) -> Modality:
    """Return `brightfield` or `fluorescence`: as the file says, else by the background's brightness.

    Parameters
    ----------
    coarse : Coarse
        Picture with pixels.
    info : ImageInfo
        The image.

    Returns
    -------
    str
        8-bit RGB is fluorescence when the median over all valid pixels of their brightest channel is below 64, since
        neither glass nor stained tissue is that dark in all three; anything else than 8-bit RGB is fluorescence.
    """
    if info.modality in ("brightfield", "fluorescence"):
        return info.modality
    pixels = coarse.pixels
    if pixels is None or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        return "fluorescence"
    brightest = pixels.max(axis=2)[coarse.valid]
    return "fluorescence" if brightest.size and float(np.median(brightest)) < DARK else "brightfield"


def _tissue(coarse: Coarse, light: Modality, *, pixel_um: float, rules: TissueRules) -> Mask:
    assert coarse.pixels is not None
    channels = np.moveaxis(coarse.pixels, 2, 0)
    if light == "fluorescence":
        raw = tissue_fluorescence(channels, coarse.valid)
        return clean(raw, coarse.valid, pixel_um=pixel_um, rules=rules)
    raw = tissue_brightfield(channels, coarse.valid)
    ink = pen_marks(channels, coarse.valid)
    strokes = ink & ~_specks(ink, rules.pen_um2 / pixel_um**2)
    if strokes.any():
        raw = _without_rims(raw, _pen_rim(coarse.pixels, strokes, pixel_um=pixel_um, rules=rules))
    # gaps are closed and holes filled over ink too, which stays ink
    return clean(raw, coarse.valid & ~strokes, pixel_um=pixel_um, rules=rules)


def _pen_rim(rgb: Array, strokes: Mask, *, pixel_um: float, rules: TissueRules) -> Mask:
    """Return the pixels beside strokes of a pen that do not have the colours of hematoxylin and eosin.

    A pen is out of focus: its rim fades from ink to glass through tones that are pale, red, green or grey, and where
    two inks mix through a drab purple. In stained tissue green is lowest, blue exceeds it by more than a third of the
    chroma, the chroma is more than a seventh of the brightest channel, and more than 0.3 of what the darkest channel
    lacks to glass (of 245): stains take green and let red or blue through, mixed inks take all three. Dense nuclei in
    focus have 0.3 to 0.5 there, eosin 0.4 to 0.8, mixed inks 0.13 to 0.35; so tissue up to the stroke stays. The rim of
    a blue pen has the colours of hematoxylin alone: beside blue strokes red has to exceed green.
    """
    rim = _beside(strokes, pixel_um=pixel_um, rules=rules)
    red, green, blue = (rgb[rim, c].astype(np.int32) for c in range(3))
    brightest = np.maximum(red, blue)
    chroma = brightest - green
    drab = 10 * chroma <= 3 * (GLASS - np.minimum(np.minimum(red, blue), green))
    rim[rim] = (7 * chroma <= brightest) | (3 * (blue - green) <= chroma) | drab
    red, green, blue = (rgb[strokes, c].astype(np.int32) for c in range(3))
    bluish = np.zeros_like(strokes)
    bluish[strokes] = 4 * (blue - np.maximum(red, green)) > blue
    if bluish.any():
        near = _beside(bluish, pixel_um=pixel_um, rules=rules)
        near[near] = rgb[near, 0].astype(np.int32) - rgb[near, 1] < LEAST_EOSIN
        rim |= near
    return rim


def _beside(strokes: Mask, *, pixel_um: float, rules: TissueRules) -> Mask:
    """Return the pixels so near to strokes that they can be their rim."""
    most_px = rules.rim_most_um / pixel_um
    half_px = float(max(part.max() for _, part in _distances(~np.pad(strokes, 1, mode="edge"), most_px)))
    return _near(strokes, min(max(rules.rim_um / pixel_um, half_px), most_px))


def _without_rims(raw: Mask, rims: Mask) -> Mask:
    """Return what is left of pieces of tissue without rims; nothing of a piece that is rim by half or more.

    The noise of a rim leaves single pixels of it with the colours of tissue, which then are all of their piece.
    """
    labels, count = scipy.ndimage.label(raw)
    whole = np.bincount(labels.ravel(), minlength=count + 1)
    lost = np.bincount(labels[raw & rims], minlength=count + 1)
    drop = 2 * lost >= whole
    drop[0] = False  # what was no tissue before
    return np.asarray(raw & ~rims & ~drop[labels])


def clean(raw: Mask, valid: Mask, *, pixel_um: float, rules: TissueRules = RULES) -> Mask:
    """Return the pieces of tissue in a mask of single pixels.

    Parameters
    ----------
    raw : ndarray of bool
        `(y, x)`, the test of each pixel.
    valid : ndarray of bool
        `(y, x)`, where tissue can be.
    pixel_um : float
        Edge of a mask pixel.
    rules : TissueRules
        Radii and areas.

    Returns
    -------
    ndarray of bool
        `(y, x)`: gaps closed, threads dropped, small holes filled, specks removed; only where valid.
    """
    closed = _morph(raw, rules.close_um / pixel_um, close=True)
    opened = _morph(closed, rules.open_um / pixel_um, close=False)
    filled = (opened | _small(~opened, rules.hole_um2 / pixel_um**2, inner=True)) & valid
    return np.asarray(filled & ~_specks(filled, rules.least_um2 / pixel_um**2))


def _morph(mask: Mask, radius_px: float, *, close: bool) -> Mask:
    """Return the closing or opening by a disc; the picture continues beyond its edges, so that these are kept."""
    radius = round(radius_px)
    if radius < 1:
        return mask
    padded = np.pad(mask, 2 * radius, mode="edge")
    changed = ~_near(~_near(padded, radius), radius) if close else _near(~_near(~padded, radius), radius)
    inner = slice(2 * radius, -2 * radius)
    return np.asarray(changed[inner, inner], np.bool_)


def _near(mask: Mask, radius_px: float) -> Mask:
    """Return the pixels that lie at most `radius_px` from a True one."""
    out = np.empty_like(mask)
    for rows, distance in _distances(mask, radius_px):
        out[rows] = distance <= radius_px
    return out


def _distances(mask: Mask, reach_px: float) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """Yield bands of rows with the distance of each pixel to the nearest True one, right up to `reach_px`.

    A distance transform costs the same at any radius, unlike dilation by a large disc, but takes some 50 bytes a pixel:
    so it is done in bands, each with the rows that it can depend on.
    """
    reach = int(reach_px) + 1
    height = max(1, BAND_PX // max(1, mask.shape[1]))
    for first in range(0, mask.shape[0], height):
        last = min(first + height, mask.shape[0])
        above = max(0, first - reach)
        part = mask[above : last + reach]
        if part.any():
            yield slice(first, last), scipy.ndimage.distance_transform_edt(~part)[first - above : last - above]
        else:
            yield slice(first, last), np.full((last - first, mask.shape[1]), np.inf)


def _specks(mask: Mask, least_px: float) -> Mask:
    return _small(mask, min(least_px, CROP_SHARE * mask.size), inner=False)


def _small(mask: Mask, least_px: float, *, inner: bool) -> Mask:
    """Return the pieces of fewer than `least_px` pixels; with `inner` only those that touch no edge of the picture."""
    labels, count = scipy.ndimage.label(mask)
    if not count:
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    drop = sizes < least_px
    drop[0] = False
    if inner:
        for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            drop[side] = False
    return np.asarray(drop[labels])
