"""The map of written shards: round trip, size, and texts that are none."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilestream.codecs.shardmap import decode_shard_map, encode_shard_map
from tilestream.errors import DamagedError


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_round_trip(written):
    text = encode_shard_map(written)
    assert text.isascii()
    np.testing.assert_array_equal(decode_shard_map(text, written.shape), written)


def test_the_form_in_metadata():
    """Base64 of zlib of bits, most significant first, rows of the grid one after another: others may read it."""
    written = np.array([[True, False, False], [False, False, True]])
    assert zlib.decompress(base64.b64decode(encode_shard_map(written))) == bytes([0b10000100])


def test_a_slide_of_100_000_px_takes_little():
    assert len(encode_shard_map(np.ones((25, 25), np.bool_))) < 40
    assert len(encode_shard_map(np.random.default_rng(0).random((25, 25)) < 0.5)) < 150


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no base64 at all!",
        "ä",
        base64.b64encode(b"no zlib").decode(),
        base64.b64encode(zlib.compress(bytes(1000))).decode(),
        base64.b64encode(zlib.compress(bytes(1))).decode(),
        base64.b64encode(zlib.compress(bytes(2))[:-1]).decode(),
        base64.b64encode(zlib.compress(bytes(2)) + b"more").decode(),
        base64.b64encode(zlib.compress(bytes(1 << 24))).decode(),
    ],
)
def test_texts_that_are_no_map(text):
    with pytest.raises(DamagedError, match="map of shards"):
        decode_shard_map(text, (3, 5))
