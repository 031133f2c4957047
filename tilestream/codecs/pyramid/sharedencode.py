"""The grids of tiles under shared networks: foretold in one pass, and refined by steps on the grids alone.

Tiles of one size go through together, on any device of torch; on a CPU few, since many leave its caches (a tile of
512 × 512 took 0.14 s of one core alone, and 0.24 s among four). Foretelling takes one pass of the analysis network;
refining goes on from there by Adam on D + λ·R, with soft rounding that hardens and noise that falls. There is no phase
of hard rounding with its gradient passed through, as C3 has at its end: with so few steps bits run away in it.

Source: Kim et al. 2023, arXiv 2312.02753 (C3), section 3.2: soft rounding and its noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.pyramid.analysisnet import MIDDLE, AnalysisNet, whole
from tilestream.codecs.pyramid.nets import grid_shapes
from tilestream.codecs.pyramid.shared import SharedPyramid
from tilestream.codecs.pyramid.sharedmodel import SharedModel
from tilestream.errors import ConfigError
from tilestream.types import Shape

RATE = 0.1
"""Of Adam, at the start of its cosine; numbers of grids are about 1."""
LAST_RATE = 0.02
"""Of that, at its end."""
SOFTEST, HARDEST = 0.3, 0.1
"""Temperatures of soft rounding at the start and at the end."""
MOST_NOISE, LEAST_NOISE = 0.2, 0.1
"""Deviation of the noise within it."""
MOST_TOGETHER_PX, MOST_CPU_PX = 1 << 20, 1 << 16
"""Pixels that go through at once, on a device and on a CPU; one tile in any case."""
SEED = 0
"""Of the noise, which is the same for all tiles of one size."""
Grids = tuple[npt.NDArray[np.int16], ...]
_made: WeakKeyDictionary[SharedPyramid, dict[str, tuple[SharedModel, AnalysisNet]]] = WeakKeyDictionary()


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
        Of torch.

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
    price = shared.lmbda if lmbda is None else lmbda
    found: list[Grids] = [()] * len(tiles)
    for numbers in _together(tiles, MOST_CPU_PX if device == "cpu" else MOST_TOGETHER_PX):
        pixels = torch.from_numpy(np.stack([_unit(tiles[number]) for number in numbers])).to(device)
        grids = foretold(pixels, model, analysis)
        if steps > 0:
            counted = [_weights(tiles[number], None if weights is None else weights[number]) for number in numbers]
            refinement = Refinement(model, pixels, torch.from_numpy(np.stack(counted)).to(device), lmbda=price)
            grids = refinement.run(grids, steps=steps)
        arrays = [whole(grid)[:, 0].to("cpu", torch.int16).numpy() for grid in grids]
        for place, number in enumerate(numbers):
            found[number] = tuple(np.ascontiguousarray(array[place]) for array in arrays)
    return found


def _models(shared: SharedPyramid, device: str) -> tuple[SharedModel, AnalysisNet]:
    """Return the networks as modules, which nothing changes: to make them takes 10 ms, a tile of 256 × 256 then 26."""
    kept = _made.setdefault(shared, {})
    if device not in kept:
        model, analysis = SharedModel.of(shared.nets), AnalysisNet.of(shared.analysis)
        kept[device] = model.requires_grad_(False).to(device), analysis.requires_grad_(False).to(device)
    return kept[device]


def foretold(pixels: torch.Tensor, model: SharedModel, analysis: AnalysisNet) -> list[torch.Tensor]:
    """Return the grids of pixels `(n, c, y, x)` in 0 to 1, before they are rounded: `(n, 1, h, w)` each."""
    height, width = pixels.shape[2:]
    cell = 2 ** (analysis.scales - 1)
    padded = functional.pad(pixels, (0, -width % cell, 0, -height % cell), mode="replicate")
    with torch.no_grad():
        grids = analysis(padded, model.raised, whole)
    shapes = grid_shapes(Shape(y=height, x=width), analysis.scales)
    return [grid[:, :, : shape.y, : shape.x].contiguous() for grid, shape in zip(grids, shapes, strict=True)]


class Refinement:
    """Steps on the grids of a batch, under networks that stay as they are.

    Parameters
    ----------
    model : SharedModel
        The networks.
    pixels : Tensor
        `(n, c, y, x)` in 0 to 1.
    weights : Tensor
        `(n, y, x)`: how much the error of a pixel counts.
    lmbda : float
        What a bit a pixel costs.
    """

    def __init__(self, model: SharedModel, pixels: torch.Tensor, weights: torch.Tensor, *, lmbda: float) -> None:
        self._model, self._pixels, self._weights, self._lmbda = model, pixels, weights[:, None], lmbda

    def loss(self, grids: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return D + λ·R a tile, of all tiles together: they do not know of each other."""
        _, channels, height, width = self._pixels.shape
        area = height * width
        [found] = self._model.pixels(grids)
        error = (self._weights * (found - self._pixels) ** 2).sum() / (channels * area)
        return error + self._lmbda * self._model.bits(grids).sum() / area

    def run(self, grids: Sequence[torch.Tensor], *, steps: int) -> list[torch.Tensor]:
        """Return better grids, before they are rounded.

        Parameters
        ----------
        grids : sequence of Tensor
            `(n, 1, h, w)` each, finest first, before they are rounded.
        steps : int
            How many.

        Returns
        -------
        list of Tensor
            Of the same sizes.
        """
        own = [grid.detach().clone().requires_grad_() for grid in grids]
        optimiser = torch.optim.Adam(own, RATE)
        chance = torch.Generator().manual_seed(SEED)
        for step in range(steps):
            share = step / steps
            optimiser.param_groups[0]["lr"] = RATE * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * share)) / 2)
            loss = self.loss([_soft(grid, share, chance) for grid in own])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return [grid.detach() for grid in own]


def _soft(grid: torch.Tensor, share: float, chance: torch.Generator) -> torch.Tensor:
    """Return a grid, softly rounded before and after noise, the harder the further."""
    temperature = SOFTEST + (HARDEST - SOFTEST) * share
    noise = torch.randn(grid.shape[1:], generator=chance).to(grid.device)
    noise = noise * (MOST_NOISE + (LEAST_NOISE - MOST_NOISE) * share)
    return _softly(_softly(grid, temperature) + noise, temperature)


def _softly(grid: torch.Tensor, temperature: float) -> torch.Tensor:
    floor = grid.detach().floor()
    return floor + 0.5 + torch.tanh((grid - floor - 0.5) / temperature) * (0.5 / math.tanh(0.5 / temperature))


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


def _weights(tile: Levels, weights: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
    found = np.ones(tile.picture.shape.yx, np.float32) if weights is None else weights.astype(np.float32)
    return found if tile.valid[0] is None else np.where(tile.valid[0], found, np.float32(0))
