"""Image codecs inside Zarr arrays, as plain zarr-python reads and writes them."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import zarr
from zarr.codecs import TransposeCodec
from zarr.registry import get_codec_class

from tests.sources.madetiff import photo
from tilestream.codecs import zarrimages
from tilestream.codecs.zarrimages import Jpeg2kCodec, JpegCodec
from tilestream.errors import ConfigError


@pytest.mark.parametrize(
    ("codec", "dtype"),
    [
        (JpegCodec(options={"lossless": True}), "u1"),
        (Jpeg2kCodec(), "u1"),
        (Jpeg2kCodec(options={"codecformat": "jp2"}), "u2"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_are_written_and_read_through_transpose(tmp_path, codec, dtype, channels):
    """The chunk behind `transpose` is a strided view, which imagecodecs' own codec refuses to write."""
    pixels = photo(50, 70, channels=channels).transpose(2, 0, 1).astype(dtype)
    array = zarr.create_array(
        tmp_path / "a",
        shape=pixels.shape,
        dtype=dtype,
        chunks=(channels, 16, 16),
        shards=(channels, 32, 32),
        filters=[TransposeCodec(order=(1, 2, 0))] if channels > 1 else None,
        serializer=codec,
        compressors=None,
        fill_value=0,
    )
    array[:] = pixels
    again = zarr.open_array(tmp_path / "a", mode="r")
    np.testing.assert_array_equal(again[:], pixels)
    np.testing.assert_array_equal(again[:, 10:20, 5:60], pixels[:, 10:20, 5:60])


def test_lossy_jpeg_is_near(tmp_path):
    pixels = photo(64, 64)
    array = zarr.create_array(
        tmp_path / "a", shape=(64, 64, 3), dtype="u1", chunks=(32, 32, 3), compressors=None,
        serializer=JpegCodec(options={"level": 95, "subsampling": "444"}),
    )  # fmt: skip
    array[:] = pixels
    assert 0 < np.abs(array[:].astype(int) - pixels).mean() < 5


def test_zarr_finds_them_without_an_import_of_tilestream():
    script = (
        "import sys, zarr; from zarr.registry import get_codec_class; assert 'tilestream' not in sys.modules\n"
        "print([get_codec_class(f'imagecodecs_{name}').__name__ for name in ('jpeg', 'jpeg2k')])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("['Jpeg")


def test_where_imagecodecs_has_its_own_they_are_those(monkeypatch):
    theirs = ModuleType("imagecodecs.zarr")
    theirs.Jpeg = type("Jpeg", (JpegCodec,), {})
    monkeypatch.setitem(sys.modules, "imagecodecs.zarr", theirs)
    assert zarrimages._registered("Jpeg", JpegCodec) is theirs.Jpeg
    assert zarrimages._registered("Jpeg2k", Jpeg2kCodec) is Jpeg2kCodec


@pytest.mark.parametrize("name", ["imagecodecs_jpeg", "imagecodecs_jpeg2k"])
def test_metadata_is_that_of_imagecodecs(name):
    codec = get_codec_class(name)
    assert codec.from_dict({"name": name}).to_dict() == {"name": name}
    assert codec.from_dict({"name": name, "configuration": {}}) == codec.from_dict({"name": name})
    assert hash(codec.from_dict({"name": name, "configuration": {"level": 3}}))


def test_shared_tables_in_the_metadata_as_tifffile_writes_them():
    stated = {"name": "imagecodecs_jpeg", "configuration": {"tables": "/9j/2Q==", "colorspace_data": "RGB"}}
    codec = JpegCodec.from_dict(stated)
    assert codec.options["tables"] == b"\xff\xd8\xff\xd9"
    assert codec.to_dict() == stated


def test_an_option_that_is_not_known_is_refused():
    with pytest.raises(ConfigError, match="options shine"):
        JpegCodec.from_dict({"name": "imagecodecs_jpeg", "configuration": {"shine": 1}})
    with pytest.raises(ConfigError, match="imagecodecs_jpeg2k"):
        Jpeg2kCodec.from_dict({"name": "imagecodecs_jpeg"})
