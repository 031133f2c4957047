"""A tile comes back from its file at each level, box and stage as the oracle says; a file that lies does no harm."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codecs.hostile import assert_harmless, cut_or_flipped, with_another_header, with_other_sections
from tests.codecs.pyramid import oracle
from tests.codecs.pyramid.coarser import coarser
from tests.codecs.pyramid.made import made_grids, made_nets
from tests.codecs.pyramid.madefile import encoded_pyramid
from tilestream.codecs.container import pack, unpack
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.neuralchunks import checked_tile, decode_chunk
from tilestream.codecs.pyramid import pyramidtile
from tilestream.codecs.pyramid.file import KIND, PyramidFile
from tilestream.codecs.pyramid.netbytes import write_nets
from tilestream.codecs.pyramid.nets import PIXEL_MOST, grid_shapes
from tilestream.codecs.pyramid.pyramidtile import PyramidTile
from tilestream.codecs.pyramid.residual import decode_residual
from tilestream.codecs.pyramid.sharednets import keep_nets
from tilestream.codecs.tilecodec import unpack_tile
from tilestream.codecs.tilefront import answers, bytes_for, unpack_front
from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.kernels.mip import mip
from tilestream.types import Array, Box, Shape

SCALES, LEVELS = 4, 2
RANGES = {"uint8": (0, 255), "int16": (-300, 4000), "float32": (-0.25, 1.5)}


def picture(shape: Shape = Shape(y=21, x=34), dtype: str = "uint8") -> Picture:  # noqa: B008  (frozen)
    low, high = RANGES[dtype]
    return Picture(shape=shape, channels=3, dtype=dtype, low=(low,) * 3, high=(high,) * 3, levels=LEVELS)


@cache
def made(dtype: str = "uint8", *, shared: bool = False) -> PyramidFile:
    nets = coarser(made_nets(2, scales=SCALES, levels=LEVELS, hidden=4, width=4), zeros=7)
    about = picture(dtype=dtype)
    return PyramidFile.of(about, nets, made_grids(about.shape, SCALES), shared=shared)


@cache
def written() -> bytes:
    """Return the bytes of `made()`: models of its networks are looked for each time that it is written."""
    return made().to_bytes()


def samples(file: PyramidFile, level: int, stages: int = SCALES) -> Array:
    """Return what the oracle makes of the grids."""
    values = np.clip(oracle.synthesis(file.grids(stages), file.nets, level), 0, PIXEL_MOST)
    low, high = RANGES[file.picture.dtype]
    if file.picture.dtype == "float32":
        return (low + values / PIXEL_MOST * (high - low)).astype(np.float32)
    return (low + (values * (high - low) + PIXEL_MOST // 2) // PIXEL_MOST).astype(file.picture.dtype)


@pytest.mark.parametrize("dtype", RANGES)
def test_a_tile_is_what_the_oracle_makes_of_its_grids(dtype: str) -> None:
    file = made(dtype)
    tile = unpack_tile(file.to_bytes())
    assert tile.picture == file.picture
    for level in range(LEVELS):
        np.testing.assert_array_equal(tile.decode(level=level), samples(file, level))
    box = Box(level=0, y=3, x=7, height=9, width=20)
    out = np.zeros((3, 9, 20), dtype)
    assert tile.decode(box, level=0, out=out) is out
    np.testing.assert_array_equal(out, samples(file, 0)[:, 3:12, 7:27])


@pytest.mark.parametrize("level", [2, 3, 6])
def test_coarser_levels_are_means_of_the_last_that_has_a_network(level: int) -> None:
    file = made()
    expected = mip(samples(file, LEVELS - 1), levels=level - LEVELS + 1)[-1]
    tile = PyramidTile(file)
    np.testing.assert_array_equal(tile.decode(level=level), expected)
    last = Box(level=level, y=expected.shape[1] - 1, x=0, height=1, width=1)
    np.testing.assert_array_equal(tile.decode(last, level=level), expected[:, -1:, :1])


def test_levels_between_are_means_too() -> None:
    tile = PyramidTile(made())
    whole = tile.decode(level=0.5)
    assert whole.shape == (3, 15, 25)
    np.testing.assert_allclose(whole.mean(axis=(1, 2)), tile.decode().mean(axis=(1, 2)), atol=3)
    box = Box(level=0, y=4, x=5, height=6, width=7)
    np.testing.assert_array_equal(tile.decode(box, level=0.5), whole[:, 4:10, 5:12])


def test_a_level_decodes_no_finer_grid_than_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    own = PyramidFile.grids

    def grids(self: PyramidFile, stages: int | None = None, *, known=()):
        asked.append((stages, len(known)))
        return own(self, stages, known=known)

    monkeypatch.setattr(PyramidFile, "grids", grids)
    tile = PyramidTile(made())
    for level in (1, 1, 0, 1, 0):
        np.testing.assert_array_equal(tile.decode(level=level), samples(made(), level))
    assert [one for one in asked if one != (SCALES, 0)] == [(SCALES - 1, 0), (SCALES, SCALES - 1)]


@pytest.mark.parametrize("shared", [False, True])
def test_the_front_of_a_file_has_its_coarsest_grids(shared: bool) -> None:
    file = made(shared=shared)
    data = file.to_bytes()
    if shared:
        keep_nets(file.nets)
    start = len(data) - 4 - sum(map(len, file.sections))
    for stages in range(1, SCALES + 1):
        end = start + sum(map(len, file.sections[:stages]))
        tile = PyramidTile.from_bytes(data[: end + (stages < SCALES)], cut=True)
        assert tile.stages == stages
        np.testing.assert_array_equal(tile.decode(), samples(file, 0, stages))
        np.testing.assert_array_equal(PyramidTile(file).decode(stages=stages), samples(file, 0, stages))
        with pytest.raises(DamagedError):
            PyramidTile.from_bytes(data[:end])


@pytest.mark.parametrize("shared", [False, True])
def test_a_checked_front_has_all_of_its_level(shared: bool) -> None:
    file = made(shared=shared)
    if shared:
        keep_nets(file.nets)
    data = file.to_bytes()
    size = bytes_for(data[:200], 1)
    assert size is not None
    assert size < len(data) == bytes_for(data[:200], 0)
    assert bytes_for(data[:200], 5) == size
    tile = unpack_front(data[:size])
    assert [answers(tile, level) for level in (0, 1, 5)] == [False, True, True]
    np.testing.assert_array_equal(tile.decode(level=1), samples(file, 1))
    assert answers(unpack_front(data), 0)
    shape = (3, *file.picture.shape.yx)
    assert checked_tile(data[:size], shape=shape, dtype=np.dtype("u1"), level=1).picture == file.picture
    with pytest.raises(DamagedError):
        unpack_front(data[: size - 1] + bytes([data[size - 1] ^ 1]))
    with pytest.raises(DamagedError):
        decode_chunk(data[:size], shape=shape, dtype=np.dtype("u1"))


@given(cut_or_flipped(made().to_bytes()))
def test_a_file_that_an_accident_changed_gives_no_wrong_level(data: bytes) -> None:
    try:
        tile = unpack_front(data)
    except (DamagedError, SourceError):
        return
    assert answers(tile, 1)
    assert not answers(tile, 0)
    np.testing.assert_array_equal(tile.decode(level=1), samples(made(), 1))


def test_a_file_of_bounded_error_has_no_fronts() -> None:
    data = encoded_pyramid(bounded=True)
    assert bytes_for(data, 1) == len(data)
    assert unpack_front(data).picture == unpack_tile(data).picture


def test_a_file_of_shared_networks_names_them() -> None:
    file = replace(made(), nets=coarser(made_nets(77, scales=SCALES, levels=LEVELS), zeros=7), shared=True)
    data = file.to_bytes()
    assert len(data) < len(written()) - len(write_nets(made().nets)) + 14
    with pytest.raises(SourceError, match=file.nets.digest.hex()):
        unpack_tile(data)
    keep_nets(file.nets)
    assert unpack_tile(data).picture == file.picture


def test_a_file_wastes_no_bytes() -> None:
    file = replace(made(), picture=picture(Shape(y=256, x=256)))
    beside = len(file.to_bytes()) - len(write_nets(file.nets)) - sum(map(len, file.sections))
    assert beside <= 45 + 9 * (LEVELS - 1)


@pytest.mark.parametrize("most", [pyramidtile.MOST_KEPT_BYTES, 0])
def test_a_picture_of_bounded_error_is_decoded_once_for_all_boxes(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def decode(*arguments: Any) -> Array:
        decoded.append(1)
        return decode_residual(*arguments)

    monkeypatch.setattr(pyramidtile, "decode_residual", decode)
    monkeypatch.setattr(pyramidtile, "MOST_KEPT_BYTES", most)
    tile = unpack_tile(encoded_pyramid(bounded=True))
    assert isinstance(tile, PyramidTile)
    before, whole = tile.nbytes, tile.decode()
    whole_as_it_was = whole.copy()
    whole[...] = 0  # a caller's own memory
    for y in range(0, 12, 4):
        box = Box(level=0, y=y, x=2, height=4, width=5)
        np.testing.assert_array_equal(tile.decode(box), whole_as_it_was[:, y : y + 4, 2:7])
    np.testing.assert_array_equal(tile.decode(level=1), mip(whole_as_it_was, levels=1)[0])
    assert len(decoded) == (1 if most else 5)
    assert (
        before
        == tile.nbytes
        == PyramidTile(replace(tile.file, residual=None)).nbytes
        + len(tile.file.residual or b"")
        + (whole.nbytes if most else 0)
    )


def test_what_a_tile_takes_is_known_before_it_is_decoded() -> None:
    tile = PyramidTile(made())
    before = tile.nbytes
    tile.decode()
    assert tile.nbytes == before >= 2 * sum(shape.y * shape.x for shape in grid_shapes(tile.picture.shape, SCALES))
    assert set(tile.sizes) == {"grids", "networks"}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"shape": Shape(y=21, x=35)}, "`grids` of a pyramid"),
        ({"channels": 1, "low": (0,), "high": (255,)}, "for 1"),
        ({"low": (0.5, 0, 0)}, "uint8 samples of 0"),
        ({"high": (255, 256, 255)}, "to 256"),
    ],
)
def test_grids_of_another_picture_are_refused(changed: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        PyramidFile.of(replace(picture(), **changed), made().nets, made().grids())


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"stages": 0}, "`stages` of a tile"),
        ({"box": Box(level=0, y=0, x=30, height=4, width=5)}, "`box` of a tile"),
    ],
)
def test_what_cannot_be_decoded_is_named(asked: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        PyramidTile(made()).decode(**asked)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"p": [1 << 20, 1 << 20, 3, 0, 2]},
        {"p": [1 << 13, 1 << 13, 3, 0, 2]},
        {"p": [21, 34, 1, 0, 2]},
        {"p": [21, 34, 3, 0, 2], "r": [0, 0, 0, 255, 255, 256]},
        {"p": [21, 34, 3, 4, 2], "r": [0, 0, 0, 1, 1, 1e300]},
        {"p": [21, 34, 3, 0, 2], "n": b"12345678"},
        {"p": [21, 34, 3, 0, 2], "n": b"1234567"},
        {"p": [21, 34, 3, 0, 2], "n": "12345678"},
    ],
)
def test_a_header_that_cannot_be_is_damaged(header: dict) -> None:
    data = pack(KIND, version=1, header=header, sections=unpack(written()).sections)
    with pytest.raises((DamagedError, SourceError)):
        unpack_tile(data).decode()


def read(data: bytes) -> None:
    """Look at two pixels of what may be a tile, also of the front of one."""
    tile = PyramidTile.from_bytes(data)
    tile.decode(Box(level=0, y=0, x=0, height=1, width=min(2, tile.picture.shape.x)))


def read_cut(data: bytes) -> None:
    tile = PyramidTile.from_bytes(data, cut=True)
    tile.decode(Box(level=0, y=0, x=0, height=1, width=min(2, tile.picture.shape.x)))


@given(data=st.data())
def test_a_file_that_an_accident_changed_is_not_read(data: st.DataObject) -> None:
    changed = data.draw(cut_or_flipped(written()))
    assert_harmless(read, changed, whole=False)
    assert_harmless(read_cut, changed, whole=True)


@given(data=st.data())
def test_a_file_that_lies_does_no_harm(data: st.DataObject) -> None:
    packed = unpack(written())
    changed = data.draw(with_another_header(packed) | with_other_sections(packed))
    assert_harmless(read, changed, whole=True)
    assert_harmless(read_cut, changed[: data.draw(st.integers(0, len(changed)))], whole=True)
