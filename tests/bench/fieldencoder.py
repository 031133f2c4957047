"""`handcrafted` vectors of small tiles: cells of a query at a coarse level of the size of what is looked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.models.handcrafted import handcrafted
from tilestream.types import Batch


def _vectors(tiles: npt.NDArray[Any], *, brightfield: bool) -> npt.NDArray[np.float32]:
    n = len(tiles)
    corners, ones = np.zeros((n, 2), np.int64), np.ones(n, np.float32)
    batch = Batch(pixels=tiles, valid=None, valid_share=ones, rows=np.arange(n), tile_yx=corners)
    return handcrafted(rgb=True, brightfield=brightfield)(batch)


def slide(tiles: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the vectors of tiles of 32 px of a brightfield slide, `(n, d)`."""
    return _vectors(tiles, brightfield=True)


def scene(tiles: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the vectors of tiles of 16 px of a scene, `(n, d)`."""
    return _vectors(tiles, brightfield=False)


def canvas(tiles: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the vectors of tiles of 4 px of a canvas, `(n, d)`."""
    return _vectors(tiles, brightfield=False)


slide.contract = {"name": "slide32", "px": 32, "channels": 3}  # type: ignore[attr-defined]
scene.contract = {"name": "scene16", "px": 16, "channels": 3}  # type: ignore[attr-defined]
canvas.contract = {"name": "canvas4", "px": 4, "channels": 3}  # type: ignore[attr-defined]
