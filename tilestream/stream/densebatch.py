"""Batches on their way through a stage that gives maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tilestream.errors import StageError
from tilestream.stream.attempts import Accept, black_batch
from tilestream.stream.mapform import MapForm
from tilestream.types import Array, Batch, ImageInfo, Shape


def cut(batch: Batch, size: Shape) -> Batch:
    """Return a batch without what lies beyond an image that is smaller than a tile.

    Parameters
    ----------
    batch : Batch
        Windows.
    size : Shape
        What the stage is given of each, px.

    Returns
    -------
    Batch
        The same where it has that size.
    """
    if batch.pixels.shape[2:] == size.yx:
        return batch
    valid = None if batch.valid is None else np.ascontiguousarray(batch.valid[:, : size.y, : size.x])
    valid = None if valid is None or valid.all() else valid
    return replace(batch, pixels=batch.pixels[:, :, : size.y, : size.x], valid=valid)


def some_of(batch: Batch, kept: npt.NDArray[np.bool_]) -> Batch:
    """Return some tiles of a batch.

    Parameters
    ----------
    batch : Batch
        The batch.
    kept : ndarray of bool
        `(n,)` which.

    Returns
    -------
    Batch
        The same where all are kept.
    """
    if kept.all():
        return batch
    return replace(
        batch,
        pixels=batch.pixels[kept],
        valid=None if batch.valid is None else batch.valid[kept],
        valid_share=batch.valid_share[kept],
        rows=batch.rows[kept],
        tile_yx=batch.tile_yx[kept],
    )


def black_window(image: ImageInfo, size: Shape) -> Batch:
    """Return one black tile of the size that a stage is given, on which it has to work.

    Parameters
    ----------
    image : ImageInfo
        Says channels and type.
    size : Shape
        Size, px.

    Returns
    -------
    Batch
        Of one tile, all valid.
    """
    return cut(black_batch(image, tile_px=max(size.yx)), size)


def maps_of(form: MapForm, stride: int) -> Accept:
    """Return what looks at the maps of a stage: they have to be like those that the store was laid out for.

    Parameters
    ----------
    form : MapForm
        What it gave at first.
    stride : int
        Pixels along an edge of a pixel of the map.

    Returns
    -------
    callable
        Gives `(n, k, y, x)`; raises `StageError` where shape or type are others.
    """

    def accept(found: Array, batch: Batch) -> Array:
        maps = np.asarray(found)
        n, _, height, width = batch.pixels.shape
        wanted = (n, form.planes, height // stride, width // stride)
        if maps.shape == wanted and maps.dtype == form.given:
            return maps
        raise StageError.of(
            f"output of `{form.name}`",
            got=f"{maps.dtype} of shape {maps.shape}",
            expected=f"{form.given} of shape {wanted}, as for the first tile",
            do="Return maps of one type and one number of channels for every batch.",
        )

    return accept
