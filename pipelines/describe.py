"""What is known of one image before any pixel is read."""

from __future__ import annotations

from typing import Any

from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sinks.facts import image_facts, json_value
from tilestream.sources.extras import read_extras
from tilestream.sources.field import FieldSource
from tilestream.sources.icc import icc_description
from tilestream.types import Channel, ImageInfo


def describe_image(url: str) -> dict[str, Any]:
    """Return the description of one image as JSON values.

    Parameters
    ----------
    url : str
        Path or URL, with or without a selection.

    Returns
    -------
    dict
        `path`, `format`, `shape_yx`, `levels` (size, block, scale, mpp), `axes`, `channels`, `kind`, `mpp_yx`, `crs`,
        `affine`, `notes`, `associated`, `fingerprint`, `technical` (facts that are known to be harmless), `icc` (size
        and name of the colour profile), `coded` (of a store of fields: codec, bits per pixel, PSNR by level, parameters
        of a network; else None) and more. Nothing that identifies a patient: of what may, `kept_back` tells the
        pictures by name and the number of header fields.

    Raises
    ------
    SourceError
        When it cannot be opened.
    """
    source = open_pyramid(url).source
    info, extras = source.info, read_extras(source)
    facts = image_facts(info)
    del facts["levels_yx"]
    return {
        "path": url,
        **facts,
        "channels": [_channel(own, channel) for own, channel in zip(facts["channels"], info.channels, strict=True)],
        "mpp": info.mpp,
        "validity": info.validity,
        "levels": _levels(info),
        "associated": list(info.associated),
        "technical": json_value(extras.technical),
        "icc": None if extras.icc is None else {"bytes": len(extras.icc), "description": icc_description(extras.icc)},
        "coded": json_value(source.coding()) if isinstance(source, FieldSource) else None,
        "kept_back": {"images": list(extras.identifying_images), "fields": len(extras.identifying)},
        "notes": [*facts["notes"], *extras.notes],
    }


def _channel(facts: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Return the facts of a channel with the colour and window that the format states."""
    return {**facts, "color": channel.color, "window": json_value(channel.window)}


def _levels(info: ImageInfo) -> list[dict[str, Any]]:
    return [
        {
            "level": level.index,
            "shape_yx": list(level.shape.yx),
            "block_yx": list(level.block.yx),
            "scale_yx": list(level.scale_yx),
            "mpp_yx": None
            if info.mpp_yx is None
            else [own * scale for own, scale in zip(info.mpp_yx, level.scale_yx, strict=True)],
        }
        for level in info.levels
    ]
