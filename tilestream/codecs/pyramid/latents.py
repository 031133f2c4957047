"""The grids of a pyramid as sections of bytes, the coarsest first: the first k of them decode k grids.

Each number is told from what is decoded before it: a network gives the middle and the scale of a Laplace (`contexts`),
which choose one of 1,024 models (`tables`). What is coded is the difference from the whole part of the middle.

Source: Minnen et al. 2018, arXiv 1809.02736 (a hyperprior with context); He et al. 2021, arXiv 2103.15306 (passes).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tilestream.codecs.pyramid.nets import LATENT_MOST, PASSES, PyramidNets
from tilestream.codecs.pyramid.sectioncoder import SectionReader, SectionWriter, table_numbers
from tilestream.codecs.pyramid.tables import HIGH, LOW
from tilestream.errors import ConfigError, DamagedError
from tilestream.kernels.pyramid_context import pyramid_context
from tilestream.types import Array, Shape

Grid = npt.NDArray[np.int16]
FREE_NUMBERS = 1 << 20
NUMBERS_A_BYTE = 512
"""Of those beyond `FREE_NUMBERS`. A number costs a reader memory though it may cost a file nothing, so that more of
them than bytes allow are refused; where good luck would break that, zeros are appended to a section."""
_WHOLE_BITS = 4


def encode_grids(grids: Sequence[Array], nets: PyramidNets) -> tuple[list[bytes], tuple[Grid, ...]]:
    """Return grids as sections, and what these decode to.

    Parameters
    ----------
    grids : sequence of ndarray of integers
        Finest first, `(h, w)` each, within ±255; sizes as of `grid_shapes`.
    nets : PyramidNets
        For as many grids.

    Returns
    -------
    sections : list of bytes
        The coarsest grid first.
    grids : tuple of ndarray of int16
        Finest first. They differ from what was given where a number is more than 127 from the middle of its model.

    Raises
    ------
    ConfigError
        When they are no such grids.
    """
    _require_grids(grids, nets)
    known = [grid.astype(np.int16) for grid in grids]  # a copy
    sections: list[bytes] = []
    numbers = room = 0
    for level in reversed(range(nets.scales)):
        writer = SectionWriter()
        for which in range(PASSES):
            wanted = _taken(known[level], which).astype(np.int32)
            middle, scale = _foretold(known, nets, level, which)
            whole = middle.astype(np.int32) >> _WHOLE_BITS
            symbols = np.clip(wanted - whole, LOW, HIGH)
            _put(known[level], which, symbols + whole)
            writer.add(symbols, table_numbers(middle, scale))
        numbers += known[level].size
        section = writer.to_bytes()
        section += bytes(max(0, least_bytes(numbers) - room - len(section)))
        room += len(section)
        sections.append(section)
    return sections, tuple(known)


def decode_grids(
    sections: Sequence[bytes],
    shapes: Sequence[Shape],
    nets: PyramidNets,
    stages: int | None = None,
    *,
    known: Sequence[Grid] = (),
) -> tuple[Grid, ...]:
    """Return the grids that sections hold.

    Parameters
    ----------
    sections : sequence of bytes
        The coarsest grid first; at least as many as are decoded.
    shapes : sequence of Shape
        Of the grids, finest first, as of `grid_shapes`.
    nets : PyramidNets
        For as many grids, checked.
    stages : int, optional
        How many of the coarsest grids are decoded; by default all of them.
    known : sequence of ndarray of int16
        Coarsest grids that were decoded before, finest first, which are not decoded again.

    Returns
    -------
    tuple of ndarray of int16
        Finest first; zeros where a grid was not asked for.

    Raises
    ------
    DamagedError
        When there are fewer sections, or they hold no such grids.
    """
    stages = nets.scales if stages is None else min(stages, nets.scales)
    first = nets.scales - stages
    if len(sections) < stages or len(shapes) != nets.scales:
        raise DamagedError(f"pyramid: {len(sections)} sections for {stages} of {len(shapes)} grids")
    numbers = sum(shape.y * shape.x for shape in shapes[first:])
    if least_bytes(numbers) > sum(map(len, sections[:stages])):
        raise DamagedError(f"pyramid: {numbers:,} numbers cannot be in so few bytes")
    found = [np.zeros(shape.yx, np.int16) for shape in shapes[: nets.scales - len(known)]] + list(known)
    for level in reversed(range(first, nets.scales - len(known))):
        _decode(sections[nets.scales - 1 - level], found, nets, level)
    return tuple(found)


def _decode(section: bytes, grids: list[Grid], nets: PyramidNets, level: int) -> None:
    """Decode a grid into its place, those after it being known."""
    reader = SectionReader(section)
    for which in range(PASSES):
        middle, scale = _foretold(grids, nets, level, which)
        numbers = reader.take(table_numbers(middle, scale)) + (middle.astype(np.int32) >> _WHOLE_BITS)
        if np.abs(numbers).max(initial=0) > LATENT_MOST:
            raise DamagedError(f"grid {level} of a pyramid: numbers beyond ±{LATENT_MOST}, which no encoder writes")
        _put(grids[level], which, numbers)


def _foretold(
    grids: Sequence[Grid], nets: PyramidNets, level: int, which: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Return middles in 16ths and indices of scales of a pass, in the order of the grid; on this thread alone."""
    middle, scale = pyramid_context(grids, level, which, nets.context[nets.table[level, which]], threads=1)
    return middle, scale


def _taken(grid: Grid, which: int) -> Grid:
    """Return the numbers of a pass, in the order of the grid."""
    return grid[_mask(grid.shape)] if which == 2 else grid[which::2, which::2].reshape(-1)


def _put(grid: Grid, which: int, numbers: npt.NDArray[np.int32]) -> None:
    """Write the numbers of a pass into their places."""
    if which == 2:
        grid[_mask(grid.shape)] = numbers
    else:
        into = grid[which::2, which::2]
        into[...] = numbers.reshape(into.shape)


def _mask(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return the places of the last pass: rows and columns of which one is even and one is odd."""
    odd_y, odd_x = (np.arange(size) % 2 == 1 for size in shape)
    found: npt.NDArray[np.bool_] = np.not_equal.outer(odd_y, odd_x)
    return found


def least_bytes(numbers: int) -> int:
    """Return the bytes that so many numbers must have."""
    return -(-max(0, numbers - FREE_NUMBERS) // NUMBERS_A_BYTE)


def _require_grids(grids: Sequence[Array], nets: PyramidNets) -> None:
    sizes = [grid.shape for grid in grids]
    halved = all(tuple(-(-edge // 2) for edge in finer) == coarser for finer, coarser in itertools.pairwise(sizes))
    whole = all(grid.ndim == 2 and grid.size and grid.dtype.kind in "iu" for grid in grids)
    if len(grids) != nets.scales or not whole or not halved or max(int(np.abs(g).max()) for g in grids) > LATENT_MOST:
        raise ConfigError.of(
            "`grids` of a pyramid",
            got=", ".join(f"{grid.shape} {grid.dtype}" for grid in grids) or "none",
            expected=f"{nets.scales} grids of whole numbers within ±{LATENT_MOST}, each half of the one before",
            do="Round and clamp them.",
        )
