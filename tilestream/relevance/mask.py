"""What somebody has marked: a mask as a term."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.pyramid import Pyramid
from tilestream.pyramid.coarse import mask_level
from tilestream.relevance.look import CELL_PX, Look
from tilestream.relevance.regrid import regrid
from tilestream.types import ScoreMap, Shape


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskTerm:
    """The term `mask`: the share of each cell that a mask covers, which nothing normalises.

    A mask that was read from a file or drawn comes as a `ScoreMap`, an array is spread over the whole image.
    """

    mask: ScoreMap | npt.NDArray[Any]
    """Map with values in 0 to 1, or an array `(y, x)` of bool or of numbers in 0 to 1, with the aspect of the image."""

    group: ClassVar[Literal["query"]] = "query"

    def __post_init__(self) -> None:
        values = self.mask.values if isinstance(self.mask, ScoreMap) else self.mask
        known: object = values  # whatever a user gives
        fits = isinstance(known, np.ndarray) and known.ndim == 2 and known.size and known.dtype.kind in "biuf"
        if not fits:
            raise ConfigError.of(
                "`mask` of a term", got=f"an array {np.shape(values)} of {getattr(values, 'dtype', type(values))}",
                expected="bool or numbers `(y, x)`", do="Give one channel of a mask.",
            )  # fmt: skip
        # one comparison that NaN does not pass either
        if not (values.min() >= 0 and values.max() <= 1):
            raise ConfigError.of(
                "`mask` of a term", got=f"values from {values.min():g} to {values.max():g}",
                expected="0 where it is not, 1 where it is, or shares between", do="Compare it: `mask > 0`.",
            )  # fmt: skip

    @property
    def recipe(self) -> dict[str, Any]:
        """Return what its maps are a function of besides the image: a digest of the mask and its grid."""
        cell_yx, values = None, self.mask
        if isinstance(values, ScoreMap):
            cell_yx, values = list(values.cell_yx), np.where(values.valid, values.values, -1)
        found = hashlib.blake2b(np.ascontiguousarray(values, np.float32).tobytes(), digest_size=16)
        return {"term": "mask-1", "digest": found.hexdigest(), "cells": list(values.shape), "cell_yx": cell_yx}

    def __call__(self, pyr: Pyramid, /) -> ScoreMap:
        """Return the share of each cell of an image that is covered."""
        return self._in_cells(pyr.info.shape, mask_level(pyr.info).scale_yx)

    def of_look(self, look: Look) -> ScoreMap:
        """Return the share of each cell of a coarse picture that is covered."""
        return self._in_cells(look.info.shape, look.coarse.level.scale_yx)

    def _in_cells(self, shape: Shape, scale_yx: tuple[float, float]) -> ScoreMap:
        scores = self.mask if isinstance(self.mask, ScoreMap) else _spread(self.mask, shape)
        if scores.shape != shape:
            raise ConfigError.of(
                "`mask` of a term", got=f"one of an image of {scores.shape.y} x {scores.shape.x} px",
                expected=f"one of this image, {shape.y} x {shape.x} px", do="Make the mask of this very image.",
            )  # fmt: skip
        found = regrid(scores, (scale_yx[0] * CELL_PX, scale_yx[1] * CELL_PX))
        return replace(found, name="mask", absolute=True, floor=None)


def _spread(mask: npt.NDArray[Any], shape: Shape) -> ScoreMap:
    """Return an array as a map of equal cells; raise `ConfigError` where it has another aspect than the image."""
    rows, columns = mask.shape
    low = max(shape.y / (rows + 1), shape.x / (columns + 1))
    high = min(shape.y / max(rows - 1, 1e-9), shape.x / max(columns - 1, 1e-9))
    if low >= high:
        raise ConfigError.of(
            "`mask` of a term", got=f"{rows} x {columns} cells",
            expected=f"the shape of the image, {shape.y} x {shape.x} px, or that shape reduced by one factor",
            do="Make the mask of this very image, uncropped.",
        )  # fmt: skip
    values = np.asarray(mask, np.float32)
    cell_yx = shape.y / rows, shape.x / columns
    return ScoreMap(name="mask", values=values, valid=np.ones(mask.shape, np.bool_), cell_yx=cell_yx, shape=shape)
