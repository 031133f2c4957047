"""Colour profile and technical facts of slides read through OpenSlide, from its properties.

References
----------
Properties by vendor, https://openslide.org/properties/ and the pages of each format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from openslide import OpenSlide, OpenSlideError

from tilestream.sources.extras import Extras
from tilestream.sources.icc import checked_icc
from tilestream.sources.technical import sort_out
from tilestream.sources.tiffextras import APERIO

_NAMES = {
    "openslide.vendor": "vendor",
    "openslide.objective-power": "objective_power",
    "tiff.Software": "software",
    **{f"aperio.{name}": known for name, known in APERIO.items()},
    "hamamatsu.Product": "model",
    "leica.device-model": "model",
    "leica.aperture": "objective_na",
    "leica.illumination-source": "illumination",
    "philips.DICOM_MANUFACTURERS_MODEL_NAME": "model",
    "philips.DICOM_SOFTWARE_VERSIONS": "software",
    "philips.DICOM_LOSSY_IMAGE_COMPRESSION": "lossy_compression",
    "ventana.ScannerModel": "model",
    "ventana.BuildVersion": "software",
    "ventana.Gamma": "gamma",
    "ventana.Z-layers": "focal_planes",
    "ventana.Z-spacing": "focal_plane_distance_um",
    "mirax.GENERAL.SLIDE_TYPE": "illumination",
    "slide centre offset": "slide_centre_offset_yx_mm",
}
_LAYOUT = re.compile(r"openslide\.(level|associated|region|bounds|mpp|quickhash|icc)")
"""Properties of OpenSlide that only repeat the layout."""
_MIRAX = {"SLIDE_TYPE_BRIGHTFIELD": "brightfield", "SLIDE_TYPE_FLUORESCENCE": "fluorescence"}


def openslide_extras(slide: OpenSlide, *, identifying_images: tuple[str, ...]) -> Extras:
    """Return what OpenSlide says of a slide besides its pixels.

    Parameters
    ----------
    slide : OpenSlide
        The slide.
    identifying_images : tuple of str
        Names of its pictures that may show a label.

    Returns
    -------
    Extras
        Properties are technical where the whitelist knows them, identifying where not.
    """
    try:
        profile = slide.color_profile
        icc, notes = checked_icc(b"" if profile is None else profile.tobytes())
    except (OpenSlideError, OSError) as error:  # of PIL, for a profile that it cannot read
        icc, notes = None, (f"the ICC profile cannot be read and is left out: {error}",)
    technical, identifying = sort_out(_found(slide.properties), _NAMES)
    return Extras(
        icc=icc, technical=technical, identifying=identifying, identifying_images=identifying_images, notes=notes
    )


def _found(properties: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name, value in sorted(properties.items()):
        if not _LAYOUT.match(name):
            yield name, _MIRAX.get(value, value) if name.startswith("mirax.") else value
    offsets = [properties.get(f"hamamatsu.{axis}OffsetFromSlideCentre", "") for axis in "YX"]
    if all(re.fullmatch(r"-?\d{1,12}", offset) for offset in offsets):
        yield "slide centre offset", [int(offset) / 1e6 for offset in offsets]
