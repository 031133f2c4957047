"""The accessor `.tiles`: which image an object shows, its plans, thumbnails, resolutions and card."""

from __future__ import annotations

import base64
import re

import dask.array as da
import imagecodecs
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import tilestream as ts
from tests.xr.test_lazy import made
from tilestream.errors import ConfigError
from tilestream.testing.slide import write_slide
from tilestream.types import Channel, Shape
from tilestream.xr.engine import TilestreamBackend as ENGINE


@pytest.fixture(scope="module", params=[None, {}], ids=["lazy", "dask"])
def tree(request, slide):
    return xr.open_datatree(slide, engine=ENGINE, chunks=request.param)


@pytest.fixture(scope="module")
def pyramid(slide):
    return ts.open_pyramid(slide)


PARTS = {
    "slice": lambda image: image.isel(y=slice(100, 400), x=slice(200, 900)),
    "labels": lambda image: image.sel(y=slice(50, 200), x=slice(100, 450)).isel(y=slice(1, -1)),
    "step": lambda image: image.isel(y=slice(100, 401, 2), x=slice(200, None, 3)),
    "backwards": lambda image: image.isel(y=slice(None, None, -1)),
    "channel": lambda image: image.sel(c="G"),
    "channels": lambda image: image.sel(c=["B", "R"]),
    "twice": lambda image: image.isel(y=slice(100, 900)).isel(y=slice(10, 20)),
}
CHANGES = {
    "sum": lambda image: image + 1,
    "same": lambda image: image.astype("uint8") | 0,
    "where": lambda image: image.where(image["y"] > 10, 0),
    "shift": lambda image: image.roll(y=5),
    "scatter": lambda image: image.isel(y=[3, 1, 2]),
    "labels": lambda image: image.assign_coords(y=np.arange(image.sizes["y"]) * 2.0),
    "loaded": lambda image: image.isel(y=slice(0, 50)).load(),
    "no names": lambda image: image.drop_vars("c"),
    "twice": lambda image: xr.concat([image.isel(y=slice(0, 9)), image.isel(y=slice(9, 30))], "y"),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_knows_the_image_it_is_of(tree, pyramid, name):
    part = PARTS[name](tree["0/image"])
    subject = part.tiles._subject
    assert subject.is_stored
    assert [level.shape for level in part.tiles.pyramid.levels] == [level.shape for level in pyramid.levels]
    names = [str(found) for found in np.atleast_1d(part["c"].values)]
    assert [channel.name for channel in part.tiles.pyramid.channels] == names
    rows, columns = np.sort(part["y"].values), np.sort(part["x"].values)
    box = subject.box
    assert ((box.y + 0.5) * 0.5, (box.y_stop - 0.5) * 0.5) == (rows[0], rows[-1])
    assert ((box.x + 0.5) * 0.5, (box.x_stop - 0.5) * 0.5) == (columns[0], columns[-1])


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_computed_with_is_an_image_of_its_own(tree, name):
    changed = CHANGES[name](tree["0/image"].isel(y=slice(0, 60), x=slice(0, 80)))
    subject = changed.tiles._subject
    assert not subject.is_stored
    picture = changed.tiles.thumbnail(1000)  # of its own pixels, at their own size
    np.testing.assert_array_equal(picture.values, changed.values)


def test_coordinates_of_another_image_do_not_lead_to_it(tree, tmp_path):
    other = xr.open_datatree(write_slide(tmp_path / "other.svs", Shape(y=500, x=500), seed=3), engine=ENGINE)["0/image"]
    image = tree["0/image"].isel(y=slice(0, 60), x=slice(0, 60))
    moved = image.assign_coords(other.isel(y=slice(90, 150), x=slice(90, 150)).coords)
    assert not moved.tiles._subject.is_stored
    np.testing.assert_array_equal(moved.tiles.thumbnail(60), image)


def test_no_edit_in_place_is_missed(slide):
    image = xr.open_dataset(slide, engine=ENGINE)["image"].isel(y=slice(0, 40), x=slice(0, 40))
    assert image.tiles._subject.is_stored
    image.load()
    image[:] = 7
    assert (image.tiles.thumbnail(40) == 7).all()
    other = xr.open_dataset(slide, engine=ENGINE)["image"].isel(y=slice(0, 40), x=slice(0, 40))
    other += 1
    assert not other.tiles._subject.is_stored


@pytest.mark.parametrize("name", ["slice", "channel", "step"])
def test_thumbnails_have_the_place_of_what_they_show(tree, name):
    part = PARTS[name](tree["0/image"])
    picture = part.tiles.thumbnail(64)
    assert max(picture.sizes["y"], picture.sizes["x"]) == 64
    assert picture.dims == ("c", "y", "x")
    for dim in ("y", "x"):
        step = picture.xindexes[dim].grid.step
        low, high = np.sort(part[dim].values)[[0, -1]]
        assert picture[dim].values[0] - step / 2 == pytest.approx(
            low - 0.25, abs=2.0
        )  # a pixel of the level it is from
        assert abs(picture[dim].values[-1] + step / 2 - high) <= step + 2.0
    whole = tree["0/image"].sel(c=np.atleast_1d(part["c"].values))
    expected = whole.sel(y=slice(*part["y"].values[[0, -1]]), x=slice(*part["x"].values[[0, -1]])).mean()
    assert float(picture.mean()) == pytest.approx(float(expected), abs=2)


def test_thumbnail_of_a_tree_and_of_a_scene_with_nodata(tree, scene):
    assert tree.tiles.thumbnail(100).sizes["x"] == 100
    assert tree["1"].tiles.thumbnail(100).equals(tree["1/image"].tiles.thumbnail(100))
    assert tree["1"].to_dataset().tiles.thumbnail(50).sizes["x"] == 50
    trees = (xr.open_datatree(scene, engine=ENGINE, mask_and_scale=on) for on in (True, False))
    decoded, raw = (found.tiles.thumbnail(90) for found in trees)
    np.testing.assert_allclose(decoded, np.where(raw == 0, np.nan, raw * 1e-4), rtol=1e-6)
    assert np.isnan(decoded).any()
    assert decoded["y"].attrs["units"] == "metre"
    assert decoded["y"].values[0] > decoded["y"].values[-1]
    assert "spatial_ref" in decoded.coords


def test_thumbnail_of_a_damaged_image_names_the_block(shared_data):
    image = xr.open_datatree(shared_data / "broken/corrupt.tif", engine=ENGINE, mask_and_scale=False)["0/image"]
    picture = image.tiles.thumbnail(max(image.shape))
    assert all("of level 0" in reason for reason in picture.attrs["damage"])
    assert "damaged" in image.isel(y=slice(-200, None), x=slice(-200, None)).tiles._repr_html_()


def test_another_order_of_axes_is_the_same_image(tree):
    turned = tree["0/image"].isel(y=slice(0, 50)).transpose("y", "x", "c")
    np.testing.assert_array_equal(turned.tiles.thumbnail(2000), tree["0/image"].isel(y=slice(0, 50)))
    assert turned.chunks is None or turned.tiles._subject.is_stored


@pytest.mark.parametrize("mpp", [1.0, 1.3, 2.0, 5.0])
@pytest.mark.parametrize("name", ["slice", "step", "channel"])
def test_another_resolution_of_a_part(tree, pyramid, name, mpp):
    part = PARTS[name](tree["0/image"])
    found = part.tiles.at(mpp=mpp)
    assert (found.chunks is None) == (part.chunks is None)
    step = found.xindexes["y"].grid.step
    assert step == pytest.approx(mpp, rel=0.05)
    assert found.attrs["mpp_yx"][0] == pytest.approx(step)
    for dim in ("y", "x"):
        low, high = np.sort(part[dim].values)[[0, -1]] + [-0.25, 0.25]
        assert low <= found[dim].values[0] < low + step
        assert high - step <= found[dim].values[-1] <= high + step / 2  # the image's last pixel reaches beyond it
    # the same pixels as a plan at that resolution sees
    plan = ts.plan_tiles(pyramid, tile_px=64, mpp=mpp, where="all")
    whole = tree["0/image"].tiles.at(mpp=mpp)
    for batch in ts.stream_tiles(pyramid, plan, batch=8):
        unit_y, unit_x = divmod(int(batch.rows[0]), plan.grid.shape.x)
        tile = whole.isel(y=slice(unit_y * 64, unit_y * 64 + 64), x=slice(unit_x * 64, unit_x * 64 + 64)).values
        np.testing.assert_array_equal(batch.pixels[0][:, : tile.shape[1], : tile.shape[2]], tile)
        break
    assert found.tiles._subject.is_stored
    assert found.tiles.at(mpp=mpp).equals(found)


def test_resolutions_that_cannot_be_had(tree, scene):
    with pytest.raises(ConfigError, match="no resolution"):
        tree.tiles.at()
    with pytest.raises(ConfigError, match="one of them"):
        tree.tiles.at(mpp=1, gsd_m=1)
    with pytest.raises(ConfigError, match="at least"):
        tree.tiles.at(mpp=0.01)
    assert xr.open_datatree(scene, engine=ENGINE).tiles.at(gsd_m=40).sizes["x"] == 225


@given(st.integers(1, 1099), st.integers(1, 1299), st.sampled_from([None, 1.0, 1.7]))
def test_parts_share_no_tile_and_leave_none(slide, y, x, mpp):
    image = xr.open_dataset(slide, engine=ENGINE)["image"]
    options = {"tile_px": 64, "where": "all", "mpp": mpp}
    whole = image.tiles.plan(**options)
    quarters = [
        image.isel(y=rows, x=columns).tiles.plan(**options)
        for rows in (slice(None, y), slice(y, None))
        for columns in (slice(None, x), slice(x, None))
    ]
    # a tile at the edge whose centre lies outside the image is in none of its parts
    inside = np.zeros(whole.grid.shape.yx, int)
    for quarter in quarters:
        inside += quarter.wanted
    assert inside.max() <= 1
    assert (inside[:-1, :-1] == 1).all()
    assert len({plan.digest for plan in [whole, *quarters]}) >= 2


def test_a_plan_of_a_part_streams_the_tiles_of_that_part(tree, pyramid):
    part = tree["0/image"].sel(y=slice(100, 300), x=slice(200, 450))
    plan = part.tiles.plan(tile_px=100, where="all")
    assert len(plan) == 4 * 5
    for batch in ts.stream_tiles(part.tiles.pyramid, plan, batch=20):
        np.testing.assert_array_equal(batch.pixels[0], pyramid.read(ts.Box(y=200, x=400, height=100, width=100)))
    assert 0 < len(tree.tiles.plan(tile_px=64)) < len(tree.tiles.plan(tile_px=64, where="all"))


def test_a_plan_of_a_coarse_level_is_at_its_resolution(tree, scene):
    plan = tree["1/image"].tiles.plan(tile_px=64, where="all")
    assert plan.level.stored == 1
    assert plan.mpp_yx == (2.0, 2.0)
    assert tree["0/image"].tiles.at(mpp=1.0).tiles.plan(where="all").mpp_yx == (1.0, 1.0)
    assert tree["1/image"].tiles.plan(mpp=0.5, where="all").level.stored == 0
    with pytest.raises(ConfigError, match="Plan on level 0"):
        xr.open_datatree(scene, engine=ENGINE)["1/image"].tiles.plan(where="all")


def test_images_from_elsewhere():
    pixels = da.random.default_rng(0).integers(0, 255, (3, 60, 80), dtype="uint8", chunks=30)
    image = xr.DataArray(pixels, dims=("band", "y", "x"), name="rgb")
    assert image.tiles.thumbnail(40).sizes == {"c": 3, "y": 30, "x": 40}
    assert len(image.tiles.plan(tile_px=20, where="all")) == 12
    tree = xr.DataTree.from_dict({"/0": xr.Dataset({"image": image}), "/1": xr.Dataset({"image": image[:, ::2, ::2]})})
    assert tree.tiles.pyramid.levels[0].shape.yx == (60, 80)
    bands = xr.Dataset({"red": image[0], "nir": image[1]})
    assert [channel.name for channel in bands.tiles.pyramid.channels] == ["red", "nir"]
    for wrong in (xr.DataTree(), xr.DataTree.from_dict({"/0": xr.Dataset({"a": ("t", [1])})})):
        with pytest.raises(ConfigError, match="levels `0`, `1`"):
            wrong.tiles.thumbnail()
    with pytest.raises(ConfigError):
        xr.Dataset({"a": ("t", [1])}).tiles.plan()


def picture_in(html):
    found = re.search(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return None if found is None else imagecodecs.jpeg8_decode(base64.b64decode(found[1]))


def test_the_card_shows_the_part(tree):
    html = tree.tiles._repr_html_()
    assert "aperio-svs" in html
    assert "1,300 × 1,100 px" in html
    assert "0.65 × 0.55 mm" in html
    assert picture_in(html).shape == (271, 320, 3)
    part = tree["0/image"].isel(y=slice(0, 100), x=slice(0, 100)).tiles
    assert "rows 0 to 100, columns 0 to 100 of 1,300 × 1,100 px" in part._repr_html_()
    assert "100 × 100 px" in repr(part)
    assert "made.svs" in repr(part)
    assert "level" in html
    assert html.count('class="here"') == 1


def test_the_card_escapes_and_never_computes_what_was_not_asked_for():
    asked = []

    def chunk(block):
        asked.append(1)
        return block

    names = [f"<b>{number}" for number in range(12)]
    pixels = da.zeros((12, 30, 30), dtype="uint8", chunks=10)
    pixels = pixels.map_blocks(chunk, dtype="uint8", meta=np.zeros((0, 0, 0), "uint8"))
    image = xr.DataArray(pixels, dims=("c", "y", "x"), coords={"c": names})
    html = image.tiles._repr_html_()
    assert "<b>0" not in html
    assert "&lt;b&gt;0" in html
    assert "and 4 more" in html
    assert picture_in(html) is None
    assert asked == []


def test_a_large_image_without_coarse_levels_shows_no_picture_unasked(monkeypatch):
    from tilestream.xr import card

    pyramid = made(names=tuple(Channel(name=name) for name in "RGB"))
    html = ts.to_datatree(pyramid).tiles._repr_html_()
    assert picture_in(html).shape == (90, 130, 3)
    monkeypatch.setattr(card, "MOST_STORED_PX", 1000)
    pyramid.source.seen.clear()
    assert "no level is coarse enough" in ts.to_datatree(pyramid).tiles._repr_html_()
    assert pyramid.source.seen == []
