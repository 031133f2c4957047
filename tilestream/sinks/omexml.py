"""OME-XML of one image: sizes, pixel size, channels with names and colours, and what a reader should know.

References
----------
OME schema 2016-06, https://docs.openmicroscopy.org/ome-model/6.0.0/
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from tifffile import OmeXml

from tilestream.errors import ConfigError
from tilestream.types import Channel, ImageInfo

DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
"""Types of samples that the OME model knows."""
NAMESPACE = "tilestream"
"""Of annotations, so that they can be found again."""
_NAMES = uuid.UUID("6c1b7a52-3f0e-5d55-9c6c-6f2f4a8b1d1e")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def ome_xml(info: ImageInfo, *, name: str, creator: str, identity: str, is_rgb: bool, facts: Mapping[str, str]) -> str:
    """Return the OME-XML of an image that is written as one plane a channel, or as one RGB plane.

    Parameters
    ----------
    info : ImageInfo
        What is known of the image; types of samples are those of the file.
    name : str
        Name of the image that viewers show.
    creator : str
        Program that writes it.
    identity : str
        Text that no other file has; the UUID follows from it.
    is_rgb : bool
        Whether the three channels are samples of one.
    facts : Mapping
        Names and values for an annotation; empty for none.

    Returns
    -------
    str
        XML with its declaration.

    Raises
    ------
    ConfigError
        When the OME model has no such type of samples.
    """
    if info.dtype.name not in DTYPES:
        raise ConfigError.of(
            "OME-TIFF",
            got=f"samples of {info.dtype}",
            expected=f"one of {', '.join(DTYPES)}",
            do="Export to COG, which holds them.",
        )
    document = OmeXml(Creator=creator, UUID=str(uuid.uuid5(_NAMES, identity)))
    height, width = info.shape.yx
    channels = [] if is_rgb else info.channels
    planes, samples = (1, 3) if is_rgb else (len(info.channels), 1)
    document.addimage(
        dtype=info.dtype,
        shape=(height, width, 3) if is_rgb else (planes, height, width),
        storedshape=(planes, 1, 1, height, width, samples),
        axes="YXS" if is_rgb else "CYX",
        Name=_clean(name),
        **_pixel_size(info),
        **({"Channel": _channels(channels)} if channels else {}),
        **({"MapAnnotation": _annotation(facts)} if facts else {}),
    )
    return document.tostring(declaration=True)


def _pixel_size(info: ImageInfo) -> dict[str, Any]:
    if info.mpp_yx is None:
        return {}
    y, x = (float(mpp) for mpp in info.mpp_yx)
    return {"PhysicalSizeX": x, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": y, "PhysicalSizeYUnit": "µm"}


def _channels(channels: Sequence[Channel]) -> dict[str, Any]:
    """Return names and, where the format gives any, colours; white is what the OME model means by none."""
    found: dict[str, Any] = {"Name": [_clean(channel.name) for channel in channels]}
    if any(channel.color for channel in channels):
        found["Color"] = [_rgba(channel.color or "FFFFFF") for channel in channels]
    return found


def _rgba(color: str) -> int:
    """Return a colour as the signed 32-bit number of red, green, blue and alpha."""
    return int.from_bytes(bytes.fromhex(color + "FF"), "big", signed=True)


def _annotation(facts: Mapping[str, str]) -> dict[str, Any]:
    return {"Namespace": NAMESPACE, "Value": {_clean(key): _clean(value) for key, value in facts.items()}}


def _clean(words: str) -> str:
    """Return a text without the characters that XML cannot hold."""
    return _NOT_XML.sub("", words)
