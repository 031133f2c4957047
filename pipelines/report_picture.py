"""What a report shows of an image: thumbnail, tissue outline and heat map, small enough to be kept for later runs."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
import numpy.typing as npt

from tilestream.codecs.durable import write_durable
from tilestream.pipelines.report_colours import heat_png
from tilestream.types import Shape

Ring: TypeAlias = Sequence[tuple[float, float]]

THUMBNAIL_PX = 640
"""Longest edge of a thumbnail."""
HEAT_PX = 512
"""Most cells along an edge of a heat map; larger ones are averaged."""
MAX_POINTS = 20_000
"""Most points of an outline; a page with more is slow to draw."""
_QUALITY = 82


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Thumbnail, outline and heat map of one image; never a label or macro image."""

    thumbnail: bytes
    """JPEG or PNG file."""
    width_px: int
    """Width of the thumbnail."""
    height_px: int
    """Height of the thumbnail."""
    um_per_px: float | None = None
    """Micrometres per pixel of the thumbnail."""
    outline: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Closed rings of `(x, y)` in pixels of the thumbnail; holes are rings too."""
    heat: bytes = b""
    """PNG file, one pixel a cell, transparent where nothing is known."""
    heat_xywh: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Where the heat map lies, in pixels of the thumbnail."""
    heat_range: tuple[float, float] = (0.0, 1.0)
    """Values of its first and last colour."""
    heat_label: str = "entropy"
    """What it shows."""
    heat_channels: int = 0
    """Channels of the map whose first it shows; 0 = a value of each tile."""

    def save(self, path: Path) -> str:
        """Return the checksum of a JSON file with the picture after it is durable.

        Parameters
        ----------
        path : Path
            File to write.

        Returns
        -------
        str
            32 hex digits.
        """
        return write_durable(path, json.dumps(self.to_json(), sort_keys=True).encode())

    @classmethod
    def load(cls, path: Path) -> Picture | None:
        """Return a saved picture, None where there is none that can be read."""
        try:
            return cls.from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def to_json(self) -> dict[str, Any]:
        """Return the picture as JSON values."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "thumbnail": base64.b64encode(self.thumbnail).decode(),
            "heat": base64.b64encode(self.heat).decode(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Picture:
        """Return the picture of what `to_json` gave."""
        fields = dict(document)
        fields["thumbnail"] = base64.b64decode(fields["thumbnail"])
        fields["heat"] = base64.b64decode(fields["heat"])
        fields["outline"] = tuple(tuple((float(x), float(y)) for x, y in ring) for ring in fields["outline"])
        fields["heat_xywh"], fields["heat_range"] = tuple(fields["heat_xywh"]), tuple(fields["heat_range"])
        return cls(**fields)


def make_picture(
    thumbnail: npt.NDArray[np.uint8],
    cells: npt.NDArray[np.float32] | None = None,
    *,
    shape: Shape,
    cells_yxhw: tuple[float, float, float, float] | None = None,
    outline: Sequence[Ring] = (),
    mpp: float | None = None,
) -> Picture:
    """Return the picture of an image.

    Parameters
    ----------
    thumbnail : ndarray of uint8
        `(y, x, 3)`, the whole image.
    cells : ndarray of float32, optional
        `(y, x)` values of a heat map, NaN where there is none.
    shape : Shape
        Size of level 0.
    cells_yxhw : tuple of float, optional
        Where the cells lie, level-0 pixels; the whole image unless given.
    outline : sequence of rings
        Rings of `(x, y)` in level-0 pixels.
    mpp : float, optional
        Micrometres per level-0 pixel.

    Returns
    -------
    Picture
        The picture.
    """
    height_px, width_px = thumbnail.shape[:2]
    at_x, at_y = width_px / shape.x, height_px / shape.y
    heat, heat_range = b"", (0.0, 1.0)
    if cells is not None and np.isfinite(cells).any():
        known = cells[np.isfinite(cells)]
        heat_range = (float(known.min()), float(known.max()))
        heat = heat_png(_at_most(cells, HEAT_PX), *heat_range)
    y, x, height, width = cells_yxhw or (0.0, 0.0, float(shape.y), float(shape.x))
    return Picture(
        thumbnail=bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(thumbnail), level=_QUALITY)),
        width_px=width_px,
        height_px=height_px,
        um_per_px=None if mpp is None else mpp / at_x,
        outline=_thin([[(px * at_x, py * at_y) for px, py in ring] for ring in outline]),
        heat=heat,
        heat_xywh=(x * at_x, y * at_y, width * at_x, height * at_y),
        heat_range=heat_range,
    )


def _at_most(cells: npt.NDArray[np.float32], edge: int) -> npt.NDArray[np.float32]:
    """Return the cells averaged in squares until no edge is longer than `edge`."""
    factor = -(-max(cells.shape) // edge)
    if factor <= 1:
        return cells
    pad = [(0, -size % factor) for size in cells.shape]
    padded = np.pad(cells.astype(np.float64), pad, constant_values=np.nan)
    squares = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor)
    count = np.isfinite(squares).sum(axis=(1, 3))
    total = np.nansum(squares, axis=(1, 3))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _thin(rings: Sequence[Ring]) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Return the rings with a tenth of a pixel's accuracy and no more points than a page can draw."""
    every = -(-sum(len(ring) for ring in rings) // MAX_POINTS) or 1
    thinned: list[tuple[tuple[float, float], ...]] = []
    for ring in rings:
        points: list[tuple[float, float]] = []
        for x, y in ring[::every]:
            point = (round(float(x), 1), round(float(y), 1))
            if not points or points[-1] != point:
                points.append(point)
        if len(points) >= 3:
            thinned.append(tuple(points))
    return tuple(thinned)
