"""What the text of a coordinate reference system says without a database."""

from __future__ import annotations

import re

from tilestream.errors import ConfigError

_UNIT = r'(?:LENGTHUNIT|UNIT)\[\s*"([^"]*)"\s*,\s*([0-9.]+)'


def short_crs(text: str) -> str:
    """Return `EPSG:n` for a WKT that ends with its EPSG code, else the text itself.

    Parameters
    ----------
    text : str
        WKT1, WKT2 or `EPSG:n`.

    Returns
    -------
    str
        The shortest form that says the same.
    """
    match = re.search(r'(?:AUTHORITY\["EPSG",\s*"(\d+)"\]|ID\["EPSG",\s*(\d+)\])\s*\]\s*$', text.strip())
    return f"EPSG:{match[1] or match[2]}" if match else text.strip()


def is_metric(crs: str | None) -> bool:
    """Return whether coordinates of a CRS are metres, as far as its text or number says.

    Parameters
    ----------
    crs : str or None
        `EPSG:n` or WKT. Of bare numbers the UTM zones on WGS 84, Web Mercator and the two polar ones are known.

    Returns
    -------
    bool
        False where unknown.
    """
    if crs is None:
        return False
    if match := re.fullmatch(r"EPSG:(\d+)", crs):
        code = int(match[1])
        return code in (3857, 3413, 3031, 3035, 6933) or 32601 <= code <= 32660 or 32701 <= code <= 32760
    text = crs.lstrip()
    if text.startswith("PROJCRS"):  # WKT 2: the ellipsoid and the projection have units too, before those of the axes
        units = re.findall(_UNIT, text.partition("CS[")[2])[:1]
    elif text.startswith("PROJCS"):  # WKT 1: the last one is that of the axes
        units = re.findall(_UNIT, text)[-1:]
    else:
        return False
    return any(name.lower() in ("metre", "meter") and re.fullmatch(r"1(\.0*)?", size) for name, size in units)


def full_wkt(crs: str) -> str:
    """Return the WKT of a coordinate reference system, for readers that know no codes.

    Parameters
    ----------
    crs : str
        `EPSG:n`, or WKT, which is returned as it is.

    Returns
    -------
    str
        WKT 2 of 2019.

    Raises
    ------
    ConfigError
        When it is a code and pyproj, which knows the codes, is not installed or does not know this one.
    """
    if "[" in crs:
        return crs
    try:
        from pyproj import CRS
        from pyproj.exceptions import CRSError
    except ImportError as error:
        raise ConfigError.of(
            f"WKT of `{crs}`",
            got="no pyproj",
            expected="it installed: GDAL knows a place by its WKT alone",
            do="Run `pip install -e '.[geo]'`, or choose another profile.",
        ) from error
    try:
        return str(CRS.from_user_input(crs).to_wkt())
    except CRSError as error:
        raise ConfigError.of(
            f"WKT of `{crs}`", got=str(error), expected="a code that PROJ knows", do="Choose another profile."
        ) from error
