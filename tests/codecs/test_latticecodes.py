import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilestream.codecs.codemodels import LARGEST_CODE
from tilestream.codecs.entropy import CodeReader, CodeWriter, encode_codes
from tilestream.codecs.latticecodes import (
    read_lattice,
    read_lattice_if_shorter,
    write_lattice,
    write_lattice_if_shorter,
)
from tilestream.codecs.quantise import Quantised, quantise
from tilestream.errors import DamagedError

EDGES = st.integers(1, 45)
LATTICES = hnp.arrays(
    np.int16, st.tuples(EDGES, EDGES), elements=st.integers(-LARGEST_CODE, LARGEST_CODE)
) | hnp.arrays(np.int8, st.tuples(EDGES, EDGES), elements=st.integers(-7, 7))


def written(codes, write=write_lattice):
    writer = CodeWriter()
    write(writer, codes)
    return writer.to_bytes()


def smooth(edge, scale, seed=0):
    """Noise whose neighbours are alike."""
    noise = np.random.default_rng(seed).normal(size=(edge + 4, edge + 4))
    mean = np.lib.stride_tricks.sliding_window_view(noise, (5, 5)).mean((2, 3))
    return np.rint(mean * 5 * scale).astype(np.int16)


@given(codes=LATTICES)
def test_codes_come_back_whatever_the_shape(codes):
    np.testing.assert_array_equal(read_lattice(CodeReader(written(codes)), codes.shape), codes)


@pytest.mark.parametrize(("scale", "share"), [(0.7, 0.8), (5, 0.8), (60, 0.9)])
def test_neighbours_save_bytes_where_they_are_alike(scale, share):
    codes = smooth(97, scale)
    assert len(written(codes)) < share * len(encode_codes(codes.reshape(-1)))


def test_points_are_told_from_those_before_them_alone():
    """What is not known yet must not be looked at: the reader has zeros there."""
    codes = smooth(40, 9)
    assert (read_lattice(CodeReader(written(codes)), (40, 40)) == codes).all()
    later = codes.copy()
    later[1::2, 1::2] += 1  # the points of the last two passes
    assert (read_lattice(CodeReader(written(later)), (40, 40)) == later).all()


@pytest.mark.parametrize(("codes", "is_told"), [(smooth(64, 9), 1), (smooth(64, 9)[::-1, ::7].copy(), 0)])
def test_no_lattice_is_told_that_is_shorter_alone(codes, is_told):
    data = written(codes, write_lattice_if_shorter)
    np.testing.assert_array_equal(read_lattice_if_shorter(CodeReader(data), codes.shape), codes)
    assert len(data) <= len(encode_codes(codes.reshape(-1))) + 2
    assert CodeReader(data).whole(least=0, most=1) == is_told


def test_quantised_groups_may_be_lattices():
    groups = [smooth(60, 6).reshape(-1), np.arange(5), smooth(50, 40, seed=1)[:, :40].reshape(-1), np.zeros(3)]
    values = np.concatenate(groups).astype(np.float32) / 7
    starts = (0, 3600, 3605, 5605)
    lattices = ((60, 60), None, (49, 40), None)
    found = quantise(values, starts, 8)
    data = found.to_bytes(lattices)
    assert len(data) < len(found.to_bytes()) - 100
    back = Quantised.from_bytes(data, starts=starts, count=len(values), lattices=lattices)
    np.testing.assert_array_equal(back.codes, found.codes)
    np.testing.assert_array_equal(back.scales, found.scales)


@given(data=st.binary(max_size=80), rows=st.integers(1, 60), columns=st.integers(1, 60))
def test_any_bytes_are_a_lattice_or_damage(data, rows, columns):
    try:
        found = read_lattice_if_shorter(CodeReader(data), (rows, columns), most=127)
    except DamagedError:
        return
    assert found.shape == (rows, columns)
    assert np.abs(found).max() <= 127


def test_a_lattice_too_large_for_its_bytes_takes_no_memory():
    with pytest.raises(DamagedError, match="so few bytes"):
        read_lattice(CodeReader(written(smooth(20, 5))), (2**20, 2**20))
