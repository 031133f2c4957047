"""What the pyramid codec is asked for in the panel, beside what it reaches: rows with bars."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.rd_pictures import SMALL
from tests.bench.rd_table import BETWEEN, title_of
from tests.bench.table import at_least, make_row
from tilestream.codecs import Curve, bd_rate
from tilestream.errors import ConfigError

RATES = (0.75, 1.0, 1.5, 2.0, 2.5, 3.0)
"""Bits per pixel at which MS-SSIM is compared."""
STRUCTURE_ANCHOR = "jpegxl"
"""What MS-SSIM is compared with."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What one codec is asked for."""

    codec: str
    """Name of the contestant."""
    groups: tuple[str, ...]
    """Of the pictures that it is asked for on."""
    bits: Mapping[str, float]
    """By anchor, most percent of bits over it at equal PSNR."""


AIMS = (
    Aim(codec="pyramid", groups=(SMALL,), bits={"jpegxl": -35.0, "jpeg2000": -20.0, "avif": -10.0}),
    Aim(codec="pyramid-slide", groups=("tissue", "tissue/2"), bits={"jpegxl": -15.0}),
)


def rows_of(curves: Sequence[Curve], groups: Mapping[str, str], aims: Iterable[Aim] = AIMS) -> list[dict[str, Any]]:
    """Return a row for each aim whose codec took part, and for MS-SSIM.

    Parameters
    ----------
    curves : sequence of Curve
        Of all pictures.
    groups : Mapping
        From the name of a picture to that of its group.
    aims : iterable of Aim
        Which.

    Returns
    -------
    list of dict
        As `make_row` gives them.
    """
    found = []
    for aim in aims:
        mine = {c.picture: c for c in curves if c.codec == aim.codec and groups[c.picture] in aim.groups}
        if mine:
            found += [bits_row(mine, _others(curves, name), most) for name, most in aim.bits.items()]
            found.append(structure_row(mine, _others(curves, STRUCTURE_ANCHOR)))
    return found


def bits_row(mine: Mapping[str, Curve], theirs: Mapping[str, Curve], most: float) -> dict[str, Any]:
    """Return the bits of a codec over those of another at equal PSNR: the mean over pictures, each of them in the note.

    A picture on which the two share too few qualities is named, and misses the bar: the mean of the others, which is
    shown, would hide it.
    """
    bits = {name: _bits(theirs.get(name), curve) for name, curve in mine.items()}
    known = [value for value in bits.values() if math.isfinite(value)]
    told = ", ".join(
        f"{name} {value:+.1f} %" if math.isfinite(value) else f"{name} none" for name, value in bits.items()
    )
    where = f"{BETWEEN[0]:g} to {BETWEEN[1]:g} bpp of it, {len(known)} of {len(mine)} pictures"
    name = f"{_title(mine)}, bits over {_title(theirs)} at equal PSNR, {where}"
    row = make_row(name, statistics.fmean(known) if known else math.nan, "%", bar=(-100.0, most), note=told)
    return row | {"ok": row["ok"] and len(known) == len(mine)}


def structure_row(mine: Mapping[str, Curve], theirs: Mapping[str, Curve]) -> dict[str, Any]:
    """Return by how much MS-SSIM is above that of another codec at equal bits: the least of the means at `RATES`.

    A mean is over the pictures on which both have the rate.
    """
    means, told = {}, []
    for rate in RATES:
        gains = [
            curve.at(rate, score="ms_ssim") - theirs[name].at(rate, score="ms_ssim")
            for name, curve in mine.items()
            if name in theirs
        ]
        known = [gain for gain in gains if math.isfinite(gain)]
        if known:
            means[rate] = statistics.fmean(known)
            told.append(f"{rate:g} bpp {means[rate]:+.4f} ({len(known)} pictures, least {min(known):+.4f})")
    name = f"{_title(mine)}, MS-SSIM over {_title(theirs)} at equal bits, least of {RATES[0]:g} bpp and more"
    return make_row(name, min(means.values(), default=math.nan), "", bar=at_least(0.0), note="; ".join(told))


def _others(curves: Iterable[Curve], codec: str) -> dict[str, Curve]:
    return {curve.picture: curve for curve in curves if curve.codec == codec}


def _title(curves: Mapping[str, Curve]) -> str:
    return title_of(next((curve.codec for curve in curves.values()), "what was left out"))


def _bits(anchor: Curve | None, curve: Curve) -> float:
    try:
        return math.nan if anchor is None else bd_rate(anchor, curve, bpp=BETWEEN)
    except ConfigError:
        return math.nan
