from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.build import pyramid
from tests.strategies import shapes
from tilestream.pyramid.coarse import mask_level, read_coarse, windows
from tilestream.types import Level, PlanLevel, Shape


@given(stored=shapes(max_px=900), block=shapes(max_px=300), ratio=st.integers(1, 40), pixel_bytes=st.integers(1, 99))
def test_windows_cover_once_and_stay_small(stored, block, ratio, pixel_bytes):
    from tilestream.pyramid import coarse

    level = Level(index=0, shape=stored, block=block)
    shape = Shape(y=-(-stored.y // ratio), x=-(-stored.x // ratio))
    plan = PlanLevel(stored=0, ratio_yx=(Fraction(ratio), Fraction(ratio)), shape=shape, scale_yx=(ratio, ratio))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coarse, "WINDOW_BYTES", 20_000)
        boxes = list(windows(plan, level, pixel_bytes=pixel_bytes))
    count = np.zeros(shape.yx, int)
    for box in boxes:
        count[box.slices_yx] += 1
        # no more than was allowed, but for a block or a mask pixel, which cannot be cut
        read = Shape(y=min(box.height * ratio, stored.y), x=min(box.width * ratio, stored.x))
        edge = int(np.sqrt(20_000 // pixel_bytes))
        assert read.x <= max(edge + block.x, ratio)
        assert read.y <= max(20_000 // pixel_bytes // min(read.x, block.x), block.y, ratio)
    assert (count == 1).all()


@given(size=shapes(min_px=30, max_px=400), seed=st.integers(0, 9))
def test_windows_do_not_show(size, seed):
    from tilestream.pyramid import coarse

    picture = np.random.default_rng(seed).integers(0, 255, (*size.yx, 3), np.uint8)
    pyr = pyramid(picture, mpp=2.0)  # four pixels make a mask pixel
    level = mask_level(pyr.info)
    assert level.scale_yx == (4, 4)
    whole = read_coarse(pyr, level)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coarse, "WINDOW_BYTES", 3000)
        patched = read_coarse(pyr, level)
    np.testing.assert_array_equal(whole.pixels, patched.pixels)
    assert whole.valid.all()
    exact = picture[: size.y // 4 * 4, : size.x // 4 * 4].reshape(size.y // 4, 4, size.x // 4, 4, 3).mean(axis=(1, 3))
    inner = whole.pixels[: size.y // 4, : size.x // 4]
    np.testing.assert_allclose(inner, exact, atol=0.5)
