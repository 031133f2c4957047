"""What a source says of where its validity comes from, held against the pixels that it gives."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr

from tests.sources.assembled import whole_level
from tests.sources.madedicom import save_dicom
from tests.sources.madetiff import Page, image_tags, photo, tiles_of, write_tiff
from tests.sources.test_bands import noise, save_scene
from tilestream.pyramid.chosen import choose
from tilestream.sources.array import array_source
from tilestream.sources.decibels import in_decibels
from tilestream.sources.layers import without_classes
from tilestream.sources.opening import open_source
from tilestream.sources.samples import masked

NODATA = (42113, "s", 0, "7", True)


def check(source, expected):
    """`nodata`: once it stands where pixels are not valid, the samples alone say the same; None: all are valid."""
    info = source.info
    assert info.validity == expected
    for level in range(len(info.levels)):
        pixels, valid, _ = whole_level(source, level)
        if expected is None:
            assert valid.all()
        if expected == "nodata":
            told = pixels.copy()
            told[~valid] = np.nan if info.nodata is None else info.nodata
            again = masked(told, info.nodata).valid
            np.testing.assert_array_equal(np.ones(valid.shape, bool) if again is None else again, valid)


def grey(seed=0):
    pixels = photo(70, 60, channels=1, seed=seed)[..., 0]
    pixels[3:20, 5:30] = 7
    return pixels


@pytest.mark.parametrize("nodata", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_sparse_tiles(tmp_path, sparse, nodata):
    tags = image_tags(70, 60, piece=(32, 32)) | ({42113: ("s", b"7\0")} if nodata else {})
    tiles = [tile.tobytes() for tile in tiles_of(grey(), (32, 32))]
    write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=[None, *tiles[1:]] if sparse else tiles))
    source = open_source(str(tmp_path / "a.tif"))
    check(source, "nodata" if nodata else "mask" if sparse else None)
    assert whole_level(source)[1].all() == (not sparse and not nodata)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_nodata_of_inverted_values(tmp_path, photometric):
    tifffile.imwrite(tmp_path / "a.tif", grey(), photometric=photometric, extratags=[NODATA], metadata=None)
    check(open_source(str(tmp_path / "a.tif")), "nodata" if photometric == "minisblack" else "mask")


def test_alpha_and_png(tmp_path):
    pixels = photo(40, 40, channels=4)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
    check(open_source(str(tmp_path / "a.tif")), "mask")
    import imagecodecs

    for name, image, expected in (("a.png", pixels, "mask"), ("b.png", pixels[..., :3].copy(), None)):
        (tmp_path / name).write_bytes(imagecodecs.png_encode(image))
        check(open_source(str(tmp_path / name)), expected)


def test_sparse_dicom(tmp_path):
    save_dicom(tmp_path / "a.dcm", sparse=[(0, 0), (1, 1)])
    save_dicom(tmp_path / "b.dcm", series="1.2.4")
    check(open_source(str(tmp_path / "a.dcm")), "mask")
    check(open_source(str(tmp_path / "b.dcm")), None)


@pytest.mark.parametrize(("nodata", "expected"), [("0", "nodata"), ("9", "mask")])
def test_bands(tmp_path, nodata, expected):
    fine, coarse = noise(60, 1), noise(30, 2)
    fine[:9], coarse[:4, 10:] = int(nodata), int(nodata)
    bands = {"red": (fine, 10, {"nodata": nodata}), "swir": (coarse, 20, {"nodata": nodata})}
    check(open_source(save_scene(tmp_path / "s", bands)), expected)


def test_arrays():
    floats = np.random.default_rng(0).random((2, 30, 20), np.float32)
    floats[0, :5] = np.nan
    source = array_source(floats, dims=("c", "y", "x"))
    check(source, "nodata")
    check(choose(source, bands=["c1"]), "mask")
    check(choose(source, mpp=1.0), "nodata")
    check(array_source(grey()), None)


@pytest.mark.parametrize("attributes", [{}, {"nodata": 7}])
def test_zarr(tmp_path, attributes):
    array = zarr.create_array(tmp_path / "a.zarr", data=grey(), chunks=(32, 32), attributes=attributes)
    assert array.attrs.asdict() == attributes
    check(open_source(str(tmp_path / "a.zarr")), "nodata" if attributes else None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("slides/CMU-1-Small-Region.svs", None),
        ("slides/test3-DAPI-2-387.ndpi", None),
        ("slides/camelyon-jpeg2000.dcm", None),
        ("satellite/pix4d_alpha_nodata.tif", "mask"),
        ("satellite/colorado_15cm_mask.tif", "mask"),
        ("satellite/cog_nodata_nan.tif", "nodata"),
        ("satellite/S2A_29RKH_20200219_0_L2A", "nodata"),
        ("zarr/blobs_multiscale_image.v05.ome.zarr", "nodata"),
    ],
)
def test_real_images(shared_data, name, expected):
    check(open_source(str(shared_data / name)), expected)


def test_views(shared_data):
    scene = open_source(str(shared_data / "satellite" / "S2A_29RKH_20200219_0_L2A"))
    masked_out = without_classes(scene, {"SCL": [3, 8, 9, 10]})
    assert not np.array_equal(whole_level(masked_out)[1], whole_level(scene)[1])
    check(masked_out, "nodata")
    check(in_decibels(scene, "power"), "nodata")
    check(in_decibels(array_source(grey()), "amplitude"), "nodata")
