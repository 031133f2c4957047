"""Fronts of containers: told by the first bytes, checked like the whole, and refused where one bit is another."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codecs.hostile import assert_harmless, with_another_header
from tilestream.codecs.container import pack, unpack
from tilestream.codecs.fronts import outline_of, unpack_front, with_fronts
from tilestream.errors import DamagedError, SourceError

SECTIONS = [b"networks", b"", b"coarse" * 3, b"finer" * 40, b"finest" * 99]
COUNTS = (3, 4)
HEADER = {"p": [8, 8, 3, 0, 4], "r": [0.5, 2, 1e-30], "n": b"12345678"}


def made(counts=COUNTS, header=HEADER):
    about = with_fronts("pyramid", version=1, header=header, sections=SECTIONS, counts=counts)
    return pack("pyramid", version=1, header=about, sections=SECTIONS)


def test_the_first_bytes_tell_how_long_each_front_is():
    data = made()
    outline = outline_of(data[:150])
    assert (outline.kind, outline.nbytes) == ("pyramid", len(data))
    assert [front.sections for front in outline.fronts] == list(COUNTS)
    for front in outline.fronts:
        found = unpack_front(data[: front.nbytes])
        assert list(found.sections) == SECTIONS[: front.sections]
        assert found.header["p"] == HEADER["p"]
        with pytest.raises(DamagedError):
            unpack(data[: front.nbytes])
    assert outline_of(data[:20]) is None
    assert outline_of(b"no container") is None


def test_what_lies_behind_a_front_is_left_out_until_the_next_is_there():
    data = made()
    first, second = outline_of(data).fronts
    for end in range(first.nbytes, second.nbytes):
        assert len(unpack_front(data[:end]).sections) == 3
    for end in (*range(20), first.nbytes - 1):
        with pytest.raises(DamagedError):
            unpack_front(data[:end])
    assert unpack_front(data) == unpack(data)
    with pytest.raises(DamagedError):
        unpack_front(data + b"\0")


@pytest.mark.parametrize("which", [0, 1])
def test_each_bit_of_a_front_is_checked(which):
    data = made()
    front = outline_of(data).fronts[which]
    for bit in range(8 * front.nbytes):
        changed = bytearray(data[: front.nbytes])
        changed[bit // 8] ^= 1 << bit % 8
        try:
            found = unpack_front(bytes(changed))
        except (DamagedError, SourceError):
            continue
        # only what the entry tells of the other front was hit: the bytes of this one, or the shorter, are as written
        assert list(found.sections) in [SECTIONS[: COUNTS[0]], SECTIONS[: COUNTS[which]]]
        assert {name: found.header[name] for name in HEADER} == HEADER


def test_a_container_without_fronts_is_read_whole():
    data = pack("pyramid", version=1, header=HEADER, sections=SECTIONS)
    assert outline_of(data).fronts == ()
    assert unpack_front(data) == unpack(data)
    with pytest.raises(DamagedError):
        unpack_front(data[:-1])


@pytest.mark.parametrize(
    "told", [[3], [3, -1], [3, 1 << 32], [0, 1], [4, 1, 3, 1], [3, 1, 3, 1], [6, 1], ["3", 1], [True, 1], {"3": 1}, 7]
)
def test_fronts_that_cannot_be_are_none(told):
    data = pack("pyramid", version=1, header={**HEADER, "k": told}, sections=SECTIONS)
    assert outline_of(data).fronts == ()


@given(st.data())
def test_a_header_that_lies_does_no_harm(data):
    lying = data.draw(with_another_header(unpack(made())))
    assert_harmless(unpack_front, lying[: data.draw(st.integers(0, len(lying)))], whole=True)


def test_a_front_costs_a_file_few_bytes():
    plain = len(pack("pyramid", version=1, header=HEADER, sections=SECTIONS))
    sizes = [len(made(counts)) for counts in ((1,), (1, 2), (1, 2, 3))]
    assert sizes[0] - plain <= 9
    assert np.diff(sizes).max() <= 6
    assert all(a < b for a, b in itertools.pairwise(sizes))
