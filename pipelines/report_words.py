"""Numbers as the report says them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def format_bytes(value: float) -> str:
    """Return a number of bytes in decimal units, as disks are sold."""
    power = 0
    while value >= 999.5 and power < len(_UNITS) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.0f} {_UNITS[power]}" if power == 0 or value >= 99.5 else f"{value:.1f} {_UNITS[power]}"


def format_seconds(value: float) -> str:
    """Return a duration with the two units that matter; its spaces do not break."""
    whole = round(value)
    if 0 < value < 0.001:
        text = "< 1 ms"
    elif value < 9.95:
        text = f"{value:.2g} s" if value < 0.995 else f"{value:.1f} s"
    elif whole < 60:
        text = f"{whole} s"
    elif whole < 3600:
        text = f"{whole // 60} min {whole % 60:02d} s"
    else:
        text = f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def format_rate(value: float | None) -> str:
    """Return a rate with three digits, a dash when there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.3g}"


def format_share(share: float) -> str:
    """Return a share in per cent with two figures, such as `7.3 %` or `0.04 %`."""
    return f"{float(f'{100 * share:.2g}'):g} %" if share < 0.995 else f"{100 * share:.0f} %"


def psnr_words(coded: Mapping[str, Any], level: int) -> str:
    """Return how close a level is to the image, in words.

    Parameters
    ----------
    coded : Mapping
        What `Sums.record` returned, or what a store said of itself, be it of an earlier version.
    level : int
        Of the image.

    Returns
    -------
    str
        dB with two digits, `exact`, or a dash where nothing of the level is valid.
    """
    psnr = coded.get("psnr", ())
    found = psnr[level] if level < len(psnr) else None
    if found is not None:
        return f"{found:.2f}"
    return "exact" if level in (coded.get("exact") or ()) else "–"
