"""With how many bits the weights of a pyramid are kept: those that make D + λ·R least, measured on what is decoded.

Each tensor has a step of its own, a power of two. The search starts with fine steps and makes that of one tensor after
another coarser while the whole gets cheaper; each trial decodes in whole numbers, so that what is weighed is what a
reader will get. Source: quantisation of networks in COOL-CHIC (Ladune et al. 2023, arXiv 2212.05458), by step search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tilestream.codecs.pyramid.export import Draft
from tilestream.codecs.pyramid.nets import PASSES, PIXEL_MOST, PyramidNets
from tilestream.codecs.pyramid.sectioncoder import table_numbers
from tilestream.codecs.pyramid.tables import HIGH, LOW, table_bits
from tilestream.errors import DamagedError
from tilestream.kernels.pyramid_context import pyramid_context
from tilestream.kernels.pyramid_neighbours import REST
from tilestream.kernels.pyramid_synthesis import pyramid_synthesis
from tilestream.types import Array

START_BITS = 8.0
"""Of the largest weight of a tensor over its step, at the start of a search, as a power of two."""
_WHOLE_BITS = 4
_ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """What networks are weighed by."""

    grids: tuple[Array, ...]
    """Whole numbers."""
    pixels: tuple[npt.NDArray[np.float32], ...]
    """`(c, h, w)` of 0 to 1, of each level that the networks have a synthesis of."""
    weights: tuple[npt.NDArray[np.float32], ...]
    """`(h, w)` by which squared errors of each level are multiplied; they sum to what the level counts for."""
    price: float
    """λ over the pixels of level 0: of a bit, in the unit of the weighted errors."""

    def distortion(self, nets: PyramidNets, level: int) -> float:
        """Return the weighted squared errors of a level that the grids decode to."""
        found = pyramid_synthesis(self.grids, nets, level, threads=1)
        unit = np.clip(found, 0, PIXEL_MOST).astype(np.float32) * np.float32(1 / PIXEL_MOST)
        errors = np.square(unit - self.pixels[level]).mean(axis=0) * self.weights[level]
        return float(np.sum(errors, dtype=np.float64))


def coded_bits(grids: Sequence[Array], nets: PyramidNets, *, context: int | None = None) -> float:
    """Return the bits that grids take by the models that networks choose; sections are rounded up to bytes besides.

    Parameters
    ----------
    grids : sequence of ndarray of int16
        Finest first.
    nets : PyramidNets
        For as many.
    context : int, optional
        The only network whose places are counted; by default all are.

    Returns
    -------
    float
        Bits.
    """
    total, costs = 0.0, _table_bits()
    for grid in range(len(grids)):
        for turn in range(PASSES):
            if context not in (None, nets.table[grid, turn]):
                continue
            middle, scale = pyramid_context(grids, grid, turn, nets.context[nets.table[grid, turn]], threads=1)
            wanted = _of_pass(grids[grid], turn).astype(np.int32)
            symbols = np.clip(wanted - (middle.astype(np.int32) >> _WHOLE_BITS), LOW, HIGH)
            total += float(costs[table_numbers(middle, scale), symbols - LOW].sum())
    return total


@lru_cache(maxsize=1)
def _table_bits() -> npt.NDArray[np.float64]:
    return table_bits()


def code_bits(codes: Array) -> float:
    """Return about how many bits whole numbers take: by a two-sided geometric distribution of their mean magnitude."""
    total = float(np.abs(codes).sum())
    if total == 0:
        return 0.0
    mean = total / codes.size
    ratio = (math.sqrt(1 + mean * mean) - 1) / mean
    return codes.size * math.log2((1 + ratio) / (1 - ratio)) - total * math.log2(ratio)


def _of_pass(grid: Array, turn: int) -> Array:
    """Return the numbers of a pass in raster order."""
    if turn != REST:
        return grid[turn::2, turn::2].ravel()
    odd = np.arange(grid.shape[0])[:, None] % 2 != np.arange(grid.shape[1]) % 2
    rest: Array = grid[odd]
    return rest


def weighed_nets(draft: Draft, weighed: Weighed) -> PyramidNets:
    """Return whole-number networks of about the least D + λ·R.

    Parameters
    ----------
    draft : Draft
        What they are rounded from.
    weighed : Weighed
        A tile that they decode.

    Returns
    -------
    PyramidNets
        Checked.
    """
    return _Search(draft, weighed).best()


class _Search:
    """The steps of all tensors, with what they cost."""

    def __init__(self, draft: Draft, weighed: Weighed) -> None:
        self._draft, self._weighed = draft, weighed
        self._tensors = draft.tensors
        largest = [max(1.0, float(np.abs(one).max(initial=0))) for one in self._tensors]
        self._zeros = [max(0, math.floor(math.log2(one) - START_BITS)) for one in largest]
        self._most = [math.ceil(math.log2(one)) + 1 for one in largest]
        self._levels_of = [range(len(draft.synth))] + [
            range(level, level + 1) for level, net in enumerate(draft.synth) for _ in range(2 * len(net))
        ]  # filters, then networks
        self._context_of = [number for number, net in enumerate(draft.context) for _ in range(2 * len(net))]
        nets = draft.nets(self._zeros)
        self._distortions = [weighed.distortion(nets, level) for level in range(len(draft.synth))]
        self._bits = [coded_bits(weighed.grids, nets, context=number) for number in range(len(draft.context))]
        self._own_bits = [self._bits_of(*each) for each in enumerate(self._zeros)]

    def best(self) -> PyramidNets:
        """Return the networks of the best steps."""
        for _ in range(_ROUNDS):
            before = list(self._zeros)
            for number in range(len(self._zeros)):
                while self._tries(number, 1):
                    pass
                if self._zeros[number] == before[number]:
                    while self._tries(number, -1):
                        pass
            if before == self._zeros:
                break
        return self._draft.nets(self._zeros).check()

    def _bits_of(self, number: int, zeros: int) -> float:
        """Return about what a tensor takes in a file."""
        return code_bits(np.rint(self._tensors[number] / 2.0**zeros))

    def _tries(self, number: int, change: int) -> bool:
        """Return whether another step of a tensor is cheaper; keep it if so."""
        zeros = list(self._zeros)
        zeros[number] += change
        if not 0 <= zeros[number] <= self._most[number]:
            return False
        nets, price = self._draft.nets(zeros), self._weighed.price
        try:
            nets.check()
        except DamagedError:  # sums beyond 32 bits, by rounding
            return False
        own = self._bits_of(number, zeros[number])
        gain = price * (self._own_bits[number] - own)
        if number < len(self._levels_of):
            is_cheaper = self._errs_less(nets, self._levels_of[number], gain)
        else:
            is_cheaper = self._codes_better(nets, self._context_of[number - len(self._levels_of)], gain)
        if is_cheaper:
            self._zeros, self._own_bits[number] = zeros, own
        return is_cheaper

    def _errs_less(self, nets: PyramidNets, levels: Sequence[int], gain: float) -> bool:
        """Return whether errors of levels grow by less than what is gained; keep them if so."""
        found = [self._weighed.distortion(nets, level) for level in levels]
        if sum(found) - sum(self._distortions[level] for level in levels) >= gain:
            return False
        for level, distortion in zip(levels, found, strict=True):
            self._distortions[level] = distortion
        return True

    def _codes_better(self, nets: PyramidNets, context: int, gain: float) -> bool:
        """Return whether the bits that a context codes grow by less than what is gained; keep them if so."""
        bits = coded_bits(self._weighed.grids, nets, context=context)
        if self._weighed.price * (bits - self._bits[context]) >= gain:
            return False
        self._bits[context] = bits
        return True
