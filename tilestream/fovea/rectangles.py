"""Tokens that lie side by side as rectangles, which are read in one go."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Rectangle:
    """Tokens of one level that fill a rectangle."""

    level: int
    """Of all of them."""
    y: int
    """Corner, in the pixels of the tokens' list."""
    x: int
    """Corner, in the pixels of the tokens' list."""
    rows: Ints
    """`(h, w)` where in the list each of them stands."""


def rectangles_of(tokens: Ints, *, most: int) -> list[Rectangle]:
    """Return tokens as rectangles that hold them and nothing else: runs of neighbours, equal ones one below another.

    Parameters
    ----------
    tokens : ndarray of int64
        `(n, 4)`: level, y, x, size; each once.
    most : int
        Most tokens along an edge of a rectangle.

    Returns
    -------
    list of Rectangle
        Each token is in one.
    """
    level, y, x, size = tokens.T
    order = np.lexsort((x, y, level))
    lists: dict[tuple[int, int, int], list[list[Ints]]] = {}
    for run in _runs(tokens[order], most):
        rows = order[run]
        first = rows[0]
        stacks = lists.setdefault((int(level[first]), int(x[first]), len(rows)), [])
        above = int(y[stacks[-1][-1][0]]) if stacks else None
        if above is not None and above + int(size[first]) == int(y[first]) and len(stacks[-1]) < most:
            stacks[-1].append(rows)
        else:
            stacks.append([rows])
    return [
        Rectangle(level=at, y=int(y[stack[0][0]]), x=left, rows=np.stack(stack))
        for (at, left, _), stacks in lists.items()
        for stack in stacks
    ]


def _runs(tokens: Ints, most: int) -> list[slice]:
    """Return where neighbours in a row begin and end, at most so many together; tokens are in order."""
    level, y, x, size = tokens.T
    broken = (np.diff(level) != 0) | (np.diff(y) != 0) | (np.diff(x) != size[:-1])
    edges = [0, *(np.flatnonzero(broken) + 1).tolist(), len(tokens)]
    return [
        slice(first, min(first + most, stop)) for start, stop in pairwise(edges) for first in range(start, stop, most)
    ]
