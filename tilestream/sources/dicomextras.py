"""Colour profile, technical facts and identifying elements of a DICOM slide, and the pictures that belong to it.

References
----------
DICOM PS3.3 A.32.8 (whole slide microscopy image), C.8.12.5 (optical path).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tilestream.errors import SourceError
from tilestream.sources.dicomdecode import decode_frame, sample_dtype
from tilestream.sources.dicomfile import Identity, frame_index, read_header, read_instance
from tilestream.sources.extras import Extras
from tilestream.sources.icc import checked_icc
from tilestream.sources.technical import sort_out
from tilestream.types import Array

PICTURES = {"LABEL": "label", "OVERVIEW": "macro", "LOCALIZER": "localizer"}
"""Names of pictures that may show the slide's label, by the third value of their ImageType."""
MOST_TEXT = 1 << 16
"""Characters of one value that are kept; longer ones are data, no words."""
MOST_DEPTH = 8
"""Nesting of sequences that is followed."""

_NAMES = {
    "Manufacturer": "vendor", "ManufacturerModelName": "model", "SoftwareVersions": "software",
    "ImageType": "image_type", "LossyImageCompression": "lossy_compression",
    "LossyImageCompressionRatio": "lossy_ratio", "LossyImageCompressionMethod": "lossy_method",
    "FocusMethod": "focus_method", "ExtendedDepthOfField": "extended_depth_of_field",
    "TotalPixelMatrixFocalPlanes": "focal_planes", "ImageOrientationSlide": "image_orientation",
}  # fmt: skip
_ILLUMINATION = {"111741": "Transmitted", "111743": "Epifluorescence", "111744": "brightfield"}
"""DCM codes of IlluminationTypeCodeSequence."""
_NOT_TOLD = frozenset({
    "PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PerFrameFunctionalGroupsSequence", "ICCProfile",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "TotalPixelMatrixRows", "TotalPixelMatrixColumns", "PhotometricInterpretation",
})  # fmt: skip
"""Elements that lay out the pixels, or are no text."""


def dicom_extras(identity: Identity, others: Sequence[Identity]) -> Extras:
    """Return what the header of a slide says besides its pixels.

    Parameters
    ----------
    identity : Identity
        Instance that speaks for the series.
    others : sequence of Identity
        All instances of the series, pictures among them.

    Returns
    -------
    Extras
        Elements by keyword: technical where the whitelist knows them, identifying where not.
    """
    names = tuple(pictures_of(others))
    try:
        header = read_header(identity.file)
    except SourceError:  # elements that no pixel needs; the reason may quote them and is not told
        return Extras(identifying_images=names, notes=("the header has elements that cannot be read: no facts of it",))
    paths = header.get("OpticalPathSequence") or ()
    profiles = [path.get("ICCProfile") for path in paths] + [header.get("ICCProfile")]
    icc, notes = checked_icc(next((bytes(profile) for profile in profiles if profile), b""))
    elements = list(_elements(header))
    technical, identifying = sort_out(
        [*elements, ("channels", [_path(path) for path in paths])], {**_NAMES, "channels": "channels"}
    )
    identifying.pop("channels", None)  # its sequence is told already
    return Extras(
        icc=icc,
        technical=technical,
        identifying=identifying,
        identifying_images=names,
        notes=notes,
    )


def pictures_of(members: Sequence[Identity]) -> dict[str, Identity]:
    """Return the pictures that may show a label, by name.

    Parameters
    ----------
    members : sequence of Identity
        Instances of one series.

    Returns
    -------
    dict of Identity
        The first of each kind.
    """
    found: dict[str, Identity] = {}
    for one in members:
        if one.flavour in PICTURES:
            found.setdefault(PICTURES[one.flavour], one)
    return found


def picture_pixels(identity: Identity) -> Array:
    """Return the pixels of a picture.

    Parameters
    ----------
    identity : Identity
        One of `pictures_of`.

    Returns
    -------
    ndarray
        `(y, x, c)`, 0 where no frame is stored.

    Raises
    ------
    SourceError
        When its header lacks what an image needs.
    DamagedError
        When a frame is cut or broken.
    """
    instance = read_instance(identity)
    index, tile = frame_index(instance, 1, 1)[0, 0], instance.tile
    samples = int(instance.get("SamplesPerPixel", 1))
    grid = instance.grid
    pixels = np.zeros((grid.y * tile.y, grid.x * tile.x, samples), sample_dtype(instance))
    for iy, ix in zip(*np.nonzero(index >= 0), strict=True):
        frame = decode_frame(instance, int(index[iy, ix]))
        pixels[iy * tile.y : (iy + 1) * tile.y, ix * tile.x : (ix + 1) * tile.x] = frame
    return pixels[: instance.matrix.y, : instance.matrix.x]


def _elements(header: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    for element in header:
        name = element.keyword or f"({element.tag.group:04X},{element.tag.element:04X})"
        if name in _NOT_TOLD or depth > MOST_DEPTH:
            continue
        if element.VR == "SQ":
            items = [dict(_elements(item, depth + 1)) for item in element.value or ()]
            if any(items):
                yield name, items
        elif (value := _value(element.value)) not in (None, "", []):
            yield name, value


def _value(value: Any) -> Any:
    """Return an element's value as JSON; bytes of private elements are no text and are left out."""
    if isinstance(value, bytes) or value is None:
        return None
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        return [_value(entry) for entry in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    text = str(value)
    return text if len(text) <= MOST_TEXT else None


def _path(path: Any) -> dict[str, Any]:
    """Return the facts of an optical path."""
    code = next((str(entry.get("CodeValue", "")) for entry in path.get("IlluminationTypeCodeSequence") or ()), "")
    facts = {
        "illumination": _ILLUMINATION.get(code),
        "excitation_nm": path.get("IlluminationWaveLength"),
        "objective_power": path.get("ObjectiveLensPower"),
        "objective_na": path.get("ObjectiveLensNumericalAperture"),
        "color_space": path.get("ColorSpace"),
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}
