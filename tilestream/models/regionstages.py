"""Region stages of our own that take more than a name: made for vectors of any length."""

from __future__ import annotations

from tilestream.models.vit import GridEmbed, VisionTransformer
from tilestream.models.windowed import WindowedTransformer


def vit(dim: int, *, width: int = 192, depth: int = 6, heads: int = 6) -> VisionTransformer:
    """Return a plain transformer over grids, of the shape of HIPT's second stage, for vectors of any encoder.

    Parameters
    ----------
    dim : int
        Length of the tiles' vectors.
    width : int
        Length of a token, and of the region's vector.
    depth : int
        Number of blocks.
    heads : int
        Attention heads of a block.

    Returns
    -------
    VisionTransformer
        Grids `[n, dim, gh, gw]` with a mask to vectors `[n, width]`. Positions are learned on 14 x 14.
    """
    embed = GridEmbed(channels=dim, dim=width)
    return VisionTransformer(embed, dim=width, depth=depth, heads=heads, positions="size")


def windowed(dim: int, *, width: int = 192, depth: int = 6, heads: int = 6, window: int = 4) -> WindowedTransformer:
    """Return a transformer over grids with attention in shifted windows: time grows with the tiles of a region.

    Parameters
    ----------
    dim : int
        Length of the tiles' vectors.
    width : int
        Length of a token, and of the region's vector.
    depth : int
        Number of blocks.
    heads : int
        Attention heads of a block.
    window : int
        Edge of a window in tiles.

    Returns
    -------
    WindowedTransformer
        Grids `[n, dim, gh, gw]` with a mask to vectors `[n, width]`.
    """
    return WindowedTransformer(dim, dim=width, depth=depth, heads=heads, window=window)
