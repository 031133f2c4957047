"""What is selected as a term of a relevance: tissue, a mask image, outlines."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from tilestream.grid import TileGrid
from tilestream.plan.selection import tile_shares
from tilestream.plan.where import select
from tilestream.pyramid import Pyramid
from tilestream.pyramid.coarse import mask_level
from tilestream.relevance.look import CELL_PX, fitted
from tilestream.types import ScoreMap


@dataclass(frozen=True, kw_only=True)
class Marked:
    """The term `mask:…`: the share of each cell that is selected, which nothing normalises."""

    where: str
    """`tissue`, or the path or URL of a mask image, a GeoJSON file or patches, as `where` of a plan takes them."""

    group: ClassVar[Literal["query"]] = "query"

    @property
    def recipe(self) -> dict[str, Any]:
        """Return what its maps are a function of besides the image: the rules, or what is in the file."""
        file = Path(self.where.removeprefix("file://"))
        known = blake2b(file.read_bytes(), digest_size=16).hexdigest() if file.is_file() else self.where
        return {"term": "marked-1", "where": known}

    def __call__(self, pyr: Pyramid, /) -> ScoreMap:
        """Return the share of each cell of an image that is selected."""
        level, shape = mask_level(pyr.info), pyr.info.shape
        cell_yx = level.scale_yx[0] * CELL_PX, level.scale_yx[1] * CELL_PX
        selection = select(pyr, self.where, tile_level0_px=max(cell_yx))
        cells = tile_shares(selection, level, TileGrid(area=level.shape, tile_px=CELL_PX, step_px=CELL_PX))
        values = fitted(cells, shape, cell_yx)
        return ScoreMap(
            name="mask", values=values, valid=np.ones(values.shape, np.bool_), cell_yx=cell_yx, shape=shape,
            notes=selection.notes, absolute=True,
        )  # fmt: skip
