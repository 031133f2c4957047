"""Heads of JPEG streams written anew: what goes in, what stays out, and what is no longer needed."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from tests.sources.madetiff import photo, split_tables
from tilestream.errors import DamagedError
from tilestream.sources.jpegcheck import read_head
from tilestream.sources.jpegsplice import JpegSplicer, lossless_jpeg, shared_tables

INTERVAL, COMMENT, JFIF = b"\xff\xdd\0\4\0\2", b"\xff\xfe\0\6abcd", b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def stream_of(pixels: np.ndarray, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **options)
    return out.getvalue()


def spliced(splicer: JpegSplicer, stream: bytes, *, is_raw: bool = False) -> bytes:
    return splicer(stream, read_head(stream), is_raw=is_raw)


def test_only_tables_of_shared_tables_go_in():
    tables, _ = split_tables(stream_of(photo(16, 16)))
    kept = tables[2:-2]
    assert shared_tables(tables) == kept
    assert shared_tables(tables[:2] + JFIF + INTERVAL + COMMENT + tables[2:]) == kept
    assert shared_tables(tables[:-2]) == kept  # some writers leave out the end
    assert shared_tables(None) == b""


@pytest.mark.parametrize(
    ("tables", "said"),
    [(b"nothing", "do not start"), (b"\xff\xd8\xff\xdb\xff\xff", "marker"), (b"\xff\xd8abc", "marker")],
)
def test_broken_tables_are_damage(tables, said):
    stream = split_tables(stream_of(photo(16, 16)))[1]
    with pytest.raises(DamagedError, match=said):
        spliced(JpegSplicer(tables), stream)


def test_a_stream_that_needs_nothing_is_passed_on():
    stream = stream_of(photo(16, 16))
    assert spliced(JpegSplicer(), stream) is stream


def test_marks_stay_in_front_and_own_tables_come_last():
    """The JFIF mark must be first in a stream, and of two tables of one number the later counts."""
    coarse, fine = (stream_of(photo(32, 32), quality=quality) for quality in (20, 95))
    tables, _ = split_tables(coarse)
    got = spliced(JpegSplicer(tables), fine)
    assert got[2:20] == JFIF
    np.testing.assert_array_equal(imagecodecs.jpeg8_decode(got), imagecodecs.jpeg8_decode(fine))


def test_raw_components_lose_other_marks_and_keep_the_rest():
    stream = stream_of(photo(32, 32), subsampling=0)
    stream = stream[:20] + COMMENT + stream[20:]
    got = spliced(JpegSplicer(), stream, is_raw=True)
    assert b"JFIF" not in got
    assert COMMENT in got
    expected = imagecodecs.jpeg8_decode(stream, colorspace="YCBCR", outcolorspace="YCBCR")
    np.testing.assert_array_equal(imagecodecs.jpeg8_decode(got), expected)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(got))), expected)


def test_streams_with_other_heads_do_not_get_the_last_one():
    streams = [stream_of(photo(32, 32, seed=seed), quality=quality) for seed, quality in ((0, 20), (1, 90), (2, 20))]
    tables, _ = split_tables(streams[0])
    splicer = JpegSplicer(tables)
    for stream in [*streams, *streams]:
        for is_raw in (False, True):
            once = spliced(JpegSplicer(tables), stream, is_raw=is_raw)
            assert spliced(splicer, stream, is_raw=is_raw) == once
        np.testing.assert_array_equal(
            imagecodecs.jpeg8_decode(spliced(splicer, stream)), imagecodecs.jpeg8_decode(stream)
        )


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_lossless_streams_hold_pixels_exactly(channels):
    pixels = photo(20, 32, channels=channels)
    got = np.asarray(imagecodecs.jpeg8_decode(lossless_jpeg(pixels, height=24))).reshape(24, 32, channels)
    np.testing.assert_array_equal(got[:20], pixels)
    np.testing.assert_array_equal(got[20:], np.broadcast_to(pixels[-1:], (4, 32, channels)))
