"""What reading the tokens of a plan will decode and read, beside reading all, known before any of it is read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.grid import TileGrid
from tilestream.pipelines.reading import stored_bytes
from tilestream.plan.blocksread import pixels_of_blocks, stored_span
from tilestream.plan.selection import MIN_SHARE, tile_shares
from tilestream.plan.tokenplan import TokenPlan
from tilestream.pyramid.pyramid import Pyramid


@dataclass(frozen=True, kw_only=True)
class TokenForecast:
    """What a plan costs, and what reading all at its finest level would."""

    tokens: int
    """Tokens of the plan."""
    full_tokens: int
    """Tokens of the finest level that are wanted: a full pass."""
    seen_px: int
    """Pixels that a stage sees, those outside the image included."""
    decoded_px: dict[str, int]
    """Pixels of the blocks under the tokens, each block once, by stored level."""
    full_decoded_px: int
    """The same of a full pass."""
    image_px: int
    """Pixels of level 0, wanted or not, by which reports count what was decoded."""
    read_bytes: int | None
    """About the compressed bytes of these blocks, from the size of the files; None when that is not known."""
    file_bytes: int | None
    """Size of the files."""

    @property
    def share(self) -> float:
        """Return the share of the pixels of a full pass that a stage sees."""
        return self.tokens / max(1, self.full_tokens)


def forecast_tokens(address: str, pyramid: Pyramid, plan: TokenPlan) -> TokenForecast:
    """Return what reading the tokens of an image will cost.

    Parameters
    ----------
    address : str
        Where the image is.
    pyramid : Pyramid
        The image.
    plan : TokenPlan
        Its tokens.

    Returns
    -------
    TokenForecast
        Exact counts of blocks; bytes as if every pixel of every level had the same.
    """
    decoded_px = {
        str(stored): pixels_of_blocks(pyramid.levels[stored], plan.stored_boxes(stored))
        for stored in sorted({plan.level_of(depth).stored for depth in np.unique(plan.tokens[:, 0]).tolist()})
    }
    wanted = _wanted(plan)
    base = plan.base
    spans = [
        stored_span(start * plan.patch_px, plan.patch_px, ratio)
        for start, ratio in zip(np.nonzero(wanted), base.ratio_yx, strict=True)
    ]
    file_bytes = stored_bytes(address, pyramid)
    everything = sum(level.shape.area for level in pyramid.levels)
    slices = math.prod(size for axis, size in pyramid.axes.items() if axis not in ("c", "y", "x"))
    part = sum(decoded_px.values()) / everything / max(1, slices)
    return TokenForecast(
        tokens=len(plan),
        full_tokens=int(np.count_nonzero(wanted)),
        seen_px=len(plan) * plan.patch_px**2,
        decoded_px=decoded_px,
        full_decoded_px=pixels_of_blocks(pyramid.levels[base.stored], np.concatenate(spans, axis=1)),
        image_px=pyramid.info.shape.area,
        read_bytes=None if file_bytes is None else round(file_bytes * part),
        file_bytes=file_bytes,
    )


def _wanted(plan: TokenPlan) -> npt.NDArray[np.bool_]:
    """Return which squares of the finest level a full pass would read."""
    grid = TileGrid(area=plan.base.shape, tile_px=plan.patch_px, step_px=plan.patch_px)
    if plan.selection is None:
        return np.ones(grid.shape.yx, np.bool_)
    return np.asarray(tile_shares(plan.selection, plan.base, grid) >= MIN_SHARE)
