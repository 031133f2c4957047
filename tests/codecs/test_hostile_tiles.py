"""Every kind of tile that there is, cut, flipped, lying about itself: an error that says why, or samples."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.codecs.fields.madedecoder import made_decoder
from tests.codecs.hostile import assert_harmless, cut_or_flipped, repacked, with_another_header, with_other_sections
from tests.codecs.pyramid.madefile import encoded_pyramid
from tilestream.codecs.constanttile import KIND as CONSTANT
from tilestream.codecs.container import Packed, unpack
from tilestream.codecs.fields.decoders import keep_decoder
from tilestream.codecs.fields.hashfield import HashField
from tilestream.codecs.fields.probing import Probing
from tilestream.codecs.fields.sharedfield import SharedField
from tilestream.codecs.tilecodec import PYRAMID, FieldCodec, unpack_tile
from tilestream.errors import DamagedError, SourceError
from tilestream.registry import CODECS
from tilestream.types import Box

PROBED, BOUNDED = "hash, probed", "pyramid, bounded"
KINDS = [CONSTANT, *CODECS, PROBED, BOUNDED]
every_kind = pytest.mark.parametrize("kind", KINDS)


@cache
def encoded(kind: str) -> bytes:
    """A small tile of a kind, with some levels."""
    if kind in (PYRAMID, BOUNDED):
        return encoded_pyramid(bounded=kind == BOUNDED)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 12, 9)).astype(np.uint8)
    if kind == CONSTANT:
        pixels[:] = 243
    else:
        pytest.importorskip("torch")  # only to make one
    if kind == PROBED:
        chosen = HashField(levels=3, log2_table=5, n_min=4, n_max=12, hidden=4, probing=Probing(log2_choices=6))
        chosen.fit(pixels, steps=2)
        return chosen.quantize().to_bytes()
    if kind == SharedField.name:
        field = SharedField(keep_decoder(made_decoder()))
        field.fit(pixels, steps=2)
        return field.to_bytes()
    return FieldCodec(field="hash" if kind == CONSTANT else kind, quality=20, steps=2, levels=2).encode(pixels)


def packed(kind: str) -> Packed:
    return unpack(encoded(kind))


def read(data: bytes) -> None:
    """Unpack a tile and look at two pixels of it."""
    tile = unpack_tile(data)
    box = Box(level=0, y=0, x=0, height=1, width=min(2, tile.picture.shape.x))
    assert tile.decode(box, level=0.0).shape == (tile.picture.channels, box.height, box.width)


@every_kind
def test_a_tile_as_it_was_written_is_read(kind):
    assert packed(kind).kind == kind.partition(",")[0]
    assert_harmless(read, encoded(kind), whole=True)


@every_kind
@given(data=st.data())
def test_what_an_accident_changed_is_not_read(kind, data):
    assert_harmless(read, data.draw(cut_or_flipped(encoded(kind))), whole=False)


@every_kind
@given(data=st.data())
def test_a_header_that_lies_does_no_harm(kind, data):
    assert_harmless(read, data.draw(with_another_header(packed(kind))), whole=True)


@every_kind
@given(data=st.data())
def test_sections_that_lie_do_no_harm(kind, data):
    changed = data.draw(with_other_sections(packed(kind))) if packed(kind).sections else encoded(kind)
    assert_harmless(read, changed, whole=True)


@every_kind
@pytest.mark.parametrize("sections", [(), (b"",), (b"", b"", b"", b"", b""), (bytes(1),) * 3])
def test_no_payload_is_damage(kind, sections):
    if packed(kind).sections:
        with pytest.raises(DamagedError):
            unpack_tile(repacked(packed(kind), sections=sections))


@every_kind
def test_a_newer_version_is_named(kind):
    with pytest.raises(SourceError, match=f"kind `{packed(kind).kind}`.*version 200"):
        unpack_tile(repacked(packed(kind), version=200))


@given(data=st.binary(max_size=100))
@example(b"")
@example(b"\x8aTS\x01")
def test_any_bytes_are_no_tile(data):
    assert_harmless(read, data, whole=False)
