"""Pyramids: what stands in a store is what the source decodes to, at every level, in every profile."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr
import zarr

import tilestream as ts
from tests.sinks.build import tree_bytes
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, OutputError
from tilestream.kernels import mip
from tilestream.pipelines.ingest import IngestConfig, build_pyramid, ingest_cohort, run_ingest
from tilestream.pipelines.ingest_size import project_store
from tilestream.sinks.layout import made_layout

FILES = (
    "slides/CMU-1-Small-Region.svs",
    "slides/OS-1-detail.ome.tif",
    "slides/camelyon-jpeg2000.dcm",
    "slides/dicom-cmu-1-small-region",
    "slides/dicom-annotated/sm_image_control.dcm",
    "satellite/cogeo.tif",
    "satellite/RGB.byte.tif",
    "satellite/cog_nodata.tif",
    "satellite/cog_nodata_nan.tif",
    "satellite/cog_scale_epsg4326.tif",
    "satellite/pix4d_alpha_nodata.tif",
    "satellite/colorado_15cm_mask.tif",
    "satellite/S2A_29RKH_20200219_0_L2A",
    "satellite/S2_L2A_19UDP_20170729_TCI.jp2",
    "zarr/exemplar-001.crop.image.ome.zarr",
    "zarr/skimage-2dt.segmentation.ome.zarr",
    "zarr/blobs_multiscale_image.v05.ome.zarr",
    "photos/kodim01.png",
)


MORE = (
    "slides/OS-2-ndpi.ome.tif",
    "slides/test3-DAPI-2-387.ndpi",
    "slides/labelled-tiles/tcga-red-pen.png",
    "satellite/Copernicus_DSM_COG_10_N00_00_E006_00_DEM.tif",
    "satellite/LC08_L1TP_016037_20170813_20170814_01_RT_B8.TIF",
    "satellite/cog_world.tif",
    "zarr/exemplar-001.crop.segmentations.ome.zarr",
    "zarr/skimage-2dt.image.ome.zarr",
    "photos/bluemarble_5400x2700.jpg",
    "broken/total-pages-zero.tif",
    "broken/corrupt.tif",
)
"""Stored in the profile of their choice alone."""
STRIP_PX, LARGE_PX = 2048, 1 << 28


def _same(one, two):
    """Compare level 0 in strips; of the largest, 648 million pixels, the first, the middle and the last."""
    whole = one.levels[0].shape
    assert two.levels[0].shape == whole
    strips = range(0, whole.y, STRIP_PX)
    if whole.y * whole.x > LARGE_PX:
        strips = strips[:: len(strips) // 2]
        assert strips[-1] + STRIP_PX >= whole.y
    for y in strips:
        box = ts.Box(y=y, x=0, height=min(STRIP_PX, whole.y - y), width=whole.x)
        a, b = (pyramid.read_region(box) for pyramid in (one, two))
        np.testing.assert_array_equal(a.pixels, b.pixels)
        np.testing.assert_array_equal(a.valid, b.valid)


@pytest.mark.parametrize(
    ("name", "profile"),
    [*((name, profile) for name in FILES for profile in (None, "portable")), *((name, None) for name in MORE)],
)
def test_level_0_is_what_the_source_decodes_to(shared_data, tmp_path, name, profile):
    source = ts.open_pyramid(str(shared_data / name))
    stored = build_pyramid(shared_data / name, tmp_path / "x.zarr", profile=profile)
    _same(source, stored)
    assert stored.mpp == source.mpp
    assert stored.crs == source.crs
    assert [channel.name for channel in stored.channels] == [channel.name for channel in source.channels]


def test_a_tile_that_cannot_be_decoded_is_named_left_out_and_marked(shared_data, tmp_path):
    for profile in ("archive", "portable"):
        root = tmp_path / profile / "x.zarr"
        stored = build_pyramid(shared_data / "broken" / "corrupt.tif", root, profile=profile)
        record = json.loads((root / "zarr.json").read_bytes())["attributes"]["tilestream"]
        assert [reason.partition(":")[0] for reason in record["damage"]] == ["block y=1 x=1 of level 0"]
        assert any("block y=1 x=1 of level 0" in note for note in stored.info.notes)
        valid = stored.read_region(stored.levels[0].box).valid
        assert not valid[512:, 512:].any()
        assert valid[:512].all()
        assert valid[:, :512].all()


def test_the_peers_open_it(made):
    """What users have: the tools of OME-Zarr, which look for levels by its metadata."""
    reader = pytest.importorskip("ome_zarr.reader")
    ngff_zarr = pytest.importorskip("ngff_zarr")
    from ome_zarr.io import parse_url

    root = str(made / "out" / "x.zarr")
    (node,) = reader.Reader(parse_url(root))()
    shapes = [(3, -(-5003 // 2**n), -(-4711 // 2**n)) for n in range(6)]
    assert [array.shape for array in node.data] == shapes
    scales = [level[0]["scale"] for level in node.metadata["coordinateTransformations"]]
    assert scales == [[1.0, 2.0**n, 2.0**n] for n in range(6)]
    images = ngff_zarr.from_ngff_zarr(root).images
    assert [image.data.shape for image in images] == shapes
    assert images[1].translation["y"] == 0.5


@pytest.fixture(scope="module")
def picture():
    """Smooth and noisy, of odd sizes, with a corner of white glass; seven levels."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:5003, :4711]
    base = 120 + 60 * np.sin(y / 97) + 50 * np.cos(x / 61)
    pixels = np.clip(base[..., None] + rng.normal(0, 8, (5003, 4711, 3)), 0, 254).astype("u1")
    pixels[4096:, 4096:] = 0
    return pixels


@pytest.fixture(scope="module")
def made(picture, tmp_path_factory):
    """The picture as a portable store, and where its receipts lie."""
    folder = tmp_path_factory.mktemp("made")
    np.save(folder / "picture.npy", picture)
    zarr.save_array(folder / "picture.zarr", picture.transpose(2, 0, 1)[:, :5003], zarr_format=3)
    build_pyramid(folder / "picture.zarr", folder / "out" / "x.zarr", profile="portable")
    return folder


def _levels(root):
    with xr.open_datatree(root, engine="zarr") as tree:
        return [tree[str(n)]["image"].values for n in range(len(tree.children) - ("labels" in tree.children))]


def test_every_level_is_the_mean_of_what_lies_under_it(made, picture):
    levels = _levels(made / "out" / "x.zarr")
    wanted = [picture.transpose(2, 0, 1), *mip(picture.transpose(2, 0, 1), levels=5)]
    assert [level.shape for level in levels] == [level.shape for level in wanted]
    for level, expected in zip(levels, wanted, strict=True):
        np.testing.assert_array_equal(level, expected)


def test_a_shard_of_nothing_but_fill_is_not_stored(made):
    root = made / "out" / "x.zarr"
    assert not (root / "0" / "image" / "c" / "0" / "1" / "1").exists()
    assert (root / "0" / "image" / "c" / "0" / "1" / "0").exists()
    assert not (root / "labels").exists()


def test_the_size_that_is_told_first_is_about_right(made):
    pyramid = ts.open_pyramid(str(made / "picture.zarr"))
    projected = project_store(pyramid, made_layout(pyramid.info)).store_bytes
    stored = sum(len(content) for content in tree_bytes(made / "out" / "x.zarr").values())
    assert projected == pytest.approx(stored, rel=0.2)


def test_the_same_bytes_whoever_makes_it(made, tmp_path):
    build_pyramid(made / "picture.zarr", tmp_path / "again.zarr", profile="portable")
    assert tree_bytes(made / "out" / "x.zarr") == tree_bytes(tmp_path / "again.zarr")


def test_another_recipe_is_refused(made):
    before = tree_bytes(made / "out" / "x.zarr")
    with pytest.raises(OutputError, match="gdal"):
        build_pyramid(made / "picture.zarr", made / "out" / "x.zarr", profile="gdal")
    assert tree_bytes(made / "out" / "x.zarr") == before


def test_a_finished_store_is_not_made_again(made, monkeypatch):
    monkeypatch.setattr("tilestream.pipelines.ingest_work.IngestWork.write", None)
    build_pyramid(made / "picture.zarr", made / "out" / "x.zarr", profile="portable")


def test_a_store_that_was_removed_by_hand_is_made_again(made, tmp_path):
    for _ in range(2):
        build_pyramid(made / "picture.zarr", tmp_path / "x.zarr", profile="portable")
        assert tree_bytes(tmp_path / "x.zarr") == tree_bytes(made / "out" / "x.zarr")
        shutil.rmtree(tmp_path / "x.zarr")


def test_a_place_that_is_taken_by_others_is_left_alone(made, tmp_path):
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(OutputError, match="has not written"):
        build_pyramid(made / "picture.zarr", tmp_path / "x.zarr", resume=False)
    assert [path.name for path in (tmp_path / "x.zarr").iterdir()] == ["zarr.json"]


def test_a_smaller_image_replaces_a_larger_one(made, tmp_path):
    zarr.create_array(tmp_path / "small.zarr", data=np.full((1, 40, 50), 7, np.uint8), dimension_names=("c", "y", "x"))
    build_pyramid(made / "picture.zarr", tmp_path / "out" / "x.zarr")
    build_pyramid(tmp_path / "small.zarr", tmp_path / "out" / "x.zarr", resume=False)
    build_pyramid(tmp_path / "small.zarr", tmp_path / "again" / "x.zarr")
    assert tree_bytes(tmp_path / "out" / "x.zarr") == tree_bytes(tmp_path / "again" / "x.zarr")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["receipts", "x.zarr"]


def test_a_store_without_receipts_is_kept(made, tmp_path):
    build_pyramid(made / "picture.zarr", tmp_path / "x.zarr")
    shutil.rmtree(tmp_path / "receipts")
    before = tree_bytes(tmp_path / "x.zarr")
    build_pyramid(made / "picture.zarr", tmp_path / "x.zarr")  # done already
    with pytest.raises(OutputError, match="finished store of another run"):
        build_pyramid(made / "picture.zarr", tmp_path / "x.zarr", profile="gdal")
    with pytest.raises(OutputError, match="itself"):
        build_pyramid(tmp_path / "x.zarr", tmp_path / "x.zarr", resume=False)
    assert tree_bytes(tmp_path / "x.zarr") == before


def test_stores_beside_their_images_are_no_inputs(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "picture.zarr", tmp_path / "in" / "a.zarr")
    config = IngestConfig(out=Place.of("in"))
    shutil.move(tmp_path / "in" / "a.zarr", tmp_path / "in" / "a")
    for _ in range(2):
        cohort = ingest_cohort(["in"], manifest=None, config=config)
        assert [entry.key for entry in cohort.entries] == ["a"]
        (row,) = run_ingest(cohort, config)
        assert row.status == "done", row.reason


def test_a_slide_that_cannot_be_copied_says_why(made, tmp_path):
    with pytest.raises((ConfigError, OutputError), match="archive"):
        build_pyramid(made / "picture.zarr", tmp_path / "x.zarr", profile="archive")
    with pytest.raises(ConfigError, match="zip"):
        build_pyramid(made / "picture.zarr", tmp_path / "x.zarr", profile="zip")
    with pytest.raises(ConfigError, match=r"\.zarr"):
        build_pyramid(made / "picture.zarr", tmp_path / "x")


@pytest.mark.parametrize("profile", ["portable", "gdal"])
def test_places_are_the_same_in_ome_geozarr_and_cf(tmp_path, profile):
    """A pixel's value is its own level-0 place, so that means of pixels say where a coarse pixel should lie."""
    y, x = np.mgrid[:1003, :701].astype("f4")
    affine = (10.0, 0.0, 5e5, 0.0, -10.0, 5e6)
    scene = xr.DataArray(
        np.stack([y, x]), dims=("band", "y", "x"), attrs={"spatial:transform": list(affine), "proj:code": "EPSG:32633"}
    )
    scene.to_dataset(name="image").to_zarr(tmp_path / "scene.zarr", zarr_format=3, consolidated=False)
    root = tmp_path / "x.zarr"
    build_pyramid(tmp_path / "scene.zarr", root, profile=profile)
    attributes = json.loads((root / "zarr.json").read_bytes())["attributes"]
    datasets = attributes["ome"]["multiscales"][0]["datasets"]
    for dataset, entry, values in zip(datasets, attributes["multiscales"]["layout"], _levels(root), strict=True):
        scale, translation = (t[t["type"]][1:] for t in dataset["coordinateTransformations"])
        a, _, c, _, e, f = entry["spatial:transform"]
        inner = tuple(slice(0, n - 1) for n in values.shape[1:])  # the last pixel may cover less than a whole one
        for axis in (0, 1):
            index = np.arange(values.shape[1 + axis] - 1)
            level0 = np.moveaxis(values[axis][inner], axis, 0)[:, 0]
            np.testing.assert_allclose((translation[axis] + index * scale[axis]) / 10, level0, atol=1e-3)
            origin, step = ((f, e), (c, a))[axis]
            np.testing.assert_allclose(
                (origin + (index + 0.5) * step - affine[(5, 2)[axis]]) / affine[(4, 0)[axis]] - 0.5, level0, atol=1e-3
            )


def test_stock_xarray_sees_places_in_the_gdal_profile(tmp_path, shared_data):
    root = tmp_path / "x.zarr"
    build_pyramid(shared_data / "satellite" / "cog_nodata.tif", root, profile="gdal")
    with xr.open_datatree(root, engine="zarr") as tree:
        for level in ("0", "1", "2"):
            transform = tree[level].attrs["spatial:transform"]
            np.testing.assert_allclose(tree[level]["x"][0], transform[2] + transform[0] / 2)
            np.testing.assert_allclose(
                tree[level]["y"][-1], transform[5] + transform[4] * (tree[level].sizes["y"] - 0.5)
            )
        assert np.isnan(tree["0"]["image"].values).any()


def test_a_store_is_built_again_in_its_place_by_the_same_process(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 255, (3, 300, 8300), "u1")  # five levels and one made from them
    zarr.save_array(tmp_path / "a.zarr", pixels, zarr_format=3)
    for _ in range(2):
        build_pyramid(tmp_path / "a.zarr", tmp_path / "out" / "x.zarr", profile="portable", resume=False)
        np.testing.assert_array_equal(_levels(tmp_path / "out" / "x.zarr")[0], pixels)


def _gdal():
    """Version of GDAL, 0 where there is none; those before 3.11 read no Zarr v3 as it was standardised."""
    try:
        import rasterio
    except ImportError:
        return (0,)
    return tuple(int(part) for part in rasterio.__gdal_version__.split(".")[:2])


@pytest.mark.skipif(_gdal() < (3, 12), reason="needs rasterio with GDAL 3.12: run `make test-new`")
@pytest.mark.parametrize(
    "name", ["satellite/S2A_29RKH_20200219_0_L2A", "satellite/cog_nodata.tif", "satellite/cogeo.tif"]
)
def test_gdal_opens_the_gdal_profile(shared_data, tmp_path, name):
    import rasterio

    stored = build_pyramid(shared_data / name, tmp_path / "x.zarr", profile="gdal")
    for level in stored.levels[:2]:
        with rasterio.open(f'ZARR:"{tmp_path / "x.zarr"}":/{level.index}/image') as opened:
            assert opened.crs.to_epsg() == int(stored.crs.removeprefix("EPSG:"))
            assert opened.shape == level.shape.yx
            # GDAL takes what absent chunks hold for nodata, and Zarr 3 has no array without it
            assert opened.nodata == (0 if stored.info.nodata is None else stored.info.nodata)
            place = json.loads((tmp_path / "x.zarr" / str(level.index) / "zarr.json").read_bytes())
            assert list(opened.transform)[:6] == pytest.approx(place["attributes"]["spatial:transform"])
            raw = zarr.open_array(tmp_path / "x.zarr" / str(level.index) / "image", mode="r")[...]
            np.testing.assert_array_equal(opened.read(), raw)


@pytest.mark.skipif(_gdal() < (3, 12), reason="needs rasterio with GDAL 3.12: run `make test-new`")
def test_gdal_before_3_13_refuses_shards(shared_data, tmp_path):
    import rasterio

    build_pyramid(shared_data / "satellite" / "cog_nodata.tif", tmp_path / "x.zarr", profile="portable")
    if _gdal() >= (3, 13):
        pytest.skip("this GDAL reads shards")
    with pytest.raises(rasterio.errors.RasterioIOError, match="sharding_indexed"):
        rasterio.open(f'ZARR:"{tmp_path / "x.zarr"}":/0/image')


def test_an_array_is_no_file_and_how_it_becomes_one_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a = np.random.default_rng(0).integers(0, 255, (3, 70, 90), np.uint8)
    with pytest.raises(ConfigError, match=r"`src`: got ndarray of shape \(3, 70, 90\), .* `zarr.save_array\('image"):
        build_pyramid(a, tmp_path / "out.zarr")
    zarr.save_array("image.zarr", a)  # as it says
    stored = build_pyramid("image.zarr", tmp_path / "out.zarr")
    np.testing.assert_array_equal(stored.read(stored.levels[0].box), a)
