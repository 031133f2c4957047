"""Overlapping maps of tiles summed into a strip of a map, which moves down with the rows of tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tilestream.errors import StageError
from tilestream.kernels.blend import blend
from tilestream.kernels.blend_finish import finish_blend
from tilestream.kernels.blend_sums import blend_sums
from tilestream.stream.mapform import MapForm
from tilestream.types import Array, Box

Done = Callable[[int, Array, npt.NDArray[np.bool_]], None]
"""Takes first row, values `(k, y, x)` and validity of rows that no further tile touches."""


class BlendStrip:
    """Sums of the rows of a box that tiles still to come may touch; memory is that of one row of tiles.

    Parameters
    ----------
    form : MapForm
        What is summed.
    box : Box
        In pixels of the map.
    rows : int
        Most rows that a tile covers.
    feather_px : int
        How far neighbours lie over each other, pixels of the map.
    done : callable
        Takes finished rows.
    """

    def __init__(self, form: MapForm, box: Box, *, rows: int, feather_px: int, done: Done) -> None:
        like = np.empty((0, form.planes, 1, 1), form.given)
        self._form, self._box, self._feather, self._done = form, box, feather_px, done
        shape = min(rows, box.height), box.width
        self._sums = blend_sums(like, shape, origin_yx=(box.y, box.x), limit=form.limit)

    def add(self, values: Array, valid: npt.NDArray[np.bool_] | None, *, y: int, x: int) -> None:
        """Add the map of one tile; tiles come row by row.

        Parameters
        ----------
        values : ndarray
            `(k, y, x)`, all that counts of the tile.
        valid : ndarray of bool, optional
            `(y, x)`.
        y, x : int
            First row and column in the map.

        Raises
        ------
        StageError
            When a value is larger than can be summed.
        """
        self._finish_above(y)
        limit = self._form.limit
        values = self._form.clipped(values)
        if limit is not None and self._form.value_range is None:
            known = values if valid is None else values[:, valid]
            if known.size and np.abs(known).max() > limit:
                raise StageError.of(
                    f"output of `{self._form.name}`",
                    got=f"values up to {np.abs(known).max():g}",
                    expected=f"at most {limit:g} where maps are blended and the contract states no `value_range`",
                    do='State it in the contract, such as "value_range": [-1e6, 1e6].',
                )
        blend(
            self._sums,
            values[None],
            np.array([[y, x]], np.int64),
            None if valid is None else valid[None],
            feather_px=self._feather,
            ramp="smooth",
            threads=1,
        )

    def finish(self) -> None:
        """Hand over all rows that are left."""
        self._finish_above(self._box.y_stop)

    def _finish_above(self, y: int) -> None:
        sums, (top, left) = self._sums, self._sums.origin_yx
        held = sums.weight.shape[0]
        ready = min(y, self._box.y_stop) - top
        if ready <= 0:
            return
        # rows below what is held were touched by no tile
        rows = min(ready, held)
        part = replace(sums, total=np.ascontiguousarray(sums.total[:, :rows]), weight=sums.weight[:rows])
        made = finish_blend(part, self._form.given.name, threads=1)
        self._done(top, made.pixels, made.valid)
        for array in (sums.total, sums.weight):
            array[..., : held - rows, :] = array[..., rows:, :]
            array[..., held - rows :, :] = 0
        self._sums = replace(sums, origin_yx=(top + ready, left))
