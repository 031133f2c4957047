"""Networks come back to the bit, in few bytes, and from nothing that is none."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codecs.hostile import assert_harmless, cut_or_flipped, with_other_sections
from tests.codecs.pyramid.coarser import coarser
from tests.codecs.pyramid.made import made_nets
from tilestream.codecs.container import unpack
from tilestream.codecs.pyramid.netbytes import BILINEAR, read_nets, write_nets
from tilestream.codecs.pyramid.netfile import pack_nets, unpack_nets
from tilestream.errors import DamagedError


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"scales": 1, "levels": 1, "channels": 1, "convs": 0, "hidden": 1, "width": 1},
        {"scales": 8, "channels": 4, "convs": 3, "levels": 3},
    ],
)
def test_networks_come_back(form: dict[str, int]) -> None:
    nets = made_nets(**form)
    found = unpack_nets(pack_nets(nets))
    assert found.digest == nets.digest
    assert [layer.bias.dtype for layer in found.layers] == [np.dtype(np.int32)] * len(list(nets.layers))


def test_coarser_steps_take_fewer_bytes() -> None:
    nets = made_nets(scales=5, levels=1)
    sizes = []
    for zeros in (2, 4, 6):
        made = coarser(nets, zeros=zeros)
        section = write_nets(made)
        sizes.append(len(section))
        assert read_nets(section).digest == made.digest
    assert sizes[0] - sizes[1] > nets.parameters / 8
    assert sizes[1] - sizes[2] > nets.parameters / 8


def test_bilinear_filters_and_equal_layers_cost_little() -> None:
    """What a file of its own networks pays beside their numbers."""
    nets = made_nets(scales=7, levels=4, hidden=16, width=16)
    nets = coarser(replace(nets, filters=np.tile(np.array(BILINEAR, np.int16), (6, 1))), zeros=20)
    assert len(write_nets(nets)) < 220


def test_numbers_of_any_size_come_back() -> None:
    """A bias of 31 bits, one of which is the last, is no reason to lose a bit."""
    nets = made_nets()
    first = nets.context[0][0]
    bias = first.bias.copy()
    bias[:3] = 1_000_000_001, -1_000_000_001, 1
    nets = replace(nets, context=((replace(first, bias=bias), *nets.context[0][1:]), *nets.context[1:])).check()
    assert read_nets(write_nets(nets)).digest == nets.digest


def test_what_no_decoder_takes_is_not_written() -> None:
    with pytest.raises(DamagedError, match="networks of a pyramid"):
        write_nets(replace(made_nets(), context=()))


@cache
def packed() -> bytes:
    return pack_nets(coarser(made_nets(scales=3, hidden=4, width=4), zeros=7))


@given(data=st.data())
def test_what_an_accident_changed_is_not_read(data: st.DataObject) -> None:
    assert_harmless(unpack_nets, data.draw(cut_or_flipped(packed())), whole=False)


@given(data=st.data())
def test_sections_that_lie_do_no_harm(data: st.DataObject) -> None:
    assert_harmless(unpack_nets, data.draw(with_other_sections(unpack(packed()))), whole=True)


@settings(max_examples=15)
@given(data=st.data())
def test_bytes_that_lie_anywhere_do_no_harm(data: st.DataObject) -> None:
    section = bytearray(unpack(packed()).sections[0])
    for _ in range(data.draw(st.integers(1, 4))):
        section[data.draw(st.integers(0, len(section) - 1))] = data.draw(st.integers(0, 255))
    assert_harmless(read_nets, bytes(section), whole=True)
