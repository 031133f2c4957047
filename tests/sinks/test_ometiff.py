"""OME-TIFFs as tifffile and ome-types read them: planes, levels, channels, pixel sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import ome_types
import pytest
import tifffile

from tilestream.errors import ConfigError
from tilestream.sinks import ometiff
from tilestream.sinks.ometiff import OmeTiffWriter
from tilestream.sinks.omexml import ome_xml
from tilestream.sinks.tiffcodec import tile_codec
from tilestream.sinks.tiffdirectory import text
from tilestream.sinks.tiffpyramid import TiffPyramid
from tilestream.types import Channel, ImageInfo, Level, Shape

TILE_PX = 32


def _info(dtype: str = "uint16", *, names: tuple[str, ...] = ("DAPI", 'Cy<3> & "é"', "bell\x07"), **more) -> ImageInfo:
    shape = Shape(y=70, x=90)
    channels = more.pop("channels", tuple(Channel(name=name) for name in names))
    return ImageInfo(
        format="made", levels=(Level(index=0, shape=shape, block=shape),), dtype=np.dtype(dtype), channels=channels,
        fingerprint="f", mpp_yx=(0.25, 0.3), **more,
    )  # fmt: skip


def _xml(info: ImageInfo, *, is_rgb: bool = False, **more) -> str:
    options = {"name": "a.svs", "creator": "tested", "identity": "abc", "facts": {}, **more}
    return ome_xml(info, is_rgb=is_rgb, **options)


def _write(path: Path, info: ImageInfo, *, is_rgb: bool = False) -> list[np.ndarray]:
    """Write three levels of noise; return them as `(c, y, x)`."""
    shapes = (Shape(y=70, x=90), Shape(y=35, x=45), Shape(y=18, x=23))
    count = len(info.channels)
    codec = tile_codec("zstd", dtype=info.dtype, samples=count if is_rgb else 1, is_rgb=is_rgb, quality=90)
    planes = ((0, count),) if is_rgb else tuple((c, c + 1) for c in range(count))
    pyramid = TiffPyramid(levels=shapes, dtype=info.dtype, planes=planes, codec=codec, tile_px=TILE_PX)
    generator = np.random.default_rng(0)
    levels = [generator.integers(0, 255, (*shape.yx, count)).astype(info.dtype) for shape in shapes]
    with OmeTiffWriter(path, pyramid) as file:
        for level in (1, 0, 2):
            for iy in range(pyramid.tiles(level).y):
                for ix in range(pyramid.tiles(level).x):
                    part = slice(iy * TILE_PX, (iy + 1) * TILE_PX), slice(ix * TILE_PX, (ix + 1) * TILE_PX)
                    for tile in pyramid.encode(levels[level][part], None, level=level, iy=iy, ix=ix):
                        file.add(tile)
        assert file.finish({270: text(_xml(info, is_rgb=is_rgb))}) == path.stat().st_size
    return [level.transpose(2, 0, 1) for level in levels]


@pytest.mark.parametrize("limit", [1 << 32, 1])
def test_channels_are_planes_with_levels(tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ometiff, "CLASSIC_BYTES", limit)
    path, info = tmp_path / "a.ome.tif", _info()
    levels = _write(path, info)
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff == (limit == 1)
        (series,) = file.series
        assert (series.kind, series.axes, len(series.levels)) == ("ome", "CYX", 3)
        for level, pixels in zip(series.levels, levels, strict=True):
            np.testing.assert_array_equal(level.asarray(), pixels)


def test_rgb_is_one_channel_of_three_samples(tmp_path: Path) -> None:
    path, info = tmp_path / "a.ome.tif", _info("uint8", names=("R", "G", "B"))
    levels = _write(path, info, is_rgb=True)
    with tifffile.TiffFile(path) as file:
        (series,) = file.series
        assert (series.axes, len(series.levels)) == ("YXS", 3)
        np.testing.assert_array_equal(series.levels[1].asarray(), levels[1].transpose(1, 2, 0))
    (channel,) = ome_types.from_tiff(path).images[0].pixels.channels
    assert channel.samples_per_pixel == 3


def test_xml_is_valid_and_says_all_that_is_known() -> None:
    channels = (Channel(name="DAPI", color="0000FF"), Channel(name="<&>"), Channel(name="bell\x07", color="ff8000"))
    xml = _xml(_info(channels=channels), facts={"source format": "aperio-svs", "damaged blocks": "3"})
    ome = ome_types.from_xml(xml, validate=True)
    assert ome.creator == "tested"
    (image,) = ome.images
    pixels = image.pixels
    assert image.name == "a.svs"
    assert (pixels.size_x, pixels.size_y, pixels.size_c, pixels.type.value) == (90, 70, 3, "uint16")
    assert (pixels.physical_size_x, pixels.physical_size_y) == (0.3, 0.25)
    assert pixels.physical_size_x_unit.value == "µm"
    assert [channel.name for channel in pixels.channels] == ["DAPI", "<&>", "bell"]
    assert [channel.color.as_rgb_tuple()[:3] for channel in pixels.channels] == [(0, 0, 255), (255,) * 3, (255, 128, 0)]
    (annotation,) = ome.structured_annotations
    assert annotation.namespace == "tilestream"
    assert dict(annotation.value) == {"source format": "aperio-svs", "damaged blocks": "3"}


def test_xml_names_no_unit_without_a_pixel_size() -> None:
    xml = _xml(replace(_info(), mpp_yx=None))
    assert "PhysicalSize" not in xml
    assert "Color" not in xml


def test_identity_follows_from_what_it_is_made_of() -> None:
    assert _xml(_info()) == _xml(_info())
    assert _xml(_info(), identity="b") != _xml(_info(), identity="c")


@pytest.mark.parametrize("dtype", ["float16", "uint64"])
def test_types_that_ome_does_not_know(dtype: str) -> None:
    with pytest.raises(ConfigError, match="Export to COG"):
        _xml(_info(dtype))
