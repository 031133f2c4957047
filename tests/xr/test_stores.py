"""Trees of stores that tilestream writes, and of images on servers."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import tilestream as ts
from tilestream.xr.engine import TilestreamBackend as ENGINE
from tilestream.xr.guess import is_ours


@pytest.mark.parametrize("profile", ["archive", "portable"])
def test_a_slide_and_its_store_are_the_same_tree(slide, tmp_path, profile):
    store = tmp_path / "slide.zarr"
    ts.build_pyramid(slide, store, profile=profile)
    assert is_ours(store)
    source, built = (xr.open_datatree(path, engine=ENGINE) for path in (slide, store))
    np.testing.assert_array_equal(built["0/image"].values, source["0/image"].values)
    xr.testing.assert_equal(built["0"].coords.to_dataset(), source["0"].coords.to_dataset())
    assert built.attrs["mpp"] == source.attrs["mpp"]
    # levels of both lie on each other: an alignment by coordinates finds the same pixels
    both = xr.align(built["0/image"], source["0/image"], join="exact")
    assert both[0].sizes == source["0/image"].sizes
    # another tree that stock xarray opened shows itself too, from its finest level
    stock = xr.open_datatree(store, engine="zarr", consolidated=False)
    np.testing.assert_array_equal(stock.tiles.thumbnail(64), source["0/image"].load().tiles.thumbnail(64))


def test_a_scene_and_its_store_are_the_same_tree(scene, tmp_path):
    store = tmp_path / "scene.zarr"
    ts.build_pyramid(scene, store, profile="portable")
    source, built = (xr.open_datatree(path, engine=ENGINE) for path in (scene, store))
    np.testing.assert_array_equal(built["0/image"], source["0/image"])
    np.testing.assert_array_equal(built["0"]["y"], source["0"]["y"])
    assert built["0"]["spatial_ref"].attrs == source["0"]["spatial_ref"].attrs
    assert built["0/image"].encoding["_FillValue"] == 0


def test_parts_of_a_slide_on_a_web_server(http_server, slide):
    (http_server.root / "a.svs").write_bytes(slide.read_bytes())
    tree = xr.open_datatree(f"{http_server.url}/a.svs", engine=ENGINE, chunks={})
    expected = xr.open_dataset(slide, engine=ENGINE)["image"]
    np.testing.assert_array_equal(
        tree["0/image"].isel(y=slice(300, 500)).compute(scheduler="threads"), expected.isel(y=slice(300, 500))
    )


def test_a_slide_on_object_storage(s3, slide):
    url = s3.upload(slide, "a.svs")
    tree = xr.open_datatree(url, engine=ENGINE, storage_options=s3.options)
    part = tree["0/image"].sel(y=slice(100, 110), x=slice(50, 60))
    expected = xr.open_dataset(slide, engine=ENGINE)["image"].sel(y=slice(100, 110), x=slice(50, 60))
    np.testing.assert_array_equal(part, expected)
