"""What the curves of a panel say: rates at equal quality, quality at equal rates, by group of pictures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tilestream.codecs import CONVENTIONAL, Curve, bd_rate
from tilestream.errors import ConfigError

RATES = (0.5, 1.0, 2.0, 4.0)
"""Bits per pixel at which qualities are told; of more than 8 bits, per pixel of all bands."""
BETWEEN = (0.4, 3.0)
"""Bits per pixel of the anchor between which rates at equal quality are compared."""
ANCHORS = ("jpeg420", "jpegxl", "jpeg2000", "avif")
"""What rates are compared with."""
AT = 1.0
"""Bits per pixel at which the other measures are told."""
OTHERS = {"ms_ssim": "MS-SSIM", "ssimulacra2": "SSIMULACRA 2", "od_psnr": "stains, dB"}


def title_of(codec: str) -> str:
    """Return how tables call a codec."""
    return CONVENTIONAL[codec].title if codec in CONVENTIONAL else codec


def panels_of(curves: Sequence[Curve], groups: Mapping[str, str]) -> list[tuple[str, int, list[Curve]]]:
    """Return what is told together: its title, how many pictures, and the curves.

    A group comes with the codecs that have all of its pictures. What was fitted to some only is told picture by
    picture after it, beside all codecs: a mean over other pictures would not be comparable.

    Parameters
    ----------
    curves : sequence of Curve
        Of all pictures.
    groups : Mapping
        From the name of a picture to that of its group.

    Returns
    -------
    list of tuple
        In the order of the groups.
    """
    found = []
    for group in dict.fromkeys(groups.values()):
        members = [curve for curve in curves if groups.get(curve.picture) == group]
        pictures = dict.fromkeys(curve.picture for curve in members)
        has = {codec: {c.picture for c in members if c.codec == codec} for codec in {c.codec for c in members}}
        whole = [curve for curve in members if len(has[curve.codec]) == len(pictures)]
        if whole:
            found.append((group, len(pictures), whole))
        for picture in pictures:
            some = [curve for curve in members if curve.picture == picture]
            if any(len(has[curve.codec]) < len(pictures) for curve in some):
                found.append((f"{group}, `{picture}` alone", 1, some))
    return found


def summarise(curves: Sequence[Curve], groups: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return one row for each codec in each group of pictures, and on pictures alone, see `panels_of`.

    Parameters
    ----------
    curves : sequence of Curve
        Of all pictures.
    groups : Mapping
        From the name of a picture to that of its group.

    Returns
    -------
    list of dict
        JSON values. Bits are means over the `pictures` on which both codecs reach the same qualities, None where there
        is none. Qualities at a rate are means over all pictures of the group, None where one of them is not reached.
    """
    rows = []
    for title, _, some in panels_of(curves, groups):
        members: dict[str, dict[str, Curve]] = {}
        for curve in some:
            members.setdefault(curve.picture, {})[curve.codec] = curve
        for codec in dict.fromkeys(curve.codec for curve in some):
            rows.append({"group": title, **_row(codec, [one for one in members.values() if codec in one])})
    return rows


def _row(codec: str, members: Sequence[Mapping[str, Curve]]) -> dict[str, Any]:
    """Return what one codec does on the pictures of a group."""
    bits = {anchor: _mean([_compared(member, anchor, codec) for member in members]) for anchor in ANCHORS}
    return {
        "codec": codec,
        "pictures": len(members),
        "bits": {anchor: value for anchor, value in bits.items() if anchor != codec},
        "psnr": {f"{rate:g}": _everywhere([member[codec].at(rate) for member in members]) for rate in RATES},
        "at_1_bpp": {score: _everywhere([member[codec].at(AT, score=score) for member in members]) for score in OTHERS},
    }


def _compared(member: Mapping[str, Curve], anchor: str, codec: str) -> float:
    """Return the bits of a codec over those of an anchor in percent; NaN where they share too little."""
    try:
        return bd_rate(member[anchor], member[codec], bpp=BETWEEN) if anchor in member else math.nan
    except ConfigError:
        return math.nan


def _mean(values: Sequence[float]) -> dict[str, Any] | None:
    """Return the mean of the values that there are, and of how many pictures they are."""
    found = [value for value in values if math.isfinite(value)]
    return {"mean": round(statistics.fmean(found), 4), "pictures": len(found)} if found else None


def _everywhere(values: Sequence[float]) -> float | None:
    """Return the mean of values of which none is missing: means over other pictures are not to be compared."""
    return round(statistics.fmean(values), 4) if all(math.isfinite(value) for value in values) else None


def markdown_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table for each group; bits on less than all pictures say on how many."""
    lines = []
    for group in dict.fromkeys(row["group"] for row in rows):
        of_group = [row for row in rows if row["group"] == group]
        anchors = [anchor for anchor in ANCHORS if any(row["bits"].get(anchor) for row in of_group)]
        others = [score for score in OTHERS if any(row["at_1_bpp"][score] for row in of_group)]
        heads = [
            "codec",
            *(f"bits over {title_of(anchor)}" for anchor in anchors),
            *(f"dB at {rate:g} bpp" for rate in RATES),
            *(f"{OTHERS[score]} at {AT:g} bpp" for score in others),
        ]
        lines += [
            f"## {group}: {of_group[0]['pictures']} pictures",
            "",
            f"| {' | '.join(heads)} |",
            "|---" * len(heads) + "|",
        ]
        for row in of_group:
            cells = [
                title_of(row["codec"]),
                *(_told(row["bits"].get(anchor), row, "{:+.0f} %") for anchor in anchors),
                *(_told(row["psnr"][f"{rate:g}"], row, "{:.2f}") for rate in RATES),
                *(_told(row["at_1_bpp"][s], row, "{:.4f}" if s == "ms_ssim" else "{:.1f}") for s in others),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _told(value: Mapping[str, Any] | float | None, row: Mapping[str, Any], form: str) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return form.format(value)
    some = f" ({value['pictures']} of {row['pictures']})" if value["pictures"] < row["pictures"] else ""
    return form.format(value["mean"]) + some
