"""Directories are read back by tifffile and by our own parser, classic and big."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from tilestream.sinks.tiffdirectory import (
    Directory,
    Value,
    double,
    encode_directories,
    header,
    long,
    rational,
    short,
    text,
    undefined,
)
from tilestream.sources.files import File
from tilestream.sources.tiff import open_tiff


def _directory(tiles: int, *, children: tuple[Directory, ...] = (), **more: Value) -> Directory:
    tags = {256: long(16 * tiles), 257: long(16), 258: short(8), 259: short(1), 262: short(1), 277: short(1)}
    tags |= {322: short(16), 323: short(16), 305: text("tested"), 33550: double((1.5, 2, 0))}
    tags |= {int(code[1:]): value for code, value in more.items()}
    positions = np.arange(8, 8 + tiles).astype(np.uint64)
    return Directory(tags=tags, offsets=positions, counts=np.full(tiles, 256, np.uint32), children=children)


def _file(chain: list[Directory], *, is_big: bool) -> bytes:
    start = 512
    head = header(start, is_big=is_big).ljust(start, b"\0")
    return head + encode_directories(chain, at=start, is_big=is_big)


@pytest.mark.parametrize("is_big", [False, True])
def test_everything_comes_back(is_big: bool) -> None:
    child = _directory(3, t254=long(1))
    chain = [_directory(1, t50000=undefined(b"abc")), _directory(7, children=(child, child)), _directory(2)]
    with tifffile.TiffFile(io.BytesIO(_file(chain, is_big=is_big))) as file:
        assert file.is_bigtiff == is_big
        assert [len(page.dataoffsets) for page in file.pages] == [1, 7, 2]
        assert file.pages[0].tags[50000].value == b"abc"
        assert file.pages[0].tags[305].value == "tested"
        assert file.pages[2].tags[33550].value == (1.5, 2, 0)
        assert file.pages[1].dataoffsets == tuple(range(8, 15))
        assert file.pages[1].databytecounts == (256,) * 7
        assert [len(page.dataoffsets) for page in file.pages[1].pages] == [3, 3]
        codes = list(file.pages[1].tags.keys())
        assert codes == sorted(codes)


@pytest.mark.parametrize("is_big", [False, True])
def test_length_does_not_depend_on_positions(is_big: bool) -> None:
    near = _directory(5)
    far = Directory(tags=near.tags, offsets=near.offsets + np.uint64(1 << 31), counts=near.counts)
    lengths = {len(encode_directories([each], at=at, is_big=is_big)) for each in (near, far) for at in (8, 1 << 20)}
    assert len(lengths) == 1


def test_our_own_parser_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(_file([_directory(1)], is_big=True))
    assert open_tiff(File(url=str(path))).info.shape.yx == (16, 16)


@given(number=st.floats(1e-6, 4e9))
def test_rationals_are_as_near_as_32_bits_allow(number: float) -> None:
    high, low = np.frombuffer(rational(number).data, "<u4").tolist()
    assert low > 0
    assert abs(Fraction(high, low) - Fraction(number)) <= Fraction(number) / 1000
    if number >= 1:
        assert abs(high / low / number - 1) < 1e-9
