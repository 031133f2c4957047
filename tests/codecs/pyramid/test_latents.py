"""Grids come back as they were coded, from as few bytes as their models promise, and never from what is no grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codecs.pyramid.made import made_grids, made_nets
from tilestream.codecs.pyramid import latents
from tilestream.codecs.pyramid.latents import NUMBERS_A_BYTE, decode_grids, encode_grids
from tilestream.codecs.pyramid.nets import grid_shapes
from tilestream.codecs.pyramid.sectioncoder import SectionReader, SectionWriter
from tilestream.codecs.pyramid.tables import HIGH, LOW, TABLES, table_bits
from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Shape

SHAPES = [(1, 1), (1, 7), (7, 1), (2, 3), (5, 64), (33, 31)]


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize(("scales", "spread"), [(1, 3.0), (3, 0.01), (7, 40.0)])
def test_grids_come_back(size: tuple[int, int], scales: int, spread: float) -> None:
    shape, nets = Shape(y=size[0], x=size[1]), made_nets(scales, scales=scales, levels=1)
    grids = made_grids(shape, scales, spread=spread)
    sections, known = encode_grids(grids, nets)
    assert len(sections) == scales
    found = decode_grids(sections, grid_shapes(shape, scales), nets)
    for ours, coded, wanted in zip(found, known, grids, strict=True):
        np.testing.assert_array_equal(ours, coded)
        assert (np.abs(ours) <= np.abs(wanted).max()).all() or spread == 40
    if spread < 40:
        np.testing.assert_array_equal(
            np.concatenate([g.ravel() for g in known]), np.concatenate([g.ravel() for g in grids])
        )


def test_numbers_out_of_reach_of_a_model_become_the_nearest_within() -> None:
    nets = made_nets(scales=1, levels=1)
    wanted = np.array([[255, -255], [255, -255]], np.int16)
    sections, (coded,) = encode_grids([wanted], nets)
    assert (np.abs(coded) <= 255).all()
    assert (np.sign(coded) == np.sign(wanted)).all()
    assert not np.array_equal(coded, wanted)
    again, (same,) = encode_grids([coded], nets)
    np.testing.assert_array_equal(same, coded)
    assert again == sections


def test_the_first_sections_decode_the_coarsest_grids() -> None:
    shape, nets = Shape(y=30, x=21), made_nets(scales=5, levels=1)
    sections, known = encode_grids(made_grids(shape, 5), nets)
    for stages in range(6):
        found = decode_grids(sections[:stages], grid_shapes(shape, 5), nets, stages)
        for level in range(5):
            expected = known[level] if level >= 5 - stages else np.zeros_like(known[level])
            np.testing.assert_array_equal(found[level], expected)
        if stages < 5:
            with pytest.raises(DamagedError, match=f"{stages} sections"):
                decode_grids(sections[:stages], grid_shapes(shape, 5), nets, stages + 1)


@given(data=st.data())
def test_a_section_is_as_short_as_its_models_promise(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    writer, bits, passes = SectionWriter(), 0.0, []
    for count in data.draw(st.lists(st.integers(0, 60), max_size=4)):
        scales = rng.integers(*data.draw(st.sampled_from([(0, 4), (20, 40), (0, 64)])), count)
        tables = (scales * 16 + rng.integers(0, 16, count)).astype(np.uint16)
        likely = np.clip(np.round(rng.laplace(0, 2 ** ((scales - 30) / 6))), LOW, HIGH)
        symbols = np.where(rng.random(count) < 0.02, rng.integers(LOW, HIGH + 1, count), likely).astype(np.int32)
        writer.add(symbols, tables)
        passes.append((symbols, tables))
        bits += table_bits()[tables, symbols - LOW].sum()
    section = writer.to_bytes()
    assert len(section) <= bits / 8 + 1.01  # the coder's own rounding is far below a bit
    for tail in (b"", bytes(7)):
        reader = SectionReader(section + tail)
        for symbols, tables in passes:
            np.testing.assert_array_equal(reader.take(tables), symbols)


def test_every_value_of_every_model_can_be_coded() -> None:
    tables = np.repeat(np.arange(TABLES, dtype=np.uint16), 4)
    symbols = np.tile(np.array([LOW, HIGH, 0, 1], np.int32), TABLES)
    writer = SectionWriter()
    writer.add(symbols, tables)
    np.testing.assert_array_equal(SectionReader(writer.to_bytes()).take(tables), symbols)


def test_more_numbers_than_bytes_allow_are_refused_before_memory_is_taken() -> None:
    nets = made_nets(scales=2, levels=1)
    huge = Shape(y=1 << 20, x=1 << 20)
    with pytest.raises(DamagedError, match="cannot be in so few bytes"):
        decode_grids([b"", b"1234"], grid_shapes(huge, 2), nets)


def test_a_large_grid_of_one_value_has_the_bytes_that_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """What costs nothing by its models is filled up with zeros, in each section: each may be the last that is read."""
    monkeypatch.setattr(latents, "FREE_NUMBERS", 1 << 10)
    nets = made_nets(scales=2, levels=1)
    for layers in nets.context:
        layers[2].weights[:] = 0
        layers[2].bias[:] = 0
    shape = Shape(y=256, x=128)
    sections, _ = encode_grids([np.zeros(one.yx, np.int16) for one in grid_shapes(shape, 2)], nets)
    assert sum(map(len, sections)) >= (256 * 128 + 128 * 64 - (1 << 10)) / NUMBERS_A_BYTE
    found = decode_grids(sections, grid_shapes(shape, 2), nets)
    assert not any(grid.any() for grid in found)


@given(data=st.binary(max_size=60), seed=st.integers(0, 3))
def test_any_bytes_are_grids_or_damage(data: bytes, seed: int) -> None:
    nets = made_nets(seed, scales=2, levels=1)
    shapes = grid_shapes(Shape(y=9, x=8), 2)
    try:
        found = decode_grids([data[:9], data[9:]], shapes, nets)
    except DamagedError:
        return
    assert all(np.abs(grid).max() <= 255 for grid in found)


@pytest.mark.parametrize(
    "grids",
    [
        [],
        [np.zeros((4, 4), np.int16)],
        [np.zeros((4, 4), np.int16), np.zeros((2, 3), np.int16)],
        [np.zeros((4, 4), np.float32), np.zeros((2, 2), np.float32)],
        [np.full((4, 4), 256, np.int16), np.zeros((2, 2), np.int16)],
    ],
)
def test_what_are_no_grids_is_refused(grids: list[np.ndarray]) -> None:
    with pytest.raises(ConfigError, match="`grids` of a pyramid"):
        encode_grids(grids, made_nets(scales=2, levels=1))
