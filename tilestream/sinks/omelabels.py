"""Metadata of masks and class rasters under `labels/`: what each number means and how it is shown.

References
----------
OME-Zarr 0.5, section "labels", https://ngff.openmicroscopy.org/0.5/; CF conventions 1.11, section 3.5 (flags).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tilestream.types import ClassBand

VERSION = "0.5"
VALID = ClassBand(name="valid", values={0: "not_measured", 1: "measured"})
"""The mask that says where an image was measured."""

_SCL = ("000000", "FF0000", "2F2F2F", "643200", "00A000", "FFE65A", "0000FF", "808080", "C0C0C0", "FFFFFF", "64C8FF",
        "FF96FF")  # fmt: skip
COLORS: Mapping[str, Mapping[int, str]] = {
    "scl": dict(enumerate(_SCL)),  # ESA's own, as in the Sentinel-2 scene classification of SNAP and Sentinel Hub
    "valid": {0: "000000", 1: "FFFFFF"},
}
"""Colours of classes, six hex digits, by the name of their layer in lower case; viewers choose for all others."""
_TRANSPARENT = frozenset({("scl", 0), ("valid", 0)})
"""Classes that mean that there is nothing."""


def labels_attributes(names: Sequence[str]) -> dict[str, Any]:
    """Return the attributes of the group `labels`.

    Parameters
    ----------
    names : sequence of str
        Groups in it.

    Returns
    -------
    dict
        JSON values.
    """
    return {"ome": {"version": VERSION, "labels": list(names)}}


def image_label(band: ClassBand, *, source: str = "../../") -> dict[str, Any]:
    """Return the entry `image-label` of the attribute `ome` of one label image.

    Parameters
    ----------
    band : ClassBand
        What the numbers mean; one of bit fields has no meaning for each number, so that only its source is told.
    source : str
        Path of the image from the label's group.

    Returns
    -------
    dict
        JSON values.
    """
    key = band.name.casefold()
    colors = [
        {"label-value": value, "rgba": [*bytes.fromhex(color), 0 if (key, value) in _TRANSPARENT else 255]}
        for value, color in COLORS.get(key, {}).items()
        if value in band.values
    ]
    properties = [{"label-value": value, "class": name} for value, name in sorted(band.values.items())]
    return {
        "version": VERSION,
        **({"colors": colors} if colors else {}),
        **({"properties": properties} if properties else {}),
        "source": {"image": source},
    }


def flag_attributes(band: ClassBand) -> dict[str, Any]:
    """Return the CF attributes of the array of a class raster, by which xarray users know its classes or bits.

    Parameters
    ----------
    band : ClassBand
        What the numbers or bits mean.

    Returns
    -------
    dict
        `flag_values` for classes; for bit fields `flag_masks`, and `flag_values` too where one is several bits wide,
        with one meaning for each of its values. Empty where nothing is known.
    """
    if band.values:
        values = sorted(band.values)
        return {"flag_values": values, "flag_meanings": _meanings(band.values[value] for value in values)}
    fields = [
        (((1 << width) - 1) << first, number << first, name if width == 1 else f"{name}_{number}")
        for name, (first, width) in band.bits.items()
        for number in ([1] if width == 1 else range(1 << width))
    ]
    if not fields:
        return {}
    masks, numbers, names = zip(*fields, strict=True)
    told: dict[str, Any] = {"flag_masks": list(masks), "flag_meanings": _meanings(names)}
    return told if masks == numbers else {**told, "flag_values": list(numbers)}


def _meanings(names: Iterable[str]) -> str:
    """Return names as CF wants them: words divided by blanks."""
    return " ".join("_".join(name.split()) or "_" for name in names)
