"""A cohort as xarray sees it: the values of its stores, by slide, label, date and box, and nothing else is read."""

from __future__ import annotations

import pickle
import shutil
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tests.madecohort import SLIDES, expected, make_store
from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.sinks.catalogue import Catalogue, Given, refresh, with_given
from tilestream.xr.cohort import cohort_dataset
from tilestream.xr.shelf import _layouts

GIVEN = {
    "a/one.svs": Given(label="tumour", extra={"date": "2024-05-02", "split": "train"}),
    "a/two.svs": Given(label="normal", extra={"date": "2024-06-30T23:00", "split": "test"}),
    "three ü.tif": Given(label="tumour", extra={"date": "no day", "split": "test", "mpp": "x"}),
}


def opened(folder):
    catalogue = with_given(refresh(folder, Catalogue()).catalogue, GIVEN)
    (digest,) = catalogue.sets
    return cohort_dataset(folder, catalogue, digest)


@pytest.fixture(scope="session")
def folder(made_cohort):
    return made_cohort


@pytest.fixture
def cohort(folder):
    return opened(folder)


@pytest.fixture(scope="session")
def values(folder):
    return expected(folder, "uni")


@pytest.fixture(scope="session")
def array(folder):
    return opened(folder)["uni"].variable


def owners(dataset):
    """Slides that the vectors are of, by their values."""
    return [int(value) // 10_000 for value in np.unique(np.asarray(dataset["uni"][:, 0]) // 10_000 * 10_000)]


def test_all_tiles_follow_each_other(cohort, folder):
    assert list(cohort.slide.values) == list(SLIDES)
    for name in ("uni", "uni_status", "status", "valid", "tissue", "entropy", "x", "y"):
        np.testing.assert_array_equal(cohort[name].values, expected(folder, name), strict=True)
    counts = cohort.n.values
    np.testing.assert_array_equal(cohort.slide_of_tile.values, np.repeat(np.arange(4), counts))
    assert cohort.sizes == {"tile": counts.sum(), "slide": 4, "feature_uni": 3}
    assert list(cohort.feature_uni.values) == ["mean R", "entropy", "µ"]


def test_vectors_of_slides_are_those_of_the_stores(cohort, folder):
    for place, key in enumerate(SLIDES):
        with xr.open_datatree(folder / f"{key}.features.zarr", engine="zarr") as tree:
            np.testing.assert_array_equal(cohort.uni_mean.values[place], tree["slide"]["uni"].values)
            np.testing.assert_array_equal(cohort.uni_std.values[place], tree["slide"]["uni_std"].values)
            assert cohort.n_ok.values[place] == tree["slide"]["n_ok"]


def test_what_manifests_say_stands_beside_the_slides(cohort):
    assert list(cohort.label.values) == ["tumour", "normal", "tumour", ""]
    assert list(cohort.split.values) == ["train", "test", "test", ""]
    assert list(cohort.manifest_mpp.values) == ["", "", "x", ""]  # `mpp` is what the image says
    assert np.isnat(cohort.date.values).tolist() == [False, False, True, False]
    assert cohort.date.values[3] == np.datetime64("2024-05-17T10:30:00")
    assert cohort.attrs["notes"] == ["`three ü.tif`: `no day` is no date"]


@pytest.mark.parametrize(
    ("labels", "slides"),
    [
        ({"slide": "a/two.svs"}, [1]),
        ({"slide": ["z.svs", "a/one.svs"]}, [3, 0]),
        ({"label": "tumour"}, [0, 2]),
        ({"label": ["normal", ""]}, [1, 3]),
        ({"label": "tumour", "split": "test"}, [2]),
        ({"date": "2024-05"}, [0, 3]),
        ({"date": "2024-06-30"}, [1]),
        ({"date": slice("2024-05-03", None)}, [1, 3]),
        ({"date": slice(None, np.datetime64("2024-05-02"))}, [0]),
        ({"date": slice("2024", "2024")}, [0, 1, 3]),
        ({"date": slice("2020", "2021")}, []),
    ],
)
def test_slides_are_selected_with_their_tiles(cohort, folder, labels, slides):
    found = cohort.sel(labels)
    assert np.atleast_1d(found.slide_number.values).tolist() == slides
    numbers = cohort.slide_of_tile.values
    rows = np.concatenate([np.flatnonzero(numbers == n) for n in slides] or [[]]).astype(int)
    np.testing.assert_array_equal(found.uni.values, expected(folder, "uni")[rows])
    np.testing.assert_array_equal(found.slide_of_tile.values, numbers[rows])
    assert found.uni_mean.shape[:-1] == (() if labels == {"slide": "a/two.svs"} else (len(slides),))


def test_boxes_take_tiles_whose_centre_is_inside(cohort, folder):
    x, y = expected(folder, "x"), expected(folder, "y")
    numbers = cohort.slide_of_tile.values
    found = cohort.sel(slide="a/one.svs", y=slice(64, 192), x=slice(0, 130))
    inside = (numbers == 0) & (y + 32 >= 64) & (y + 32 < 192) & (x + 32 < 130)
    assert 0 < inside.sum() < (numbers == 0).sum()
    np.testing.assert_array_equal(found.uni.values, expected(folder, "uni")[inside])
    # the same in steps, the same the other way round, and over all slides
    steps = cohort.sel(x=slice(0, 130)).sel(slide="a/one.svs").sel(y=slice(192, 64))
    np.testing.assert_array_equal(steps.uni.values, found.uni.values)
    everywhere = cohort.sel(x=slice(0, 130), y=slice(64, 192))
    np.testing.assert_array_equal(everywhere.uni.values, expected(folder, "uni")[(y + 32 >= 64) & (y < 160) & (x < 98)])


def test_neighbouring_boxes_share_no_tile_and_miss_none(cohort):
    edges = [0, 70, 128, 333, 10_000]
    found = [cohort.sel(x=slice(low, high)).sizes["tile"] for low, high in pairwise(edges)]
    assert sum(found) == cohort.sizes["tile"]
    assert min(found) > 0


def test_a_point_takes_the_tile_that_holds_it(cohort):
    found = cohort.sel(slide="three ü.tif", y=64, x=200.5)
    assert (found.x.item(), found.y.item()) == (192.0, 64.0)
    assert found.sizes["tile"] == 1
    with pytest.raises(KeyError, match="no tile of these slides holds y=5000, x=0"):
        cohort.sel(y=5000, x=0)


def test_boxes_in_a_crs_need_slides_of_one(tmp_path):
    for number, code in enumerate((32633, 32633, 32634)):
        affine = (10.0, 0.0, 5000.0 * number, 0.0, -10.0, 9000.0)
        make_store(tmp_path, f"{number}.tif", number=number, height=128, width=192, crs=f"EPSG:{code}", affine=affine)
    cohort = opened(tmp_path)
    with pytest.raises(ConfigError, match=r"got 2 different ones: EPSG:32633, EPSG:32634.*`.sel\(crs=…\)`"):
        cohort.sel(crs_x=slice(0, 1000))
    found = cohort.sel(crs="EPSG:32633", crs_x=slice(0, 5400), crs_y=slice(9000, 8300))
    assert found.slide_of_tile.values.tolist() == [0, 0, 0, 1]
    assert found.crs_x.values.tolist() == [320.0, 960.0, 1600.0, 5320.0]
    assert set(found.crs_y.values) == {8680.0}
    with pytest.raises(ConfigError, match="Give the edges of a box"):
        cohort.sel(crs="EPSG:32634", crs_x=5.0)


def test_positions_along_tiles_keep_the_index(cohort, folder):
    values = expected(folder, "uni")
    part = cohort.isel(tile=slice(10, 80, 3))
    np.testing.assert_array_equal(part.uni.values, values[10:80:3])
    chosen = part.sel(slide=["three ü.tif", "a/one.svs"])
    numbers = cohort.slide_of_tile.values[10:80:3]
    rows = np.concatenate([np.flatnonzero(numbers == 2), np.flatnonzero(numbers == 0)])
    np.testing.assert_array_equal(chosen.uni.values, values[10:80:3][rows])
    backwards = cohort.isel(tile=slice(None, None, -1)).sel(slide="a/one.svs", y=slice(64, 128))
    np.testing.assert_array_equal(
        backwards.uni.values, cohort.sel(slide="a/one.svs", y=slice(64, 128)).uni.values[::-1]
    )
    mask = (cohort.status == 0).values
    mask[::2] = False
    kept = mask & (cohort.slide_of_tile.values == 3)
    np.testing.assert_array_equal(cohort.isel(tile=mask).sel(slide="z.svs").uni.values, values[kept])
    assert cohort.isel(tile=5).uni.shape == (3,)


def test_slides_by_position_alone_are_refused(cohort):
    with pytest.raises(ConfigError, match="would leave the tiles of all of them"):
        cohort.isel(slide=0)
    assert cohort[["n", "uni_mean"]].isel(slide=[1, 2]).n.values.tolist() == cohort.n.values[1:3].tolist()
    assert cohort["uni_mean"].set_xindex("slide").to_pandas().index.tolist() == list(SLIDES)


def test_labels_that_are_not_there_are_errors_that_help(cohort):
    with pytest.raises(KeyError, match=r"no slide 'a/on.svs' in this cohort of 4 slides; there is a/one.svs"):
        cohort.sel(slide="a/on.svs")
    with pytest.raises(KeyError, match="no label 'x'"):
        cohort.sel(label="x")
    with pytest.raises(KeyError, match="no slide of '2019'; there are 2024-05-02"):
        cohort.sel(date="2019")
    for labels in ({"date": "soon"}, {"slide": slice("a", "b")}, {"x": [1, 2]}, {"x": slice(0, 9, 2)}):
        with pytest.raises(ConfigError):
            cohort.sel(labels)
    with pytest.raises(ConfigError, match="method"):
        cohort.sel(slide="a/one.svs", method="nearest")
    with pytest.raises(ConfigError, match="by which a cohort is selected"):
        cohort.rename(x="column")
    assert "other" in cohort.rename(uni="other")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda cohort: cohort.to_dataframe(), r"`to_dataframe`.*cohort\[\['n', 'n_ok'\]\].to_dataframe"),
        (lambda cohort: cohort.drop_sel(slide="z.svs"), "a row is a slide or a tile, not both"),
        (lambda cohort: xr.concat([cohort, cohort], "tile", data_vars="minimal"), r"`concat` along `tile`"),
        (lambda cohort: xr.align(cohort, cohort.isel(tile=slice(3)), join="inner"), r"`groupby`, `merge`"),
        (lambda cohort: xr.align(cohort, cohort.isel(tile=slice(3)), join="left"), r"`groupby`, `merge`"),
        (lambda cohort: cohort.groupby("slide_of_tile").mean(), r"Take a variable first: `cohort\[NAME\].groupby"),
    ],
)
def test_what_works_along_one_dimension_only_says_to_take_variables(cohort, ask, message):
    with pytest.raises(ConfigError, match=message):
        ask(cohort)


def test_what_those_errors_say_to_do_works(cohort):
    assert cohort[["n", "n_ok"]].to_dataframe().n.tolist() == cohort.n.values.tolist()
    assert len(cohort[["status", "tissue"]].to_dataframe()) == cohort.sizes["tile"]
    grouped = cohort["uni"].groupby(cohort["slide_of_tile"]).mean()
    np.testing.assert_allclose(grouped.values, cohort.uni_mean.values, rtol=1e-5)
    rows = cohort["uni"].reset_coords(drop=True)
    assert xr.concat([rows, rows], "tile").sizes["tile"] == 2 * cohort.sizes["tile"]


def test_nothing_else_is_read(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    cohort = opened(copy)
    for key in SLIDES:
        if key != "z.svs":
            shutil.rmtree(copy / f"{key}.features.zarr")
    shutil.rmtree(copy / "z.svs.features.zarr" / "tile" / "entropy")
    part = cohort.sel(slide="z.svs", y=slice(0, 128))
    assert owners(part) == [3]
    with pytest.raises(SourceError, match=r"nothing there any more.*Open the cohort again"):
        cohort.sel(slide="a/one.svs").uni.load()


@pytest.mark.parametrize("is_read_before", [False, True])
def test_another_store_in_its_place_is_not_read_in_silence(folder, tmp_path, is_read_before):
    copy = shutil.copytree(folder, tmp_path / "copy")
    cohort = opened(copy)
    if is_read_before:
        cohort.sel(slide="z.svs").uni.copy().load()
    shutil.rmtree(copy / "z.svs.features.zarr")
    shutil.copytree(copy / "a/one.svs.features.zarr", copy / "z.svs.features.zarr")
    metadata = copy / "z.svs.features.zarr" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"content": "', '"content": "0'))
    with pytest.raises(SourceError, match="another store than when the cohort was opened"):
        cohort.sel(slide="z.svs").uni.load()
    shutil.rmtree(copy / "z.svs.features.zarr")
    with pytest.raises(SourceError, match="nothing there any more"):
        cohort.sel(slide="z.svs").uni.load()


def test_rows_that_are_altered_are_damage(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    file = next((copy / "z.svs.features.zarr" / "tile" / "uni" / "c").rglob("0"))
    file = file if file.is_file() else file / "0"
    data = bytearray(file.read_bytes())
    data[12] ^= 0xFF
    file.write_bytes(bytes(data))
    with pytest.raises(DamagedError, match=r"rows of slide `z.svs` cannot be read: .*tile/uni/c/0/0"):
        opened(copy).sel(slide="z.svs").uni.load()


def test_it_is_small_pickles_and_goes_to_dask(cohort, folder):
    assert "..." in repr(cohort)
    cohort._repr_html_()
    again = pickle.loads(pickle.dumps(cohort))
    assert len(pickle.dumps(cohort)) < 50_000
    np.testing.assert_array_equal(again.sel(slide="z.svs").uni.values, cohort.sel(slide="z.svs").uni.values)
    chunked = cohort.chunk(tile=tuple(cohort.n.values.tolist()))
    assert chunked.uni.data.npartitions == 4
    assert chunked.uni.data.name == opened(folder).chunk(tile=tuple(cohort.n.values.tolist())).uni.data.name
    np.testing.assert_array_equal(chunked.sel(label="tumour").uni.values, cohort.sel(label="tumour").uni.values)
    np.testing.assert_allclose(chunked.uni.mean("tile").values, expected(folder, "uni").mean(axis=0), rtol=1e-6)


def test_only_stores_that_are_asked_for_are_opened(cohort):
    _layouts.cache_clear()
    cohort.sel(label="tumour").uni.load()
    assert _layouts.cache_info().currsize == 2


@given(data=st.data())
def test_any_index_gives_what_numpy_gives(values, array, data):
    n = len(values)
    edge = st.one_of(st.none(), st.integers(-n, n + 3))  # xarray takes one further below for the other end
    slices = st.builds(slice, edge, edge, st.sampled_from([None, 1, 2, 7, -1, -5]))
    rows = data.draw(st.one_of(slices, st.integers(-n, n - 1), st.lists(st.integers(-n, n - 1), max_size=9)))
    columns = data.draw(st.one_of(st.just(slice(None)), st.integers(0, 2), st.lists(st.integers(0, 2), max_size=3)))
    rows = np.array(rows, int) if isinstance(rows, list) else rows
    columns = np.array(columns, int) if isinstance(columns, list) else columns
    np.testing.assert_array_equal(array[rows, columns].values, values[rows][..., columns])
