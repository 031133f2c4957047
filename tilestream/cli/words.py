"""Numbers as people read them."""

from __future__ import annotations

import math

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(nbytes: float) -> str:
    """Return a number of bytes with a unit, three figures long.

    Parameters
    ----------
    nbytes : float
        Bytes.

    Returns
    -------
    str
        Such as `1.21 GiB`.
    """
    step = min(len(_UNITS) - 1, int(math.log(max(1.0, nbytes), 1024)))
    value = nbytes / 1024**step
    digits = 0 if step == 0 or value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {_UNITS[step]}"


def duration(seconds: float | None) -> str:
    """Return a time as `3.2 s`, `4:05` or `2:04:05`; `–` when it is not known.

    Parameters
    ----------
    seconds : float, optional
        Seconds.

    Returns
    -------
    str
        The time.
    """
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if 0 < seconds < 0.05:
        return "< 0.1 s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value: float | None) -> str:
    """Return a whole number with separators; `–` when it is not known.

    Parameters
    ----------
    value : float, optional
        The number.

    Returns
    -------
    str
        Such as `12,345`; numbers below 10 keep one digit after the point unless they are whole, those below 0.1 two
        digits: a field is fitted in minutes.
    """
    if value is None or not math.isfinite(value):
        return "–"
    if 0 < value < 0.1:
        return f"{value:.2g}"
    if 0 < value < 10 and value != int(value):
        return f"{value:.1f}"
    return f"{value:,.0f}"


def counted(count: int, word: str) -> str:
    """Return a count with its word in the right number.

    Parameters
    ----------
    count : int
        How many.
    word : str
        Singular; its plural ends in `s`.

    Returns
    -------
    str
        Such as `1 tile` or `1,234 tiles`.
    """
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def shortened(text: str, width: int) -> str:
    """Return a path of at most `width` characters; what is cut off is its beginning, since names differ at the end.

    Parameters
    ----------
    text : str
        The path.
    width : int
        Most characters.

    Returns
    -------
    str
        The text, or `…` and its end.
    """
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]
