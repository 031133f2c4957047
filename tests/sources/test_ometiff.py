"""OME-TIFF: axes, channels, SubIFDs, units, both byte orders, and sets of files."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tifffile

from tests.sources.assembled import whole_level
from tests.sources.madetiff import opened, photo
from tilestream.errors import ConfigError, SourceError

CHANNELS = ["DAPI", "CD3", "CD8"]


def stack(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 5000, shape).astype("u2")


def write_stack(path, pixels: np.ndarray, *, axes: str, order: str = "<", levels: int = 2, **more) -> None:
    metadata = {"axes": axes, "PhysicalSizeX": 0.25, "PhysicalSizeY": 500.0, "PhysicalSizeYUnit": "nm"} | more
    with tifffile.TiffWriter(path, ome=True, byteorder=order) as writer:
        options = {"photometric": "minisblack", "tile": (32, 32), "compression": "zlib"}
        writer.write(pixels, subifds=levels - 1, metadata=metadata, **options)
        for level in range(1, levels):
            writer.write(pixels[..., :: 2**level, :: 2**level], subfiletype=1, **options)


def test_colours_of_channels(tmp_path):
    """The schema's colour is a signed 32-bit integer: red, green, blue, alpha."""
    colors = [-16776961, 0x00FF0080, 0x0102FFFF]
    write_stack(tmp_path / "a.ome.tif", stack((3, 40, 40)), axes="CYX", Channel={"Name": CHANNELS, "Color": colors})
    found = opened(tmp_path / "a.ome.tif").info.channels
    assert [channel.color for channel in found] == ["FF0000", "00FF00", "0102FF"]
    assert [channel.name for channel in found] == CHANNELS


def test_channels_without_a_colour_have_none(tmp_path):
    write_stack(tmp_path / "a.ome.tif", stack((2, 40, 40)), axes="CYX")
    assert [channel.color for channel in opened(tmp_path / "a.ome.tif").info.channels] == [None, None]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("axes", ["TZCYX", "ZTCYX", "CZTYX", "TCZYX"])
def test_planes_are_found_on_every_order_of_axes(tmp_path, order, axes):
    sizes = {"T": 2, "Z": 4, "C": 3, "Y": 70, "X": 50}
    pixels = stack(tuple(sizes[axis] for axis in axes))
    write_stack(tmp_path / "a.ome.tif", pixels, axes=axes, order=order, Channel={"Name": CHANNELS})
    source = opened(tmp_path / "a.ome.tif")
    info = source.info
    assert dict(info.axes) == {"z": 4, "t": 2, "c": 3, "y": 70, "x": 50}
    assert dict(info.selection) == {"z": 0, "t": 0}
    assert [channel.name for channel in info.channels] == CHANNELS
    assert info.mpp_yx == pytest.approx((0.5, 0.25))
    assert info.modality == "fluorescence"
    assert {note.split(" ")[1] for note in info.notes} == {"z", "t"}
    named = {axis.lower(): number for number, axis in enumerate(axes)}
    for z, t in ((0, 0), (3, 1), (2, 0)):
        plane = source.isel(z=z, t=t)
        expected = np.moveaxis(pixels, [named[axis] for axis in "tzcyx"], range(5))[t, z]
        np.testing.assert_array_equal(whole_level(plane)[0], np.moveaxis(expected, 0, 2))
        np.testing.assert_array_equal(whole_level(plane, 1)[0], np.moveaxis(expected[:, ::2, ::2], 0, 2))
        assert dict(plane.info.selection) == {"z": z, "t": t}
        assert not plane.info.notes
    assert source.isel(z=1).info.fingerprint != info.fingerprint
    assert source.isel(z=0).info.fingerprint == info.fingerprint


def test_indices_that_are_not_there_are_refused(tmp_path):
    write_stack(tmp_path / "a.ome.tif", stack((3, 40, 40)), axes="ZYX")
    source = opened(tmp_path / "a.ome.tif")
    with pytest.raises(ConfigError, match="0 to 2"):
        source.isel(z=3)
    with pytest.raises(ConfigError, match="axis `scene`"):
        source.isel(scene=0)


def test_rgb_pyramid_in_subifds(tmp_path):
    pixels = photo(150, 130)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        options = {"photometric": "rgb", "tile": (64, 64), "compression": "jpeg"}
        writer.write(pixels, subifds=1, **options, metadata={"axes": "YXS"})
        writer.write(np.ascontiguousarray(pixels[::2, ::2]), subfiletype=1, **options)
    source = opened(tmp_path / "a.ome.tif")
    assert source.info.modality == "brightfield"
    assert source.info.levels[1].scale_yx == (2.0, 2.0)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as reference:
        for level in range(2):
            np.testing.assert_array_equal(whole_level(source, level)[0], reference.series[0].levels[level].asarray())


def test_series_are_an_axis_without_label_and_macro(tmp_path):
    images = [photo(60 + 10 * index, 50, seed=index) for index in range(4)]
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for image, name in zip(images, ("scan", "label image", "macro image", "second scan"), strict=True):
            writer.write(image, photometric="rgb", metadata={"axes": "YXS", "Name": name})
    source = opened(tmp_path / "a.ome.tif")
    assert source.info.axes["series"] == 2
    np.testing.assert_array_equal(whole_level(source)[0], images[0])
    np.testing.assert_array_equal(whole_level(source.isel(series=1))[0], images[3])
    with pytest.raises(ConfigError):
        source.isel(series=2)


def changed_xml(path, pattern: str, replacement: str) -> None:
    with tifffile.TiffFile(path, mode="r+") as file:
        text = re.sub(pattern, replacement, file.pages[0].description)
        file.pages[0].tags[270].overwrite(text.encode())


@pytest.mark.parametrize(
    ("pattern", "replacement", "reason"),
    [
        (r"</OME>", "", "does not parse"),
        (r'SizeZ="3"', 'SizeZ="x"', "whole numbers"),
        (r'SizeZ="3"', 'SizeZ="-3"', "whole numbers"),
        (r'SizeZ="3"', 'SizeZ="99999999"', "whole numbers"),
        (r'IFD="0"', 'IFD="77"', "directories"),
        (r"<Image .*</Image>", "", "without an image"),
        (r"<Image .*</Image>", '<BinaryOnly MetadataFile="x" UUID="y"/>', "another metadata file"),
    ],
)
def test_broken_xml_is_refused(tmp_path, pattern, replacement, reason):
    write_stack(tmp_path / "a.ome.tif", stack((3, 40, 40)), axes="ZYX")
    changed_xml(tmp_path / "a.ome.tif", pattern, replacement)
    if replacement == "":
        with tifffile.TiffFile(tmp_path / "a.ome.tif", mode="r+") as file:
            text = file.pages[0].description
            file.pages[0].tags[270].overwrite((text if "</OME>" in text else "<OME " + text[5:]).encode())
    with pytest.raises(SourceError, match=reason):
        opened(tmp_path / "a.ome.tif")


def test_planes_of_another_file_are_refused(tmp_path):
    write_stack(tmp_path / "a.ome.tif", stack((3, 40, 40)), axes="CYX")
    parts = "".join(
        f'<TiffData IFD="{index}" FirstC="{index}"><UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData>'
        for index, name in enumerate(("a.ome.tif", "b.ome.tif", "b.ome.tif"))
    )
    changed_xml(tmp_path / "a.ome.tif", r"<TiffData.*?(/>|</TiffData>)", parts)
    with pytest.raises(SourceError, match="one OME-TIFF or OME-Zarr"):
        opened(tmp_path / "a.ome.tif")


def test_a_renamed_file_is_still_its_own(tmp_path):
    pixels = stack((2, 40, 40))
    write_stack(tmp_path / "a.ome.tif", pixels, axes="CYX")
    parts = "".join(
        f'<TiffData IFD="{index}" FirstC="{index}"><UUID FileName="old.tif">urn:uuid:1</UUID></TiffData>'
        for index in range(2)
    )
    changed_xml(tmp_path / "a.ome.tif", r"<TiffData.*?(/>|</TiffData>)", parts)
    np.testing.assert_array_equal(whole_level(opened(tmp_path / "a.ome.tif"))[0], np.moveaxis(pixels, 0, 2))


@pytest.mark.parametrize(("unit", "mpp"), [("mm", 250.0), ("m", 250000.0), ("pixel", None), ("reference frame", None)])
def test_units(tmp_path, unit, mpp):
    more = {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit, "PhysicalSizeY": 0.25}
    write_stack(tmp_path / "a.ome.tif", stack((40, 40)), axes="YX", **more)
    found = opened(tmp_path / "a.ome.tif").info
    assert found.mpp_yx == (None if mpp is None else pytest.approx((mpp, mpp)))
    assert any("mpp" in note for note in found.notes) == (mpp is None)
