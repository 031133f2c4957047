"""Technical facts of OME-XML: instrument, objective, and how each channel was lit and recorded.

References
----------
OME schema 2016-06, https://www.openmicroscopy.org/Schemas/Documentation/Generated/OME-2016-06/ome.html.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

from tilestream.sources.ometiff import is_picture
from tilestream.sources.technical import sort_out

_SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "μs": 1e-6, "min": 60.0}
_NANOMETRES = {"nm": 1.0, "µm": 1e3, "μm": 1e3}
_NAMES = {
    "Creator": "software", "Manufacturer": "vendor", "Model": "model", "NominalMagnification": "objective_power",
    "LensNA": "objective_na", "Immersion": "objective_immersion", "Correction": "objective_correction",
    "channels": "channels",
}  # fmt: skip


def ome_facts(root: ET.Element, series: int) -> dict[str, Any]:
    """Return the technical facts of one image.

    Parameters
    ----------
    root : Element
        `OME`, without namespaces.
    series : int
        Number of the image among those that can be chosen.

    Returns
    -------
    dict
        Facts by their names in `KNOWN`.
    """
    images = [image for image in root.findall("Image") if image.find("Pixels") is not None and not is_picture(image)]
    return sort_out(_found(root, images[series]), _NAMES)[0]


def _found(root: ET.Element, image: ET.Element) -> Iterator[tuple[str, Any]]:
    yield "Creator", root.get("Creator")
    instrument = _referenced(root, image, "Instrument")
    microscope = instrument.find("Microscope")
    yield from ({} if microscope is None else microscope.attrib).items()
    settings = image.find("ObjectiveSettings")
    wanted = None if settings is None else settings.get("ID")
    for objective in instrument.findall("Objective"):
        if wanted in (None, objective.get("ID")):
            yield from objective.attrib.items()
            break
    channels = [_channel(image, index, channel) for index, channel in enumerate(image.iterfind("Pixels/Channel"))]
    if any(channels):
        yield "channels", channels


def _referenced(root: ET.Element, image: ET.Element, name: str) -> ET.Element:
    """Return the instrument that an image names, else the only one there is, else an empty one."""
    all_of = root.findall(name)
    reference = image.find(f"{name}Ref")
    if reference is not None:
        all_of = [element for element in all_of if element.get("ID") == reference.get("ID")]
    return all_of[0] if len(all_of) == 1 else ET.Element(name)


def _channel(image: ET.Element, index: int, channel: ET.Element) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "illumination": channel.get("IlluminationType"),
        "contrast": channel.get("ContrastMethod"),
        "acquisition": channel.get("AcquisitionMode"),
        "excitation_nm": _in_unit(channel, "ExcitationWavelength", _NANOMETRES, "nm"),
        "emission_nm": _in_unit(channel, "EmissionWavelength", _NANOMETRES, "nm"),
    }
    settings = channel.find("DetectorSettings")
    facts["gain"] = None if settings is None else settings.get("Gain")
    plane = image.find(f"Pixels/Plane[@TheC='{index}']")  # that of the first z and t speaks for the channel
    facts["exposure_s"] = None if plane is None else _in_unit(plane, "ExposureTime", _SECONDS, "s")
    return {name: value for name, value in facts.items() if value is not None}


def _in_unit(element: ET.Element, name: str, units: dict[str, float], default: str) -> float | None:
    factor = units.get(element.get(f"{name}Unit", default))
    try:
        return None if factor is None else float(element.get(name, "")) * factor
    except ValueError:
        return None
