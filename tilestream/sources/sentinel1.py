"""Radar images whose polarisations are files of their own: Sentinel-1 GRD products, and plain pairs such as `x_VV.tif`.

GRD measurements carry ground control points, and digital numbers that are amplitudes without calibration. Values are
given as stored; `#db=amplitude` or `#db=power` puts them in decibels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tilestream.errors import SourceError
from tilestream.sources.files import File
from tilestream.sources.scene import BandFile, Scene, iso_time, joined
from tilestream.types import Channel

GRD = re.compile(r"(s1[a-d]-(?:iw|ew|s[1-6])-grd)-(vv|vh|hh|hv)-(\d{8}t\d{6})-.*\.tiff?", re.IGNORECASE)
"""Name of a GRD measurement: product, polarisation, start."""
PLAIN = re.compile(r"(?:(.*)[-_])?(vv|vh|hh|hv)\.tiff?", re.IGNORECASE)
"""Name of any other file of one polarisation: product, polarisation."""
_ORDER = ("vv", "vh", "hh", "hv")


def is_product(names: Iterable[str]) -> bool:
    """Return whether the files of a folder are the polarisations of radar images.

    Parameters
    ----------
    names : iterable of str
        Entries of a folder.

    Returns
    -------
    bool
        True for a GRD measurement, and for two or more polarisations of one other image.
    """
    names = list(names)
    if any(GRD.fullmatch(name) for name in names):
        return True
    plain = [match for name in names if (match := PLAIN.fullmatch(name))]
    return len({match[1] for match in plain}) == 1 and len({match[2].lower() for match in plain}) > 1


def radar_scene(folder: File, names: Iterable[str]) -> Scene:
    """Return the scene of the polarisations in a folder.

    Parameters
    ----------
    folder : File
        `measurement` of a SAFE, or a plain folder.
    names : iterable of str
        Its entries.

    Returns
    -------
    Scene
        Bands `vv`, `vh`, `hh`, `hv`, as far as they are there.

    Raises
    ------
    SourceError
        When they are of more than one product.
    """
    names = sorted(names)
    grd = [(name, match) for name in names if (match := GRD.fullmatch(name))]
    found = grd or [(name, match) for name in names if (match := PLAIN.fullmatch(name))]
    products = {tuple(match.groups()[::2]): name for name, match in found}
    by_word = {match[2].lower(): name for name, match in found}
    if len(products) > 1 or len(by_word) < len(found):
        raise SourceError.of(
            f"`{folder.url}`",
            got=f"polarisations of several products: {', '.join(name for name, _ in found[:4])}",
            expected="those of one product",
            do="Give each product a folder of its own.",
        )
    return Scene(
        format="sentinel1-grd" if grd else "sar-bands",
        bands=tuple(
            BandFile(
                file=File(url=joined(folder.url, by_word[word]), options=folder.options),
                channel=Channel(name=word),
                nodata=0 if grd else None,
            )
            for word in _ORDER
            if word in by_word
        ),
        datetime=_time(grd[0][1][3]) if grd else None,
        notes=("digital numbers are amplitudes without calibration",) if grd else (),
    )


def _time(text: str) -> str | None:
    """Return `20200219t054000` as ISO 8601."""
    return iso_time(f"{text[:4]}-{text[4:6]}-{text[6:8]}T{text[9:11]}:{text[11:13]}:{text[13:15]}Z")
