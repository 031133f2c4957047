"""Reading less at 70 % of its bars, on a small image and a short gaze: below that is no noise."""

from pathlib import Path

import pytest

from tests.bench.bench_fovea import DIFFERENCE_BAR, READ_BAR, difference_row, model_row, slide_tokens, square
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE
from tilestream.fovea import Fovea
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

pytestmark = [pytest.mark.alone, pytest.mark.slow]


def test_choosing_and_a_block_of_a_model_against_that_block_on_all() -> None:
    image = square()
    row = until_held(lambda: model_row(image, rounds=1, bar=SHARE * READ_BAR))
    assert row["ok"], row


def test_the_difference_against_everything_in_sight(tmp_path: Path) -> None:
    shape = Shape(y=1024, x=1024)
    fetch = slide_tokens(write_slide(tmp_path / "slide.svs", shape))
    fovea = Fovea(fixations_yx=(0, 0), e0_px=45, max_level=4)
    row = until_held(lambda: difference_row(fetch, fovea, shape, seconds=1.0, rounds=3, bar=SHARE * DIFFERENCE_BAR))
    assert row["ok"], row
