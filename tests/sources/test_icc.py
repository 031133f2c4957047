"""ICC profiles found in each format, in one piece or several, whole or broken."""

from __future__ import annotations

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from pydicom.dataset import Dataset

from tests.sources.madedicom import save_dicom
from tests.sources.madetiff import photo
from tilestream.sources.extras import read_extras
from tilestream.sources.icc import checked_icc, icc_description
from tilestream.sources.opening import open_source

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LARGE = struct.pack(">I", 150_000) + PROFILE[4:] + bytes(150_000 - len(PROFILE))
"""Larger than a JPEG segment."""


def icc_of(path):
    return read_extras(open_source(str(path))).icc


@pytest.mark.parametrize("profile", [PROFILE, LARGE])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_plain_images(tmp_path, suffix, profile):
    image = Image.fromarray(photo(40, 50))
    image.save(tmp_path / f"a.{suffix}", icc_profile=profile)
    image.save(tmp_path / f"b.{suffix}")
    assert icc_of(tmp_path / f"a.{suffix}") == profile
    assert icc_of(tmp_path / f"b.{suffix}") is None


@pytest.mark.parametrize("method", [2, 3])
def test_jpeg2000(tmp_path, method):
    plain = imagecodecs.jpeg2k_encode(photo(40, 50), codecformat="jp2")
    at = plain.index(b"colr") - 4
    length = int.from_bytes(plain[at : at + 4], "big")
    box = struct.pack(">I4sBBB", 11 + len(PROFILE), b"colr", method, 0, 0) + PROFILE
    head = plain.index(b"jp2h") - 4
    size = int.from_bytes(plain[head : head + 4], "big") + len(box) - length
    data = plain[:head] + struct.pack(">I", size) + plain[head + 4 : at] + box + plain[at + length :]
    (tmp_path / "a.jp2").write_bytes(data)
    (tmp_path / "b.jp2").write_bytes(plain)
    assert icc_of(tmp_path / "a.jp2") == PROFILE
    assert icc_of(tmp_path / "b.jp2") is None


def test_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", photo(40, 50), photometric="rgb", iccprofile=PROFILE, metadata=None)
    assert icc_of(tmp_path / "a.tif") == PROFILE


def test_dicom(tmp_path, shared_data):
    path = Dataset()
    path.OpticalPathIdentifier, path.ICCProfile = "0", PROFILE + bytes(len(PROFILE) % 2)
    save_dicom(tmp_path / "a.dcm", elements={"OpticalPathSequence": [path]})
    assert icc_of(tmp_path / "a.dcm") == PROFILE
    real = icc_of(shared_data / "slides" / "dicom-annotated" / "sm_image_control.dcm")
    assert len(real) == 3144
    assert icc_description(real) == "sRGB IEC61966-2.1"


def test_description_of_a_profile_and_of_none():
    assert icc_description(PROFILE) == "sRGB built-in"
    assert icc_description(b"x" * 200) == ""


@pytest.mark.parametrize("broken", [PROFILE[:-1], b"x" * 200, b"\0\0\0\x10" + PROFILE[4:], b"\xff" * 4 + PROFILE[4:]])
def test_broken_profiles_are_left_out_and_told(tmp_path, broken):
    assert checked_icc(broken) == (None, (f"an ICC profile of {len(broken):,} bytes is broken and left out",))
    tifffile.imwrite(tmp_path / "a.tif", photo(40, 50), photometric="rgb", iccprofile=broken, metadata=None)
    extras = read_extras(open_source(str(tmp_path / "a.tif")))
    assert extras.icc is None
    assert "broken" in extras.notes[0]


def test_padding_behind_a_profile_is_cut_off():
    assert checked_icc(PROFILE + b"\0\0\0") == (PROFILE, ())
    assert checked_icc(b"") == (None, ())


def test_a_jpeg_that_lacks_a_part_of_its_profile(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(photo(40, 50)).save(buffer, "jpeg", icc_profile=LARGE)
    data = buffer.getvalue()
    second = data.index(b"ICC_PROFILE\0\x02") - 4
    length = int.from_bytes(data[second + 2 : second + 4], "big")
    (tmp_path / "a.jpg").write_bytes(data[:second] + data[second + 2 + length :])
    source = open_source(str(tmp_path / "a.jpg"))
    extras = read_extras(source)
    assert extras.icc is None
    assert extras.notes == ("JPEG file holds parts [1, 3] of an ICC profile of 3",)
    assert source.read_block(0, 0, 0).pixels.shape == (40, 50, 3)  # its pixels are whole


def test_a_png_whose_profile_does_not_decompress(tmp_path):
    data = imagecodecs.png_encode(photo(40, 50))
    content = b"name\0\0" + b"no deflate"
    chunk = struct.pack(">I", len(content)) + b"iCCP" + content
    data = data[:33] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + data[33:]
    (tmp_path / "a.png").write_bytes(data)
    extras = read_extras(open_source(str(tmp_path / "a.png")))
    assert (extras.icc, len(extras.notes)) == (None, 1)
    assert "iCCP" in extras.notes[0]


def test_arrays_know_nothing():
    from tilestream.sources.array import array_source

    extras = read_extras(array_source(np.zeros((9, 9), np.uint8)))
    assert (extras.icc, extras.technical, extras.identifying) == (None, {}, {})
