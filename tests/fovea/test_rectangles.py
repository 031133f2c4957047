"""Tokens as rectangles: each in one, nothing else inside."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tilestream.fovea import Fovea
from tilestream.fovea.rectangles import rectangles_of
from tilestream.types import Shape


@given(data=st.data())
def test_rectangles_hold_each_token_once_and_nothing_else(data: st.DataObject) -> None:
    noise = np.random.default_rng(data.draw(st.integers(0, 999)))
    shape = Shape(y=data.draw(st.integers(1, 500)), x=data.draw(st.integers(1, 500)))
    fovea = Fovea(fixations_yx=noise.random((2, 2)) * shape.yx, e0_px=30)
    tokens = fovea.tokens(shape, patch_px=8)
    tokens = tokens[noise.permutation(len(tokens))[: data.draw(st.integers(0, 400))]]
    most = data.draw(st.integers(1, 9))
    found = rectangles_of(tokens, most=most)
    assert sorted(row for one in found for row in one.rows.ravel().tolist()) == list(range(len(tokens)))
    for one in found:
        size = 8 << one.level
        y, x = np.indices(one.rows.shape) * size
        expected = np.stack([np.full_like(y, one.level), one.y + y, one.x + x, np.full_like(y, size)], axis=-1)
        assert (tokens[one.rows] == expected).all()
        assert max(one.rows.shape) <= most


def test_a_ring_is_few_rectangles() -> None:
    """A level of a fovea surrounds the finer one: top, bottom, left and right, where it is a square one."""
    y, x = np.indices((6, 6)).reshape(2, -1)
    ring = (np.maximum(abs(2 * y - 5), abs(2 * x - 5)) > 1).nonzero()[0]
    tokens = np.column_stack([np.zeros_like(y), 8 * y, 8 * x, np.full_like(y, 8)])[ring]
    assert len(tokens) == 32
    assert len(rectangles_of(tokens, most=9)) == 4
