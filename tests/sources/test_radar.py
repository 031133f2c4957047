"""Radar products and ground control points: kept as given, one input a product; rotated affines too."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

from tests.sources.assembled import whole_level
from tests.sources.madescene import noise, save_band, save_gcps, save_rotated
from tilestream.cli.describing import print_image
from tilestream.errors import ConfigError, SourceError
from tilestream.pipelines.describe import describe_image
from tilestream.plan.snap import Snap
from tilestream.plan.tiles import plan_tiles
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sources.opening import open_source

GCPS = [
    (0.5, 0.5, 10.0, 50.0, 100.0), (0.5, 59.5, 11.0, 50.2, 90.0), (59.5, 0.5, 10.1, 49.0, 80.0),
    (59.5, 59.5, 11.1, 49.2, 0.0),
]  # fmt: skip
NAME = "s1a-iw-grd-{}-20200219t054000-20200219t054025-031314-039a2b-00{}.tiff"
ROTATED = (8.0, 6.0, 500000.0, 6.0, -8.0, 4000000.0)


def save_grd(folder, words=("vv", "vh"), *, gcps=None):
    folder.mkdir(parents=True)
    for number, word in enumerate(words, 1):
        points = GCPS if gcps is None else gcps[number - 1]
        save_gcps(folder / NAME.format(word, number), noise(60, number), points)
    return str(folder)


@pytest.mark.parametrize("inside", ["", "measurement"])
def test_a_grd_product_is_one_input_with_its_control_points(tmp_path, inside):
    save_grd(tmp_path / "S1A.SAFE" / inside)
    if inside:
        (tmp_path / "S1A.SAFE" / "manifest.safe").write_text("<xfdu/>")
    source = open_source(str(tmp_path / "S1A.SAFE"))
    info = source.info
    assert [channel.name for channel in info.channels] == ["vv", "vh"]
    assert (info.affine, info.crs, info.gcps) == (None, "EPSG:4326", tuple(GCPS))
    assert (info.format, info.datetime, info.modality) == ("sentinel1-grd", "2020-02-19T05:40:00Z", "scene")
    np.testing.assert_array_equal(whole_level(source)[0], np.stack([noise(60, 1), noise(60, 2)], -1))


def test_its_amplitudes_in_decibels(tmp_path):
    path = save_grd(tmp_path / "p")
    found = whole_level(open_source(f"{path}#db=amplitude"))[0]
    np.testing.assert_allclose(found[..., 1], 20 * np.log10(noise(60, 2)), rtol=1e-6)


def test_control_points_stay_what_they_are(tmp_path, capsys):
    path = save_grd(tmp_path / "p", ("vv",))
    file = str(next((tmp_path / "p").iterdir()))
    with rasterio.open(file) as reference:
        points = [(p.row, p.col, p.x, p.y, p.z) for p in reference.gcps[0]]
    for url in (path, file):
        facts = describe_image(url)
        assert [tuple(point) for point in facts["gcps"]] == points
        assert facts["affine"] is None
        print_image(facts)
        assert "control points  4" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="without CRS and affine"):
        plan_tiles(open_pyramid(path), tile_px=16, where="all", snap=Snap(size=160.0))


def test_bands_with_other_control_points_are_not_put_on_one_grid(tmp_path):
    others = [(row, col, x + 0.5, y, z) for row, col, x, y, z in GCPS]
    info = open_source(save_grd(tmp_path / "p", gcps=[GCPS, others])).info
    assert [channel.name for channel in info.channels] == ["vv"]
    assert "vh" in info.absent


def test_plain_pairs_are_one_input_and_several_products_are_not(tmp_path):
    for word in ("VV", "VH"):
        save_band(tmp_path / "p" / f"S1A_RTC_{word}.tif", noise(40, 1).astype(np.float32), nodata="nan")
    info = open_source(str(tmp_path / "p")).info
    assert ([channel.name for channel in info.channels], info.format) == (["vv", "vh"], "sar-bands")
    save_band(tmp_path / "p" / "S1B_RTC_VV.tif", noise(40, 1).astype(np.float32), nodata="nan")
    with pytest.raises(SourceError, match="no image itself"):
        open_source(str(tmp_path / "p"))


def test_measurements_of_two_products(tmp_path):
    path = save_grd(tmp_path / "p")
    save_gcps(tmp_path / "p" / NAME.format("vv", 1).replace("t0540", "t0541"), noise(60, 3), GCPS)
    with pytest.raises(SourceError, match="several products"):
        open_source(path)


def test_a_rotated_affine_is_kept_and_no_snapped_grid_is_made_of_it(tmp_path):
    save_rotated(tmp_path / "r.tif", noise(60, 1), ROTATED)
    pyramid = open_pyramid(tmp_path / "r.tif")
    assert pyramid.affine == ROTATED
    assert pyramid.gsd_m == pytest.approx(10.0)
    with pytest.raises(ConfigError, match="without rotation"):
        plan_tiles(pyramid, tile_px=16, where="all", snap=Snap(size=160.0))


def test_rotated_bands_lie_on_one_grid_when_they_are_rotated_alike(tmp_path):
    coarse = tuple(2 * v if k not in (2, 5) else v for k, v in enumerate(ROTATED))
    straight = (10.0, 0.0, 500000.0, 0.0, -10.0, 4000000.0)
    for name, size, affine in (("B02", 60, ROTATED), ("B05", 30, coarse), ("B03", 60, straight)):
        save_rotated(tmp_path / f"{name}.tif", noise(size, size), affine)
    source = open_source(str(tmp_path))
    assert ([channel.name for channel in source.info.channels], source.info.affine) == (["blue", "rededge1"], ROTATED)
    assert "green" in source.info.absent
    found = whole_level(source)[0][..., 1]
    np.testing.assert_array_equal(found, np.kron(noise(30, 30), np.ones((2, 2), np.uint16)))
