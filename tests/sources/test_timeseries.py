"""Series of dates: one input with a named axis where it is one array, with the date of the chosen step."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from tilestream.errors import ConfigError
from tilestream.pyramid.pyramid import open_pyramid

STEPS = 10


def cube():
    y, x = 4_000_000.0 - 10 * np.arange(40) - 5, 500_000.0 + 10 * np.arange(50) + 5
    days = np.datetime64("2020-01-01T10:30:00", "ns") + np.timedelta64(16, "D") * np.arange(STEPS)
    pixels = np.random.default_rng(1).integers(1, 9999, (STEPS, 2, 40, 50), np.uint16)
    coords = {"time": days, "band": ["red", "nir"], "y": y, "x": x}
    return xr.DataArray(pixels, dims=("time", "band", "y", "x"), coords=coords, attrs={"crs": "EPSG:32629"})


def test_a_cube_opens_with_its_axis_named_and_its_dates():
    data = cube()
    pyramid = open_pyramid(data)
    assert dict(pyramid.axes) == {"time": STEPS, "c": 2, "y": 40, "x": 50}
    assert (pyramid.crs, pyramid.affine) == ("EPSG:32629", (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0))
    assert any("axis time has 10 entries" in note for note in pyramid.info.notes)
    dates = [pyramid.isel(time=step).info.datetime for step in (0, 1, 9)]
    assert dates == ["2020-01-01T10:30:00Z", "2020-01-17T10:30:00Z", "2020-05-24T10:30:00Z"]
    for step in range(STEPS):
        chosen = pyramid.isel(time=step)
        np.testing.assert_array_equal(chosen.read(chosen.levels[0].box), data.values[step])
    with pytest.raises(ConfigError, match="0 to 9"):
        pyramid.isel(time=10)


def test_the_series_of_the_collection(shared_data):
    path = shared_data / "zarr" / "skimage-2dt.image.ome.zarr"
    pyramid = open_pyramid(path)
    assert pyramid.axes["t"] == STEPS
    assert any("axis t has 10 entries" in note for note in pyramid.info.notes)
    first, last = open_pyramid(f"{path}#t=0"), open_pyramid(f"{path}#t=9")
    np.testing.assert_array_equal(pyramid.read(pyramid.levels[0].box), first.read(first.levels[0].box))
    assert (first.read(first.levels[0].box) != last.read(last.levels[0].box)).any()
    assert last.info.selection == {"t": 9}
