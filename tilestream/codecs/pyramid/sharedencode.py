"""The grids of tiles under shared networks: foretold in one pass, and refined by steps on the grids alone.

Tiles of one size go through together, on any device of torch; on a CPU few, since many leave its caches (a tile of
512 × 512 took 0.14 s of one core alone, and 0.24 s among four). Foretelling takes one pass of the analysis network;
refining goes on from there as a fit of numbers alone (`fit_pyramid`).
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.pyramid.analysisnet import MIDDLE, AnalysisNet, whole
from tilestream.codecs.pyramid.export import model_of
from tilestream.codecs.pyramid.fit import fit_pyramid
from tilestream.codecs.pyramid.model import PyramidModel
from tilestream.codecs.pyramid.nets import grid_shapes
from tilestream.codecs.pyramid.shared import SharedPyramid
from tilestream.errors import ConfigError
from tilestream.types import Shape

MOST_TOGETHER_PX, MOST_CPU_PX = 1 << 20, 1 << 16
"""Pixels that go through at once, on a device and on a CPU; one tile in any case."""
Grids = tuple[npt.NDArray[np.int16], ...]
_made: WeakKeyDictionary[SharedPyramid, dict[str, tuple[PyramidModel, AnalysisNet]]] = WeakKeyDictionary()


def encode_shared(
    tiles: Sequence[Levels],
    shared: SharedPyramid,
    *,
    steps: int = 0,
    lmbda: float | None = None,
    weights: Sequence[npt.NDArray[np.float32] | None] | None = None,
    device: str = "cpu",
) -> list[Grids]:
    """Return the grids of tiles.

    Parameters
    ----------
    tiles : sequence of Levels
        What is encoded; level 0 counts.
    shared : SharedPyramid
        The networks.
    steps : int
        0 takes the grids as they are foretold; others refine them.
    lmbda : float, optional
        What a bit a pixel costs while they are refined; by default what the networks were trained for, and near that
        they do well.
    weights : sequence of (ndarray of float32 or None), optional
        `(y, x)` of each tile: how much the error of a pixel counts while grids are refined, 1 as usual.
    device : str
        Of torch, for the pass; steps are those of a CPU.

    Returns
    -------
    list of tuple of ndarray of int16
        Of each tile `(h, w)` each, finest first, for `PyramidFile.of`. On one machine's CPU the same tiles give the
        same, however many there are together.

    Raises
    ------
    ConfigError
        When tiles have other channels than the networks.
    """
    channels = shared.nets.channels
    for tile in tiles:
        if tile.picture.channels != channels:
            raise ConfigError.of(
                "a tile for shared networks",
                got=f"{tile.picture.channels} channels",
                expected=f"{channels}, as they were trained for",
                do="Choose channels, or networks trained on such images.",
            )
    model, analysis = _models(shared, device)
    found: list[Grids] = [()] * len(tiles)
    for numbers in _together(tiles, MOST_CPU_PX if device == "cpu" else MOST_TOGETHER_PX):
        pixels = torch.from_numpy(np.stack([_unit(tiles[number]) for number in numbers])).to(device)
        grids = [grid[:, 0].cpu() for grid in foretold(pixels, model, analysis)]
        for place, number in enumerate(numbers):
            own = tuple(grid[place] for grid in grids)
            if steps > 0:
                _, found[number], _ = fit_pyramid(
                    tiles[number],
                    lmbda=shared.lmbda if lmbda is None else lmbda,
                    steps=steps,
                    start=shared.nets,
                    grids=[grid.numpy() for grid in own],
                    weights=None if weights is None else weights[number],
                    refine_only=True,
                )
            else:
                found[number] = tuple(whole(grid).to(torch.int16).contiguous().numpy() for grid in own)
    return found


def _models(shared: SharedPyramid, device: str) -> tuple[PyramidModel, AnalysisNet]:
    """Return the networks as modules, which nothing changes: to make them takes 10 ms, a tile of 256 × 256 then 26."""
    kept = _made.setdefault(shared, {})
    if device not in kept:
        model, analysis = model_of(shared.nets, Shape(y=1, x=1)), AnalysisNet.of(shared.analysis)
        kept[device] = model.requires_grad_(False).to(device), analysis.requires_grad_(False).to(device)
    return kept[device]


def foretold(pixels: torch.Tensor, model: PyramidModel, analysis: AnalysisNet) -> list[torch.Tensor]:
    """Return the grids of pixels `(n, c, y, x)` in 0 to 1, before they are rounded: `(n, 1, h, w)` each."""
    height, width = pixels.shape[2:]
    cell = 2 ** (analysis.scales - 1)
    padded = functional.pad(pixels, (0, -width % cell, 0, -height % cell), mode="replicate")
    with torch.no_grad():
        grids = analysis(padded, model.raised, whole)
    shapes = grid_shapes(Shape(y=height, x=width), analysis.scales)
    return [grid[:, :, : shape.y, : shape.x].contiguous() for grid, shape in zip(grids, shapes, strict=True)]


def _together(tiles: Sequence[Levels], most_px: int) -> list[list[int]]:
    """Return the numbers of tiles that go through at once: of one size, and not too many."""
    groups: dict[tuple[int, int], list[int]] = {}
    for number, tile in enumerate(tiles):
        groups.setdefault(tile.picture.shape.yx, []).append(number)
    found = []
    for (y, x), numbers in groups.items():
        most = max(1, most_px // (y * x))
        found += [numbers[first : first + most] for first in range(0, len(numbers), most)]
    return found


def _unit(tile: Levels) -> npt.NDArray[np.float32]:
    """Return level 0 in 0 to 1; what is not valid is the mean of what is, which costs least."""
    valid, picture = tile.valid[0], tile.picture
    if valid is None:
        return picture.to_unit(tile.pixels[0])
    found = np.full(tile.pixels[0].shape, MIDDLE, np.float32)
    if valid.any():
        seen = picture.to_unit(tile.pixels[0][:, valid])
        found[:] = seen.mean(axis=1, dtype=np.float64)[:, None, None]
        found[:, valid] = seen
    return found
