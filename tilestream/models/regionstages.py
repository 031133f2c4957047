"""Region stages of our own that take more than a name: made for vectors of any length."""

from __future__ import annotations

from tilestream.models.windowed import WindowedTransformer


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
