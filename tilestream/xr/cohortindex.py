"""The xarray index of a cohort: selects slides by what is known of them, and their tiles with them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.core.indexing import IndexSelResult

from tilestream.errors import ConfigError
from tilestream.sinks.rowsread import Ints, Positions, split_rows
from tilestream.types import Array
from tilestream.xr.grid import within
from tilestream.xr.shelf import Shelf, as_array

if TYPE_CHECKING:
    import pandas as pd

SLIDE, TILE, DATE = "slide", "tile", "date"
TOLD = ("label", DATE)
"""Columns that each cohort has, though empty where nobody has said anything."""
PLACES = ("x", "y", "crs_x", "crs_y")
"""Coordinates of tiles by which boxes are cut."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CohortFacts:
    """What slides are selected by."""

    shelf: Shelf
    """Their tiles."""
    columns: Mapping[str, Array]
    """`(slides,)` values by coordinate; `slide`, and `date` as datetime64, others are texts."""
    size_yx: npt.NDArray[np.float64]
    """`(slides, 2)` edges of a tile's core, pixels of level 0."""
    crs: tuple[str | None, ...]
    """CRS of each slide."""
    is_mixed: bool = False
    """Whether tiles are of several sizes, whole multiples of `size_yx`, and each says its own."""


class WholeCohortError(ConfigError, TypeError, NotImplementedError):
    """Something that xarray does with one dimension only, asked of a whole cohort; of the types that it documents."""


class CohortIndex(xr.Index):
    """Index over slides and tiles at once, so that a selection of slides is one of their tiles.

    Parameters
    ----------
    facts : CohortFacts
        What is known of the slides.
    numbers : ndarray of int64
        Which slides are left.
    tiles : range or ndarray of int64, optional
        Which tiles are left; None once the dimension `tile` is gone.
    """

    def __init__(self, facts: CohortFacts, numbers: Ints, tiles: Positions | None) -> None:
        self.facts = facts
        self.numbers = numbers
        self.tiles = tiles

    @classmethod
    def from_variables(cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]) -> Self:
        """Refuse: coordinates alone do not say where the tiles lie."""
        raise ConfigError.of(
            "`CohortIndex`", got=f"coordinates {list(variables)}", expected="a folder", do="Use `ts.open_cohort`."
        )

    def create_variables(self, variables: Mapping[Any, xr.Variable] | None = None) -> dict[Hashable, xr.Variable]:
        """Return nothing: the coordinates are ordinary variables, which xarray cuts by itself."""
        return {}

    def equals(self, other: xr.Index, *, exclude: frozenset[Hashable] | None = None) -> bool:
        """Return whether another index is of the same slides and tiles."""
        return (
            isinstance(other, CohortIndex)
            and self.facts.shelf.token == other.facts.shelf.token
            and np.array_equal(self.numbers, other.numbers)
            and _equal(self.tiles, other.tiles)
        )

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> Self:
        """Return itself; its coordinates keep their names."""
        taken = {SLIDE, TILE, *PLACES, *self.facts.columns} & {*name_dict, *dims_dict}
        if taken:
            raise ConfigError.of(
                "`rename`",
                got=f"{sorted(map(str, taken))}, by which a cohort is selected",
                expected="other names",
                do="Select first, then `drop_indexes` and rename.",
            )
        return self

    def to_pandas_index(self) -> pd.Index:
        """Refuse: slides and tiles are two dimensions."""
        raise _whole(
            "`to_dataframe`, or another table",
            "one dimension: a row is a slide or a tile, not both",
            "Take variables of one first: `cohort[['n', 'n_ok']].to_dataframe()` has a row for each slide, "
            "`cohort[['status', 'tissue']].to_dataframe()` one for each tile.",
        )

    @classmethod
    def concat(cls, indexes: Sequence[Self], dim: Hashable, positions: Iterable[Iterable[int]] | None = None) -> Self:
        """Refuse: the slides of two cohorts may be the same ones."""
        raise _whole(
            f"`concat` along `{dim}`",
            "variables of one dimension",
            "Give the runs one `--out`, which is one cohort; or take variables first: "
            "`xr.concat([one[NAME].reset_coords(drop=True), other[NAME].reset_coords(drop=True)], 'tile')`.",
        )

    def join(self, other: Self, how: str = "inner") -> Self:
        """Refuse: other slides or tiles would have to be read under the same positions."""
        raise _aligned()

    def reindex_like(self, other: Self) -> dict[Hashable, Any]:
        """Refuse, as `join`."""
        raise _aligned()

    def isel(self, indexers: Mapping[Any, Any]) -> xr.Index | None:
        """Return the index of a part."""
        if SLIDE in indexers and TILE not in indexers and self.tiles is not None:
            raise ConfigError.of(
                "`isel(slide=…)` of a cohort",
                got="slides chosen by position, which would leave the tiles of all of them",
                expected="a selection of both",
                do="Use `.sel(slide=cohort.slide[…])`; for vectors of slides alone, take those variables first: "
                "`cohort[['n', 'n_ok']].isel(slide=…)`.",
            )
        numbers, tiles = self.numbers, self.tiles
        if SLIDE in indexers:
            numbers = np.atleast_1d(numbers[_index(indexers[SLIDE])])
            if numbers.ndim != 1:
                return None
        if TILE in indexers and tiles is not None:
            at = _index(indexers[TILE])
            if not isinstance(at, slice) and at.ndim != 1:
                return None
            tiles = tiles[at] if isinstance(at, slice) else _taken(tiles, at)
        return CohortIndex(self.facts, numbers, tiles)

    def sel(self, labels: dict[Any, Any], **options: Any) -> IndexSelResult:
        """Return the positions of slides and tiles that fulfil all conditions.

        Parameters
        ----------
        labels : dict
            By coordinate: for `slide`, `label` and other texts one or several; for `date` a date, a part of one
            (`2024-05`) or a slice, ends included; for `x`, `y`, `crs_x` and `crs_y` a point or a slice: tiles that
            hold the point, or whose centre is at or above its start and below its stop.
        **options : object
            `method` and `tolerance` mean nothing here and are refused.

        Returns
        -------
        IndexSelResult
            Positions along both dimensions.

        Raises
        ------
        KeyError
            When no slide has a label, or no tile holds a point.
        """
        if any(value is not None for value in options.values()):
            raise ConfigError.of(
                "`sel` on a cohort", got=f"{options}", expected="labels that exist", do="Leave `method` out."
            )
        about = {name: label for name, label in labels.items() if name not in PLACES}
        places = {name: label for name, label in labels.items() if name in PLACES}
        found: dict[Any, Any] = {}
        chosen = np.arange(len(self.numbers))
        for name, label in about.items():
            chosen = self._chosen(str(name), label, chosen)
        if about:
            is_one = SLIDE in about and np.ndim(about[SLIDE]) == 0
            found[SLIDE] = int(chosen[0]) if is_one and len(chosen) else chosen
        if self.tiles is not None:
            found[TILE] = self._tiles_of(chosen, places) if places else self._all_tiles_of(chosen)
        return IndexSelResult(found)

    def _chosen(self, name: str, label: Any, among: Ints) -> Ints:
        self._require_column(name, label)
        values = self.facts.columns[name][self.numbers[among]]
        if name == DATE:
            return among[_dated(values, label)]
        if isinstance(label, slice):
            raise ConfigError.of(
                f"`sel({name}=…)`", got=f"{label}", expected="a text or several", do="Name what you want."
            )
        wanted = [str(one) for one in np.atleast_1d(np.asarray(label)).ravel()]
        places: dict[str, list[int]] = {}
        for place, value in enumerate(values):
            places.setdefault(str(value), []).append(place)
        missing = next((one for one in wanted if one not in places), None)
        if missing is not None:
            near = get_close_matches(missing, places, n=3) or sorted(places)[:5]
            raise KeyError(f"no {name} {missing!r} in this cohort of {len(values)} slides; there is {', '.join(near)}")
        return among[[place for one in dict.fromkeys(wanted) for place in places[one]]]

    def _require_column(self, name: str, label: Any) -> None:
        if name not in TOLD or self._is_told(name):
            return
        known = [one for one in self.facts.columns if self._is_told(one)]
        raise ConfigError.of(
            f"`sel({name}={label!r})`: this cohort has no `{name}`",
            got="no slide that has one",
            expected=f"one of its columns ({', '.join(f'`{one}`' for one in known)})",
            do=f"Give a manifest with a column `{name}`: `ts.open_cohort(FOLDER, manifest=TABLE)`.",
        )

    def _is_told(self, name: str) -> bool:
        column = self.facts.columns[name]
        return not bool((np.isnat(column) if name == DATE else column == "").all())

    def _all_tiles_of(self, chosen: Ints) -> Any:
        """Return where the tiles of some slides are among those that are left, slide by slide."""
        if len(chosen) == len(self.numbers) and bool((chosen == np.arange(len(chosen))).all()):
            return slice(None)
        return _joined([own for _, own, _ in self._parts(chosen)])

    def _parts(self, chosen: Ints) -> list[tuple[int, Any, Positions]]:
        """Return number, places among the tiles that are left, and positions, for each chosen slide."""
        tiles, first = self.tiles, self.facts.shelf.first
        numbers = self.numbers[chosen]
        assert tiles is not None
        if isinstance(tiles, range) and tiles.step > 0:
            parts = {number: (own, tiles[own]) for number, own, _ in split_rows(tiles, first)}
            return [(int(n), *parts[int(n)]) for n in numbers if int(n) in parts]
        at = as_array(tiles)
        order = np.argsort(at, kind="stable")
        edges = np.searchsorted(at[order], first)
        owned = [(int(n), np.sort(order[edges[n] : edges[n + 1]])) for n in numbers]
        return [(n, own, at[own]) for n, own in owned if len(own)]

    def _tiles_of(self, chosen: Ints, places: Mapping[Any, Any]) -> Any:
        self._require_one_crs(chosen, places)
        kept: list[Any] = []
        for number, own, positions in self._parts(chosen):
            inside = np.ones(len(positions), np.bool_)
            for name, label in places.items():
                inside &= self._inside(str(name), label, number, positions)
            at = np.arange(own.start, own.stop, own.step) if isinstance(own, slice) else own
            kept.append(at[inside])
        points = [name for name, label in places.items() if not isinstance(label, slice)]
        if points and not any(len(one) for one in kept):
            raise KeyError(f"no tile of these slides holds {', '.join(f'{name}={places[name]}' for name in points)}")
        return _joined(kept)

    def _inside(self, name: str, label: Any, number: int, positions: Positions) -> npt.NDArray[np.bool_]:
        values = self._values(name, positions)
        # `x` and `y` are corners; places in a CRS are centres, whose tiles have no edge that is known here
        size = self._sizes(name, number, positions)
        centre = values if name.startswith("crs_") else values + size / 2
        if isinstance(label, slice):
            if label.step is not None:
                raise ConfigError.of(
                    f"`sel({name}=…)`", got=f"{label}", expected="a slice without step", do="Leave it."
                )
            low, high = label.start, label.stop
            if low is not None and high is not None and low > high:
                low, high = high, low  # y of a CRS falls
            above = True if low is None else centre >= low
            below = True if high is None else centre < high
            return np.broadcast_to(np.logical_and(above, below), values.shape)
        if name.startswith("crs_") or np.ndim(label):
            raise ConfigError.of(
                f"`sel({name}=…)`", got=f"{label}", expected="a slice" + (" or a number" if name in "xy" else ""),
                do="Give the edges of a box.",
            )  # fmt: skip
        return np.asarray((values <= float(label)) & (float(label) < values + size))

    def _sizes(self, name: str, number: int, positions: Positions) -> Any:
        """Return the edge of each tile along an axis, one number where all are of one size."""
        height, width = self.facts.size_yx[number]
        finest = float(self.facts.size_yx[number]["yx".index(name[-1])])
        if not self.facts.is_mixed:
            return finest
        return finest * np.rint(self._values("size", positions) / (height * width) ** 0.5)

    def _values(self, name: str, positions: Positions) -> Array:
        """Return a coordinate at some positions, in whatever order they are."""
        float64 = np.dtype(np.float64)
        if isinstance(positions, range) and positions.step > 0:
            return self.facts.shelf.read(name, positions, float64)
        ascending, back = np.unique(as_array(positions), return_inverse=True)
        return self.facts.shelf.read(name, ascending, float64)[back]

    def _require_one_crs(self, chosen: Ints, places: Mapping[Any, Any]) -> None:
        known = {self.facts.crs[n] for n in self.numbers[chosen]}
        if len(known) > 1 and any(str(name).startswith("crs_") for name in places):
            raise ConfigError.of(
                "a box in a CRS",
                got=f"{len(known)} different ones: {', '.join(sorted(map(str, known))[:3])}",
                expected="slides that share one",
                do="Select by `crs` first: `.sel(crs=…)`.",
            )


def _whole(what: str, expected: str, do: str) -> WholeCohortError:
    return WholeCohortError.of(what, got="a whole cohort, along `slide` and `tile` at once", expected=expected, do=do)


def _aligned() -> WholeCohortError:
    return _whole(
        "`groupby`, `merge` or another alignment of cohorts",
        "variables of one dimension, or the same slides and tiles",
        "Take a variable first: `cohort[NAME].groupby(cohort['slide_of_tile']).mean()` has a row for each slide.",
    )


def _index(key: Any) -> Any:
    """Return a slice as it is, anything else as positions."""
    if isinstance(key, slice):
        return key
    at = np.asarray(key)
    return np.flatnonzero(at) if at.dtype.kind == "b" else at


def _taken(tiles: Positions, at: Ints) -> Ints:
    if isinstance(tiles, range):  # by arithmetic: of millions of tiles a few may be asked for
        return tiles.start + tiles.step * within(np.asarray(at, np.int64), len(tiles))
    return tiles[at]


def _equal(one: Positions | None, other: Positions | None) -> bool:
    if one is None or other is None:
        return one is other
    if isinstance(one, range) and isinstance(other, range):
        return one == other
    return np.array_equal(as_array(one), as_array(other))


def _joined(parts: list[Any]) -> Any:
    """Return slices and arrays of places one after the other; one slice where they follow each other."""
    if not parts:
        return slice(0, 0)
    if all(isinstance(part, slice) for part in parts):
        if all(one.stop == two.start for one, two in pairwise(parts)):
            return slice(parts[0].start, parts[-1].stop)
        parts = [np.arange(part.start, part.stop) for part in parts]
    found = np.concatenate([np.asarray(part, np.int64) for part in parts])
    if len(found) and bool((np.diff(found) == 1).all()):
        return slice(int(found[0]), int(found[-1]) + 1)
    return found


def _dated(values: Array, label: Any) -> npt.NDArray[np.bool_]:
    """Return which dates lie in a span, ends included, or are among those listed."""
    if isinstance(label, slice):
        low, high = _span(label.start)[0], _span(label.stop)[1]
        with np.errstate(invalid="ignore"):
            kept = ~np.isnat(values)
            kept &= True if low is None else values >= low
            kept &= True if high is None else values <= high
        return np.asarray(kept)
    kept = np.zeros(values.shape, np.bool_)
    for one in np.atleast_1d(np.asarray(label)).ravel():
        low, high = _span(one)
        kept |= (values >= low) & (values <= high)
    if not kept.any():
        known = values[~np.isnat(values)]
        there = f"there are {known.min()} to {known.max()}" if len(known) else "no slide has a date"
        raise KeyError(f"no slide of {label!r}; {there}")
    return kept


def _span(one: Any) -> tuple[Any, Any]:
    """Return the first and the last moment of a date, of which parts may be left out."""
    import pandas as pd

    if one is None:
        return None, None
    if isinstance(one, str):
        try:
            period = pd.Period(one)
        except ValueError as error:
            raise ConfigError.of(
                "`sel(date=…)`", got=repr(one), expected="a date as `2024`, `2024-05` or `2024-05-17`", do="Write so."
            ) from error
        return period.start_time.to_datetime64(), period.end_time.to_datetime64()
    moment = pd.Timestamp(one)
    moment = moment.tz_convert(None) if moment.tzinfo is not None else moment
    return moment.to_datetime64(), moment.to_datetime64()
