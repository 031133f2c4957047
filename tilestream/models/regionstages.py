"""Region stages of our own that take more than a name: made for vectors of any length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tilestream.models import weights as files
from tilestream.models.vit import GridEmbed, VisionTransformer
from tilestream.models.windowed import WindowedTransformer


def vit(
    dim: int,
    *,
    width: int = 192,
    depth: int = 6,
    heads: int = 6,
    weights: str | None = None,
    random_weights: int | None = None,
) -> VisionTransformer:
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
    weights : str, optional
        File of weights. That of `tilestream train dino` also says how wide and deep the network is that it trained,
        with how many heads, and on which grid.
    random_weights : int, optional
        Seed of random ones instead.

    Returns
    -------
    VisionTransformer
        Grids `[n, dim, gh, gw]` with a mask to vectors `[n, width]`. Positions are learned on 14 x 14, or as trained.
    """
    if weights is None and random_weights is None:
        raise files.missing_weights("vit", option="--weights-4k FILE")
    trained = files.training_settings(weights, model="vit") if weights is not None else {}
    module = trained_vit(dim, trained) if trained else _plain_vit(dim, width=width, depth=depth, heads=heads)
    if weights is not None:
        files.load_weights(module, weights, model="vit")
    elif random_weights is not None:
        files.random_weights(module, seed=random_weights)
    return module


def trained_vit(dim: int, settings: Mapping[str, Any]) -> VisionTransformer:
    """Return the transformer over grids that a training of second stages has, for vectors of length `dim`.

    Parameters
    ----------
    dim : int
        Length of the tiles' vectors.
    settings : Mapping
        Settings of the training: `dim`, `depth`, `heads` and `large_cells`, the edge of the grid of its positions.

    Returns
    -------
    VisionTransformer
        Without the weights. Positions follow DINO's rule, as they did in training.
    """
    width, cells = settings["dim"], settings["large_cells"]
    embed = GridEmbed(channels=dim, dim=width)
    return VisionTransformer(embed, dim=width, depth=settings["depth"], heads=settings["heads"], grid_yx=(cells, cells))


def _plain_vit(dim: int, *, width: int, depth: int, heads: int) -> VisionTransformer:
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
