"""Where the pixels of coarse levels lie: gradients must give the same place at every level, whoever made the levels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import tifffile
import zarr
from rasterio.enums import Resampling
from rasterio.transform import Affine

from tests.sources.assembled import whole_level
from tests.sources.madedicom import save_dicom
from tests.sources.test_zarr import save_ome
from tilestream.errors import SourceError
from tilestream.sources.opening import open_source
from tilestream.sources.scales import level_scale, stretched_scale
from tilestream.testing.slide import aperio_description
from tilestream.types import Shape

STEP = 8
"""Sample values to a level-0 pixel, so that means of odd numbers of pixels stay whole or nearly so."""


@pytest.mark.parametrize(
    ("whole", "shape", "scale"),
    [
        ((1000, 1000), (500, 500), (2.0, 2.0)),
        ((1000, 1000), (1000, 1000), (1.0, 1.0)),
        ((1001, 999), (501, 500), (2.0, 2.0)),
        ((1001, 999), (251, 250), (4.0, 4.0)),
        ((1001, 999), (500, 499), (2.0, 2.0)),  # odd edges cut off
        ((1001, 999), (334, 333), (3.0, 3.0)),
        ((46000, 32914), (11500, 8228), (4.0, 4.0)),
        ((46000, 32914), (2875, 2057), (16.0, 16.0)),
        ((18000, 36000), (282, 563), (64.0, 64.0)),
        ((2967, 2220), (46, 34), (64.0, 64.0)),
        ((2967, 2220), (1, 1), (2048.0, 2048.0)),
        ((7, 5), (1, 1), (8.0, 8.0)),
        ((900, 600), (300, 200), (3.0, 3.0)),
        ((100, 100), (34, 34), (3.0, 3.0)),
        ((250, 250), (62, 60), (250 / 62, 250 / 60)),
        ((1000, 1000), (490, 490), (1000 / 490, 1000 / 490)),
        ((1000, 500), (300, 200), (1000 / 300, 2.5)),
    ],
)
def test_scale_of_a_level(whole, shape, scale):
    assert level_scale(Shape(y=whole[0], x=whole[1]), Shape(y=shape[0], x=shape[1])) == scale


def test_scale_of_an_overview():
    assert stretched_scale(Shape(y=1001, x=999), Shape(y=501, x=500)) == (1001 / 501, 999 / 500)


def gradient(height, width, dtype=np.uint16):
    """`(y, x, 2)`: each sample says where its centre lies along y and along x."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([y * STEP, x * STEP], axis=2).astype(dtype)


def boxes(pixels, factor, *, cut):
    """Means over squares; edges are cut off, or averaged over what is there."""
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    whole = pixels[: height * factor, : width * factor].astype(float)
    means = whole.reshape(height, factor, width, factor, -1).mean(axis=(1, 3))
    if not cut:
        more = [(0, -(-size // factor) - found) for size, found in zip(pixels.shape[:2], means.shape[:2], strict=True)]
        means = np.pad(means, [*more, (0, 0)], mode="edge")
    return means.astype(pixels.dtype)


def check(source, *, places=None, off_px=0.51, step=STEP):
    """Each sample of each level must say where that level's pixel lies, in `off_px` level-0 pixels."""
    info = source.info
    assert len(info.levels) > 1
    for level in info.levels:
        pixels, valid, _ = whole_level(source, level.index)
        inner = valid.copy()
        inner[-2:], inner[:, -2:] = False, False  # partly covered, or repeated by the maker of the test
        inner[:2], inner[:, :2] = False, False  # filters that reach beyond the edge
        for axis in (0, 1):
            centres = (np.arange(level.shape.yx[axis]) + 0.5) * level.scale_yx[axis]
            told = np.moveaxis(pixels[..., axis].astype(float), axis, 0) / step
            wanted = np.broadcast_to(centres[:, None], told.shape)
            assert np.abs(told - wanted)[np.moveaxis(inner, axis, 0)].max() <= off_px


@pytest.mark.parametrize("size", [(643, 518), (640, 512), (665, 999)])
def test_aperio_cuts_odd_edges_off(tmp_path, size):
    """Factors 4 and 16; the ratio of the sizes is 4.019 at 643 and would be 10 pixels off at the end."""
    base = gradient(*size, np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:
        for factor in (1, 4, 16):
            level = boxes(base, factor, cut=True)
            text = aperio_description(Shape(y=size[0], x=size[1]), mpp=0.5)
            file.write(level, tile=(32, 32), photometric="minisblack", planarconfig="contig", description=text,
                       metadata=None)  # fmt: skip
    source = open_source(str(tmp_path / "a.svs"))
    assert source.info.format == "aperio-svs"
    assert [level.scale_yx for level in source.info.levels] == [(1.0, 1.0), (4.0, 4.0), (16.0, 16.0)]
    check(source)


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("size", [(201, 333), (200, 332)])
def test_ome_tiff(tmp_path, size, cut):
    base = np.moveaxis(gradient(*size), 2, 0)
    options = {"photometric": "minisblack", "tile": (32, 32)}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(base, subifds=2, metadata={"axes": "CYX"}, **options)
        for factor in (2, 4):
            level = boxes(np.moveaxis(base, 0, 2), factor, cut=cut)
            file.write(np.moveaxis(level, 2, 0), subfiletype=1, **options)
    check(open_source(str(tmp_path / "a.ome.tif")))


@pytest.mark.parametrize("how", ["average", "bilinear", "cubic"])
@pytest.mark.parametrize("size", [(1001, 667), (515, 1003)])
def test_overviews_of_gdal(tmp_path, size, how):
    base = np.moveaxis(gradient(*size, np.float32), 2, 0)
    profile = {"driver": "GTiff", "count": 2, "height": size[0], "width": size[1], "dtype": "float32", "tiled": True}
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500000, 0, -10, 5000000)}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, **place) as file:
        file.write(base)
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.build_overviews([2, 4, 8, 16], getattr(Resampling, how))
    source = open_source(str(tmp_path / "a.tif"))
    assert len(source.info.levels) == 5
    check(source, off_px=0.05 if how == "cubic" else 0.3)
    for level in source.info.levels[1:]:
        with rasterio.open(tmp_path / "a.tif", overview_level=level.index - 1) as file:
            assert (file.transform.a / 10, file.transform.e / -10) == pytest.approx(level.scale_yx[::-1], abs=1e-12)


@pytest.mark.parametrize("cut", [True, False])
def test_dicom(tmp_path, cut):
    base = gradient(101, 67)
    for number, factor in enumerate((1, 2, 4)):
        level = np.repeat(boxes(base, factor, cut=cut)[..., :2], [2, 1], axis=2)[..., [0, 2, 1]]  # samples y, x, y
        pixels = (level // STEP * 2).astype(np.uint8)
        save_dicom(tmp_path / f"{number}.dcm", matrix=level.shape[:2], pixels=pixels, tile=16)
    source = open_source(str(tmp_path))
    assert [level.scale_yx[0] for level in source.info.levels] == [1.0, 2.0, 4.0]
    check(source, step=2, off_px=1.0)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_with_any_factor(tmp_path, version):
    """Factors that are no whole numbers, as the exemplar of the shared data has them."""
    size, factors = (250, 233), (1.0, 2.5, 6.25)
    levels = []
    for factor in factors:
        shape = [int(n / factor) for n in size]
        y, x = np.meshgrid(*((np.arange(n) + 0.5) * factor * STEP for n in shape), indexing="ij")
        levels.append(np.stack([y, x]).astype(np.uint16))
    path = save_ome(tmp_path / "a.zarr", levels, version=version, scales=[0.25 * f for f in factors], unit="micrometer")
    source = open_source(str(path))
    assert [level.scale_yx for level in source.info.levels] == [(f, f) for f in factors]
    assert source.info.mpp_yx == (0.25, 0.25)
    check(source)


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        (lambda f: None, ()),
        (lambda f: 3.0 + 0.25 * (f - 1) / 2, ()),  # means, in an image that begins 3 um from its stage's origin
        (lambda f: 3.0, ("levels 1, 2: stated to lie up to 1.5 level-0 pixels beside",)),  # every f-th pixel
    ],
)
@pytest.mark.parametrize("is_sequence", [False, True])
def test_translations_that_are_not_those_of_means_are_told(tmp_path, moved, said, is_sequence):
    path = save_ome(tmp_path / "a.zarr", [np.zeros((2, 64 // f, 64 // f), np.uint8) for f in (1, 2, 4)], version="0.5",
                    scales=[0.25, 0.5, 1.0], unit="micrometer")  # fmt: skip
    document = json.loads((path / "zarr.json").read_text())
    for factor, dataset in zip((1, 2, 4), document["attributes"]["ome"]["multiscales"][0]["datasets"], strict=True):
        transforms = dataset["coordinateTransformations"]
        if (by := moved(factor)) is not None:
            transforms.append({"type": "translation", "translation": [0.0, by, by]})
        if is_sequence:  # as 0.6 has it
            dataset["coordinateTransformations"] = [{"type": "sequence", "transformations": transforms}]
    (path / "zarr.json").write_text(json.dumps(document))
    info = open_source(str(path)).info
    notes = [note for note in info.notes if "stated to lie" in note]
    assert len(notes) == len(said)
    assert all(note.startswith(start) for note, start in zip(notes, said, strict=True))
    assert [level.scale_yx for level in info.levels] == [(1.0, 1.0), (2.0, 2.0), (4.0, 4.0)]
    assert info.mpp_yx == (0.25, 0.25)


@pytest.mark.parametrize("stated", ["spatial:transform", "scale"])
def test_geozarr(tmp_path, stated):
    """Levels of 2.5 and 6.25, by an affine each or by scales relative to the level before."""
    sizes, factors = ((250, 225), (100, 90), (40, 36)), (1.0, 2.5, 6.25)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    layout = []
    for number, (size, factor) in enumerate(zip(sizes, factors, strict=True)):
        y, x = np.meshgrid(*((np.arange(n) + 0.5) * factor * STEP for n in size), indexing="ij")
        array = np.stack([y, x]).astype(np.uint16)
        group.create_array(f"{number}/data", data=array, dimension_names=["band", "y", "x"])
        entry = {"asset": str(number)}
        if stated == "scale":
            entry |= {"derived_from": str(number - 1), "transform": {"scale": [2.5, 2.5]}} if number else {}
        else:
            entry[stated] = [10 * factor, 0.0, 500000.0, 0.0, -10 * factor, 5000000.0]
        layout.append(entry)
    group.attrs.update({
        "multiscales": {"layout": layout}, "proj:code": "EPSG:32633",
        "spatial:transform": [10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0],
    })  # fmt: skip
    source = open_source(str(tmp_path / "a.zarr"))
    assert source.info.affine == (10.0, 0.0, 500000.0, 0.0, -10.0, 5000000.0)
    assert [level.scale_yx for level in source.info.levels] == [(f, f) for f in factors]
    check(source)


@pytest.mark.parametrize("entry", [{"spatial:transform": [0, 0, 0, 0, 0, 0]}, {"spatial:transform": "x"}])
def test_geozarr_that_makes_no_sense_is_refused(tmp_path, entry):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    group.create_array("0", data=np.zeros((8, 8), np.uint8), dimension_names=["y", "x"])
    group.attrs["multiscales"] = {"layout": [{"asset": "0", **entry}]}
    with pytest.raises(SourceError, match="multiscales"):
        open_source(str(tmp_path / "a.zarr"))
