"""What is known of one image before any pixel is read."""

from __future__ import annotations

from typing import Any

from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sinks.facts import image_facts
from tilestream.types import ImageInfo


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
        `affine`, `notes`, `associated`, `fingerprint` and more. Nothing that identifies a patient: sources never offer
        label and macro images, names or barcodes.

    Raises
    ------
    SourceError
        When it cannot be opened.
    """
    info = open_pyramid(url).info
    facts = image_facts(info)
    del facts["levels_yx"]
    return {"path": url, **facts, "mpp": info.mpp, "levels": _levels(info), "associated": list(info.associated)}


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
