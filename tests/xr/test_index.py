"""The index of pixel centres against a plain pandas index of the same coordinates."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tilestream.errors import ConfigError
from tilestream.xr import PixelGridIndex
from tilestream.xr.grid import PixelGrid, fit_grid

STEPS = (0.499, -10.0, 1.0, -0.0001, 30.0, 0.2281750559028887)


@st.composite
def grids(draw, min_size=1):
    """Grids cut out of a lattice, ascending and descending, with steps."""
    pitch, corner = draw(st.sampled_from(STEPS)), draw(st.sampled_from((0.0, 499980.0, -180.0)))
    step = draw(st.sampled_from((1, 2, 5, -1, -3)))
    start, size = draw(st.integers(0, 50)), draw(st.integers(min_size, 40))
    return PixelGrid(corner=corner, pitch=pitch, cells=range(start, start + size * step, step))


def both(grid):
    """The same array with our index and with xarray's own."""
    data = np.arange(grid.size)
    ours = xr.DataArray(data, dims="y", coords=xr.Coordinates.from_xindex(PixelGridIndex(grid, dim="y")))
    return ours, xr.DataArray(data, dims="y", coords={"y": grid.values()})


def same(ours, pandas):
    np.testing.assert_array_equal(ours.values, pandas.values)
    np.testing.assert_array_equal(ours["y"].values, pandas["y"].values)


def label_near(grid, at, share):
    return grid.start + (at + share) * grid.step


@given(grids(), st.data())
def test_one_label(grid, data):
    ours, pandas = both(grid)
    at = data.draw(st.integers(0, grid.size - 1))
    label = pandas["y"].values[at]
    assert ours.sel(y=label) == pandas.sel(y=label) == at
    assert ours.sel(y=label)["y"] == label
    with pytest.raises(KeyError, match="not all values found in index 'y'"):
        ours.sel(y=label_near(grid, at, 0.3))
    for share in (-1e-9, 1e-9):  # a coordinate that was computed otherwise is the same pixel
        assert ours.sel(y=label_near(grid, at, share)) == at


@given(grids(), st.data(), st.sampled_from(["nearest", "pad", "ffill", "backfill", "bfill"]), st.booleans())
def test_labels_with_a_method(grid, data, method, bounded):
    assume(grid.size > 1 or grid.step > 0)  # one row is ascending to pandas, whatever it was cut from
    ours, pandas = both(grid)
    ats = data.draw(st.lists(st.integers(-3, grid.size + 3), min_size=1, max_size=6))
    shares = data.draw(
        st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.45, -0.2, -0.49]), min_size=len(ats), max_size=len(ats))
    )
    labels = np.array([label_near(grid, at, share) for at, share in zip(ats, shares, strict=True)])
    inside = [at for at, share in zip(ats, shares, strict=True) if share == 0.0 and 0 <= at < grid.size]
    labels[[i for i, s in enumerate(shares) if s == 0.0 and 0 <= ats[i] < grid.size]] = grid.values(inside)
    tolerance = abs(grid.step) * 0.4 if bounded else None
    index = pd.Index(grid.values())
    expected = index.get_indexer(labels, method=method, tolerance=tolerance)
    np.testing.assert_array_equal(grid.find(labels, method=method, tolerance=tolerance), expected)
    if (expected >= 0).all():
        same(
            ours.sel(y=labels, method=method, tolerance=tolerance),
            pandas.sel(y=labels, method=method, tolerance=tolerance),
        )
    else:
        with pytest.raises(KeyError):
            ours.sel(y=labels, method=method, tolerance=tolerance)


@given(grids(), st.data())
@example(PixelGrid(corner=0.0, pitch=1.0, cells=range(4)), None)
def test_slices(grid, data):
    """Both ends included, on and between centres, the wrong way round, open, far outside, with steps."""
    ours, pandas = both(grid)

    def bound():
        if data is None or data.draw(st.booleans()):
            return None
        at = data.draw(st.integers(-3, grid.size + 3))
        share = data.draw(st.sampled_from([0.0, 0.3, 0.5]))
        return grid.values(at).item() if share == 0.0 else label_near(grid, at, share)

    start, stop = bound(), bound()
    step = None if data is None else data.draw(st.sampled_from([None, 1, 2, 7, -1, -2]))
    assume(grid.size > 1 or grid.step > 0)
    same(ours.sel(y=slice(start, stop, step)), pandas.sel(y=slice(start, stop, step)))
    assert isinstance(ours.sel(y=slice(start, stop, step)).xindexes["y"], PixelGridIndex)


def part_of(data, size):
    part = data.draw(st.slices(size))
    return data.draw(
        st.sampled_from(["slice", "array", "mask"]).flatmap(
            lambda kind: {
                "slice": st.just(part),
                "array": st.lists(st.integers(-size, size - 1), max_size=5).map(lambda at: np.array(at, int)),
                "mask": st.lists(st.booleans(), min_size=size, max_size=size).map(np.array),
            }[kind]
        )
    )


@given(grids(), st.data())
def test_positions_twice(grid, data):
    """Slices of slices keep coordinates to the bit; arrays of positions fall back to xarray's own index."""
    ours, pandas = both(grid)
    for _ in range(2):
        if not ours.size:
            break
        part = part_of(data, ours.size)
        ours, pandas = ours.isel(y=part), pandas.isel(y=part)
        same(ours, pandas)
        if isinstance(part, slice) and isinstance(ours.xindexes["y"], PixelGridIndex) and ours.size:
            assert ours.sel(y=ours["y"].values[-1]) == ours.values[-1]


def test_one_position_leaves_a_scalar():
    ours, _ = both(fit_grid([1.0, 2.0, 3.0]))
    one = ours.isel(y=1)
    assert one["y"].item() == 2.0
    assert "y" not in one.xindexes
    points = ours.isel(y=xr.DataArray([2, 0], dims="point"))
    np.testing.assert_array_equal(points["y"], [3.0, 1.0])
    grid2d = ours.sel(y=xr.DataArray([[1.0, 3.0], [2.0, 2.0]], dims=("a", "b")))
    np.testing.assert_array_equal(grid2d, [[0, 2], [1, 1]])
    labelled = ours.sel(y=xr.DataArray([1.0, 3.0], dims="point", coords={"point": ["p", "q"]}))
    assert list(labelled["point"].values) == ["p", "q"]
    np.testing.assert_array_equal(ours.sel(y=np.array([True, False, True])), [0, 2])


@pytest.mark.parametrize("how", ["inner", "outer", "left", "right"])
@given(grids(), st.data())
def test_alignment(how, grid, data):
    """Parts of one image align as pandas aligns them; their union may be none that is evenly spaced."""
    ours, pandas = both(grid)
    first, second = data.draw(st.slices(grid.size)), data.draw(st.slices(grid.size))
    parts = ours.isel(y=first).astype(float), ours.isel(y=second).astype(float)
    expected = xr.align(pandas.isel(y=first).astype(float), pandas.isel(y=second).astype(float), join=how)
    cells = [set(part.xindexes["y"].grid.cells) for part in parts]
    steps = {abs(part.xindexes["y"].grid.cells.step) for part in parts}
    union = sorted(cells[0] | cells[1])
    is_run = len(steps) == 1 and set(np.diff(union)) <= steps
    if how == "outer" and not is_run and not (cells[0] <= cells[1] or cells[1] <= cells[0]):
        with pytest.raises(ConfigError, match="gap or interleave"):
            xr.align(*parts, join=how)
        return
    found = xr.align(*parts, join=how)
    for one, two in zip(found, expected, strict=True):
        order, wanted = np.argsort(one["y"].values), np.argsort(two["y"].values)
        np.testing.assert_array_equal(one["y"].values[order], two["y"].values[wanted])
        np.testing.assert_array_equal(one.values[order], two.values[wanted])


@given(grids(min_size=2), st.floats(-1, 1))
def test_grids_written_apart_are_the_same_pixels(grid, noise):
    """Coordinates that were stored and read again, or computed from another corner, differ in their last digits."""
    near = PixelGridIndex(fit_grid(grid.values() + noise * 1e-4 * abs(grid.step)), dim="y")
    index = PixelGridIndex(grid, dim="y")
    assert index.equals(near)
    assert index.join(near).equals(index)
    assert index.join(near, "outer").equals(index)
    np.testing.assert_array_equal(index.reindex_like(near)["y"], np.arange(grid.size))
    far = PixelGridIndex(fit_grid(grid.values() + 0.3 * grid.step), dim="y")
    assert not index.equals(far)
    assert (index.reindex_like(far)["y"] == -1).all()
    with pytest.raises(ConfigError, match=r"alignment of pixels.*lie on each other.*tiles\.at"):
        index.join(far)


def test_grids_of_other_pixels():
    fine = PixelGridIndex(PixelGrid(corner=0.0, pitch=1.0, cells=range(12)), dim="y")
    threefold = PixelGridIndex(PixelGrid(corner=0.0, pitch=3.0, cells=range(4)), dim="y")
    for index, other in ((fine, threefold), (threefold, fine)):
        assert list(index.join(other).grid.values()) == [1.5, 4.5, 7.5, 10.5]  # every third centre is one of both
    twofold = PixelGridIndex(PixelGrid(corner=0.0, pitch=2.0, cells=range(6)), dim="y")
    with pytest.raises(ConfigError, match="pixels of one size"):
        fine.join(twofold)
    upwards = PixelGridIndex(PixelGrid(corner=12.0, pitch=-1.0, cells=range(12)), dim="y")
    assert list(fine.join(upwards).grid.values()) == list(fine.grid.values())
    assert not fine.equals(upwards)
    np.testing.assert_array_equal(fine.reindex_like(upwards)["y"], np.arange(12)[::-1])
    apart = PixelGridIndex(PixelGrid(corner=0.0, pitch=1.0, cells=range(20, 30)), dim="y")
    assert fine.join(apart).grid.size == 0


@given(grids(min_size=3), st.data())
def test_concat(grid, data):
    ours, pandas = both(grid)
    cut = data.draw(st.integers(1, grid.size - 1))
    skip = data.draw(st.integers(0, 1))
    parts = slice(0, cut), slice(cut + skip, None)
    found = xr.concat([ours.isel(y=part) for part in parts], "y")
    same(found, xr.concat([pandas.isel(y=part) for part in parts], "y"))
    is_grid = isinstance(found.xindexes["y"], PixelGridIndex)
    assert is_grid == (not skip or cut + skip == grid.size)


@given(grids(min_size=2), st.integers(-50, 50))
def test_roll_and_groups(grid, shift):
    ours, pandas = both(grid)
    same(ours.roll(y=shift, roll_coords=True), pandas.roll(y=shift, roll_coords=True))
    same(ours.roll(y=shift), pandas.roll(y=shift))
    same(ours.sortby("y"), pandas.sortby("y"))
    assert pickle.loads(pickle.dumps(ours)).identical(ours)


def test_names_copies_and_size():
    index = PixelGridIndex(PixelGrid(corner=0.0, pitch=0.25, cells=range(10**9)), dim="y")
    assert len(pickle.dumps(index)) < 500
    huge = xr.Dataset(coords=xr.Coordinates.from_xindex(index))
    assert huge.isel(y=slice(10**8, None, 1000)).sel(y=slice(2.5e7, 3e7)).sizes["y"] == 20_001 - 1
    assert "PixelGridIndex (from 0.125 by 0.25, 1000000000 pixels)" in repr(huge)
    assert huge.sel(y=1e7, method="nearest")["y"].item() == 1e7 + 0.125
    renamed = huge.rename(y="row")
    assert renamed.sel(row=slice(0, 1)).sizes["row"] == 4
    assert renamed.rename(row="lat").xindexes["lat"].dim == "lat"
    assert huge.copy(deep=True).xindexes["y"].equals(index)
    assert index.isel({"y": slice(0, 3)}).to_pandas_index().equals(pd.Index([0.125, 0.375, 0.625], name="y"))
    assert huge.isel(y=slice(0, 4)).drop_indexes("y").set_xindex("y").xindexes["y"].to_pandas_index().size == 4


def test_what_is_refused():
    ours, _ = both(fit_grid(np.arange(5.0)))
    with pytest.raises(NotImplementedError, match="slice objects"):
        ours.sel(y=slice(0, 1), method="nearest")
    with pytest.raises(ValueError, match="expected one of"):
        ours.sel(y=1.2, method="cubic")
    with pytest.raises(ValueError, match="nearest"):
        ours.sel(y=1.2, tolerance=0.1)
    for label in ("a", slice("a", None), slice(np.nan, None), np.nan):
        with pytest.raises(KeyError):
            ours.sel(y=label)
    with pytest.raises(KeyError):
        ours.sel(y=np.nan, method="nearest")
    with pytest.raises(KeyError, match=r"got 9\.0.*Widen `tolerance`"):
        ours.sel(y=9.0, method="nearest", tolerance=1)
    assert ours.sel(y=np.inf, method="nearest") == 4
    for values in ([1.0, 2.0, 4.0], [1.0], [3.0, 3.0]):
        with pytest.raises(ConfigError, match="evenly spaced"):
            fit_grid(values)
    plain = xr.DataArray(np.arange(4), dims="y", coords={"y": [0.5, 1.5, 2.5, 3.5]}).drop_indexes("y")
    indexed = plain.set_xindex("y", PixelGridIndex)
    assert indexed.sel(y=slice(1, 3)).size == 2
    two = xr.Dataset(coords={"a": ("y", [1.0, 2.0]), "b": ("y", [1.0, 2.0])})
    with pytest.raises(ConfigError, match="one coordinate"):
        two.set_xindex(["a", "b"], PixelGridIndex)
