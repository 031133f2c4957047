"""Batches on their way through a stage that gives maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tilestream.errors import StageError, TilestreamError
from tilestream.metrics import timed
from tilestream.pyramid.pyramid import Pyramid
from tilestream.stream.batches import Outcome, Slots, iter_batches
from tilestream.stream.mapform import MapForm
from tilestream.types import Array, Batch, Shape, Stage, SuperTile


def windows(
    pyramid: Pyramid, unit: SuperTile, size: Shape, *, batch: int, outcome: Outcome, slots: Slots
) -> Iterator[Batch]:
    """Yield the windows of a unit that can be decoded, in batches.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    unit : SuperTile
        Its windows as tiles without a halo, row by row.
    size : Shape
        What the stage is given of each, px: less where the image is smaller than a tile.
    batch : int
        Most windows in a batch.
    outcome : Outcome
        Takes what became of them.
    slots : Slots
        Memory, which the next batch overwrites.

    Yields
    ------
    Batch
        In the order of the unit.
    """
    batches = iter_batches(pyramid, unit, batch=batch, outcome=outcome, slots=slots)
    while True:
        with timed("supply"):
            taken = next(batches, None)
        if taken is None:
            return
        yield _cut(taken, size)


def _cut(batch: Batch, size: Shape) -> Batch:
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


def run_dense(stage: Stage, batch: Batch) -> Array:
    """Return the maps of a batch, whatever their shape.

    Parameters
    ----------
    stage : Stage
        What to run.
    batch : Batch
        Its tiles.

    Returns
    -------
    ndarray
        As the stage gives them.

    Raises
    ------
    StageError
        When the stage raises.
    """
    try:
        return np.asarray(stage(batch))
    except TilestreamError:
        raise
    except Exception as error:  # whatever a user's callable raises becomes one clear row
        raise StageError.of(
            f"stage `{stage.contract.name}`",
            got=f"{type(error).__name__}: {error}",
            expected=f"maps for a batch {batch.pixels.shape} of {batch.pixels.dtype}",
            do="Run the callable on such an array by itself.",
        ) from error


def checked(found: Array, batch: Batch, form: MapForm, stride: int) -> Array:
    """Return the maps of a batch, which have to be like those that the store was laid out for.

    Parameters
    ----------
    found : ndarray
        What the stage gave.
    batch : Batch
        For which tiles.
    form : MapForm
        What it gave at first.
    stride : int
        Pixels along an edge of a pixel of the map.

    Returns
    -------
    ndarray
        `(n, k, y, x)`.

    Raises
    ------
    StageError
        When shape or type are others.
    """
    n, _, height, width = batch.pixels.shape
    wanted = (n, form.planes, height // stride, width // stride)
    if found.shape == wanted and found.dtype == form.given:
        return found
    raise StageError.of(
        f"output of `{form.name}`",
        got=f"{found.dtype} of shape {found.shape}",
        expected=f"{form.given} of shape {wanted}, as for the first tile",
        do="Return maps of one type and one number of channels for every batch.",
    )
