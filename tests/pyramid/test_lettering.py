"""Words on pictures."""

from __future__ import annotations

import numpy as np
import pytest

from tilestream.pyramid.lettering import draw_text, plain, text_mask, text_px


@pytest.mark.parametrize("size_px", [10, 12, 16, 24])
def test_a_micro_sign_is_there_and_is_no_u(size_px):
    micro, u = text_mask("µ", size_px), text_mask("u", size_px)
    assert micro.shape == u.shape
    below = np.flatnonzero(u.max(axis=1))[-1] + 1
    assert micro[below:].max() >= u.max() - 20
    assert (np.flatnonzero(micro[below:].max(axis=0)) < micro.shape[1] / 2).all()
    np.testing.assert_array_equal(micro[: below // 2], u[: below // 2])


def test_signs_that_the_font_has_not_are_those_that_it_has():
    assert plain("Präparat 12 × 5 – 3\n\x07μm") == "Praparat 12 x 5 - 3  µm"
    assert text_px("500 µm", 16) == text_px("500 ", 16) + text_px("µ", 16) + text_px("m", 16)
    assert text_px("", 16) == 0


def test_text_that_does_not_fit_is_cut_off():
    pixels = np.full((20, 30, 3), 255, np.uint8)
    for yx in ((-8, -5), (15, 20), (50, 0), (0, -500)):
        draw_text(pixels, "many words", yx, size_px=16, ink=(0, 0, 0))
    assert pixels.min() < 100
    before = pixels.copy()
    draw_text(pixels, "", (0, 0), size_px=16, ink=(0, 0, 0))
    np.testing.assert_array_equal(pixels, before)
