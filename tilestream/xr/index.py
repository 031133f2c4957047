"""The xarray index of evenly spaced pixels: selects by arithmetic and holds no coordinate."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import xarray as xr
from xarray.core.indexing import IndexSelResult
from xarray.indexes import CoordinateTransform, CoordinateTransformIndex, PandasIndex

from tilestream.errors import ConfigError
from tilestream.xr.grid import ALIGNED, Method, PixelGrid, fit_grid, within

METHODS = ("nearest", "pad", "ffill", "backfill", "bfill")
"""Ways to find a label that is no pixel centre."""


class _Centres(CoordinateTransform):
    """The coordinate variable of a grid, computed where it is looked at."""

    def __init__(self, grid: PixelGrid, name: Hashable, dim: str) -> None:
        super().__init__((name,), {dim: grid.size})
        self.grid = grid

    def forward(self, dim_positions: dict[str, Any]) -> dict[Hashable, Any]:
        """Return the centres at some positions."""
        return {self.coord_names[0]: self.grid.values(dim_positions[self.dims[0]])}

    def reverse(self, coord_labels: dict[Hashable, Any]) -> dict[str, Any]:
        """Return the positions of some coordinates."""
        return {self.dims[0]: self.grid.position(coord_labels[self.coord_names[0]])}

    def equals(self, other: CoordinateTransform, **kwargs: Any) -> bool:
        """Return whether another one is the same pixels."""
        return isinstance(other, _Centres) and self.grid.is_like(other.grid)


class PixelGridIndex(xr.Index):
    """Index of pixel centres along one dimension; a few numbers, whatever the size of the image.

    Parameters
    ----------
    grid : PixelGrid
        Where the pixels lie.
    dim : str
        Dimension.
    name : hashable, optional
        Coordinate; that of the dimension's name by default.

    Notes
    -----
    Selects as xarray's own index does: scalars, arrays, slices with both ends included, `method` and `tolerance`. A
    label counts as exact within a millionth of a pixel. Slices, also with steps, keep the grid; what is no grid any
    more (arrays of positions, `roll`) becomes xarray's own index. xarray aligns indexes of one kind only:
    `da.set_xindex("y", PixelGridIndex)` makes one of the evenly spaced coordinates of an array from elsewhere, and
    `image.drop_indexes("y").set_xindex("y")` gives an image xarray's own.
    """

    def __init__(self, grid: PixelGrid, *, dim: str, name: Hashable | None = None) -> None:
        self.grid = grid
        self.dim = dim
        self.name = dim if name is None else name

    @classmethod
    def from_variables(cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]) -> Self:
        """Return the index of one evenly spaced coordinate."""
        if len(variables) != 1 or next(iter(variables.values())).ndim != 1:
            raise ConfigError.of(
                "`PixelGridIndex`",
                got=f"coordinates {list(variables)}",
                expected="one coordinate of one dimension",
                do="Set it for each coordinate by itself.",
            )
        ((name, variable),) = variables.items()
        return cls(fit_grid(variable.values, **options), dim=str(variable.dims[0]), name=name)

    def create_variables(self, variables: Mapping[Any, xr.Variable] | None = None) -> dict[Hashable, xr.Variable]:
        """Return the coordinate, computed where it is looked at, with the attributes of the one before."""
        transform = _Centres(self.grid, self.name, self.dim)
        return dict(CoordinateTransformIndex(transform).create_variables(variables))

    def to_pandas_index(self) -> Any:
        """Return all centres as a pandas index."""
        import pandas as pd

        return pd.Index(self.grid.values(), name=self.name)

    def isel(self, indexers: Mapping[Any, Any]) -> xr.Index | None:
        """Return the index of a part: a grid for slices, xarray's own for arrays, none for one pixel."""
        at = indexers[self.dim]
        if isinstance(at, slice):
            return self._of(self.grid.cut(at))
        if np.ndim(at) != 1:
            within(np.asarray(at), self.grid.size)
            return None
        dim = at.dims[0] if isinstance(at, xr.Variable) else self.dim
        positions = np.asarray(at)
        if positions.dtype.kind == "b":
            positions = np.flatnonzero(positions)
        return PandasIndex(self.grid.values(within(positions, self.grid.size)), dim)

    def sel(self, labels: dict[Any, Any], method: str | None = None, tolerance: Any = None) -> IndexSelResult:
        """Return the positions of labels.

        Parameters
        ----------
        labels : dict
            Label, array of labels or slice, by the name of the coordinate.
        method : str, optional
            One of `METHODS`.
        tolerance : float or array, optional
            Largest distance from a label; needs a method.

        Returns
        -------
        IndexSelResult
            Positions, as a slice for a slice.

        Raises
        ------
        KeyError
            When a label is no pixel.
        """
        (label,) = labels.values()
        if isinstance(label, slice):
            if method is not None or tolerance is not None:
                raise NotImplementedError("cannot use ``method`` argument if any indexers are slice objects")
            step = None if label.step is None else int(_scalar(label.step))
            part = self.grid.span(self._bound(label.start), self._bound(label.stop), step)
            return IndexSelResult({self.dim: part})
        values = np.asarray(label)
        if values.dtype.kind == "b" and values.ndim:
            found: Any = values
        else:
            found = self._find(values, method, tolerance)
            if np.any(found < 0):
                raise KeyError(self._not_found(values, found, method))
        if isinstance(label, xr.Variable):
            found = xr.Variable(label.dims, found)
        elif isinstance(label, xr.DataArray):
            found = xr.DataArray(found, coords=label.coords, dims=label.dims)
        elif not np.ndim(found):
            found = int(found)
        return IndexSelResult({self.dim: found})

    def equals(self, other: xr.Index, *, exclude: frozenset[Hashable] | None = None) -> bool:
        """Return whether another index is of the same pixels."""
        return isinstance(other, PixelGridIndex) and self.dim == other.dim and self.grid.is_like(other.grid)

    def join(self, other: Self, how: str = "inner") -> Self:
        """Return the index of the pixels in both, or with `outer` in any of them."""
        return self._of(self.grid.union(other.grid) if how == "outer" else self.grid.common(other.grid))

    def reindex_like(self, other: Self, method: str | None = None, tolerance: Any = None) -> dict[Hashable, Any]:
        """Return the position of each of another index's pixels, -1 where it is not there."""
        grid = other.grid
        if method is None:
            # pixels are the same within a thousandth: files written apart differ in their last digits
            found = self._find(grid.values(), "nearest", abs(self.grid.step) * ALIGNED if self.grid.size else None)
        else:
            found = self._find(grid.values(), method, tolerance)
        return {self.dim: found}

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> Self:
        """Return the index under other names."""
        name, dim = name_dict.get(self.name, self.name), dims_dict.get(self.dim, self.dim)
        return type(self)(self.grid, dim=str(dim), name=name)

    @classmethod
    def concat(cls, indexes: Sequence[Self], dim: Hashable, positions: Iterable[Iterable[int]] | None = None) -> Self:
        """Return the index of several parts behind each other: a grid where they adjoin, else xarray's own."""
        first = indexes[0]
        grids = [index.grid for index in indexes if index.grid.size] or [first.grid]
        if positions is None and _adjoin(grids):
            size = sum(grid.size for grid in grids)
            return first._of(_extended(grids[0], size))
        values = np.concatenate([index.grid.values() for index in indexes])
        if positions is not None:
            values = values[np.argsort(np.concatenate([np.asarray(list(part)) for part in positions]))]
        # any index may stand for the result: xarray asks it for the coordinates and nothing else
        return cast("Self", PandasIndex(values, dim))

    def roll(self, shifts: Mapping[Any, int]) -> Self:
        """Return xarray's own index of rolled coordinates, which are no grid any more."""
        return cast("Self", PandasIndex(np.roll(self.grid.values(), shifts[self.dim]), self.dim))

    def __repr__(self) -> str:
        return f"PixelGridIndex ({self.grid})"

    def _repr_inline_(self, max_width: int) -> str:
        return repr(self)[:max_width]

    def _of(self, grid: PixelGrid) -> Self:
        return type(self)(grid, dim=self.dim, name=self.name)

    def _find(self, values: Any, method: str | None, tolerance: Any) -> Any:
        if method is not None and method not in METHODS:
            raise ValueError(f"`method`: got {method!r}, expected one of {METHODS}. Choose one of them.")
        if method is None and tolerance is not None:
            raise ValueError("`tolerance`: got no `method`, expected one with it. Give `method='nearest'`.")
        try:
            labels = np.asarray(values, np.float64)
        except (TypeError, ValueError) as error:
            raise KeyError(f"coordinate {self.name!r}: got {values!r}, expected numbers. Give numbers.") from error
        return self.grid.find(labels, method=cast("Method | None", method), tolerance=tolerance)

    def _bound(self, label: Any) -> float | None:
        if label is None:
            return None
        try:
            return float(_scalar(label))
        except (TypeError, ValueError) as error:
            raise KeyError(f"coordinate {self.name!r}: got {label!r}, expected a number. Give a number.") from error

    def _not_found(self, values: Any, found: Any, method: str | None) -> str:
        missing = np.atleast_1d(np.asarray(values))[np.atleast_1d(found < 0)]
        advice = "Give method='nearest'." if method is None else "Widen `tolerance`, or look at the ends of the axis."
        return (
            f"not all values found in index {self.name!r}: got {missing.ravel()[0]}, expected one of the centres "
            f"{self.grid}. {advice}"
        )


def _scalar(label: Any) -> Any:
    if np.ndim(label):
        raise ValueError(f"cannot use non-scalar arrays in a slice for xarray indexing: {label}")
    return np.asarray(label)[()]


def _adjoin(grids: Sequence[PixelGrid]) -> bool:
    at = 0
    for grid in grids:
        whole = _extended(grids[0], at + grid.size)
        if not whole.cut(slice(at, None)).is_like(grid) or not abs(whole.step / grid.step - 1) <= ALIGNED:
            return False
        at += grid.size
    return True


def _extended(grid: PixelGrid, size: int) -> PixelGrid:
    start, step = grid.cells.start, grid.cells.step
    return PixelGrid(corner=grid.corner, pitch=grid.pitch, cells=range(start, start + size * step, step))
