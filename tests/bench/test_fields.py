"""What scores find on real images, on a small slide and a small mosaic; and how finding is judged."""

import numpy as np
import pytest

import tilestream as ts
from tests.bench.fieldscores import BUDGETS, chosen, even_scores, judge, judge_even, judge_random, read_tiles
from tilestream.types import Box


def test_the_best_tiles_are_chosen_and_of_equal_ones_the_first():
    scores = np.array([[1.0, 3.0, -np.inf], [3.0, 3.0, 2.0]])
    assert chosen(scores, 0.5).tolist() == [[False, True, False], [True, True, False]]
    assert chosen(scores, 0.34).tolist() == [[False, True, False], [True, False, False]]
    wanted = np.array([[True, False, True], [True, False, True]])
    assert chosen(scores, 0.5, wanted).tolist() == [[False, False, False], [True, False, True]]


def test_a_perfect_score_finds_all_that_fits_and_chance_finds_the_budget():
    target = np.zeros((40, 50))
    target[3:5, 10:20] = 1.0  # 20 of 2,000 tiles: the first budget
    perfect = judge("perfect", target, target, others={"rest": 1 - target})
    assert perfect.recall == (1, 1, 1, 1)
    assert perfect.enrichment == pytest.approx([1 / budget for budget in BUDGETS])
    assert perfect.rank < 0.01
    assert perfect.others["rest"] == pytest.approx((0, 0.8, 0.9, 0.95))
    assert judge("worst", -target, target).recall == (0, 0, 0, 0)
    chance, spread = judge_random(target, seeds=200)
    assert all(abs(one - b) < 4 * s / 200**0.5 for one, b, s in zip(chance.recall, BUDGETS, spread, strict=True))
    assert abs(chance.rank - 0.5) < 0.05
    assert judge_even(target, phases=200).recall == pytest.approx(BUDGETS, abs=0.03)
    even = chosen(even_scores((40, 50)), 0.05)
    assert even.sum() == 100
    assert even[:20].sum() == pytest.approx(50, abs=4)
    assert even[:, :25].sum() == pytest.approx(50, abs=4)


@pytest.fixture(scope="module")
def slide(shared_data, tmp_path_factory):
    from tests.bench.fieldslide import write_field_slide

    folder = shared_data / "slides" / "labelled-tiles"
    return write_field_slide(tmp_path_factory.mktemp("fields") / "slide.svs", folder, edge_px=8192, most=1, seed=1)


def test_what_is_said_to_lie_in_the_slide_lies_there(slide):
    pyr = ts.open_pyramid(slide.path)
    tissue, glass = slide.shares("nuclei"), slide.shares("glass")
    iy, ix = np.unravel_index(tissue.argmax(), tissue.shape)

    def mean(y, x):
        return pyr.read(Box(y=int(y) * 256, x=int(x) * 256, height=256, width=256)).mean(axis=(1, 2))

    red, green, blue = mean(iy, ix)
    assert green < blue < 180  # purple
    assert green < red
    iy, ix = np.argwhere(glass == 1)[0]
    assert mean(iy, ix).min() > 235
    assert read_tiles(pyr, glass > 0.99, 256) == (glass > 0.99).sum() * 256**2


def test_pens_and_glass_are_ignored_and_nuclei_are_found(slide):
    from tests.bench.fieldjudge import judge_slide

    result = judge_slide(ts.open_pyramid(slide.path), slide)
    for found in result.in_tissue.values():
        assert max(found.others["pen"]) == 0
        assert found.others["glass"][1] < 0.2
    for name in ("entropy", "itti", "like a box"):
        assert result.in_tissue[name].enrichment[1] > 7  # chance is 1
    # what stands out is the pen where nobody says that it is none
    assert result.everywhere["darkness"].others["pen"][0] > 0.5
    assert result.everywhere["like a box"].others["pen"][0] < result.everywhere["darkness"].others["pen"][0]


def test_bytes_that_are_read_are_those_of_the_chosen_tiles(slide):
    from tests.bench.bench_fields import reading_row, tree_rows

    row = reading_row(slide)  # raises where they are not
    assert row["value"] > 0
    *_, most = tree_rows(slide)
    assert most["value"] > 60  # % of the nuclei, with a fifth of the tokens
    assert most["note"].count(" 0.0 tiles of pen") == 2


def test_cloud_is_found_by_an_example_from_the_other_side(shared_data, tmp_path):
    from tests.bench.fieldjudge import judge_cloud
    from tests.bench.fieldscene import CUT, EXAMPLE_PX, write_cloud_mosaic

    mosaic = write_cloud_mosaic(tmp_path / "mosaic.tif", shared_data, height=960)
    assert mosaic.example.y_stop <= CUT[0] < CUT[1]
    assert mosaic.example.x_stop <= EXAMPLE_PX
    assert not mosaic.cloud[mosaic.marble].any()
    assert 0.01 < mosaic.cloud[mosaic.scene].mean() < 0.05
    results = judge_cloud(ts.open_pyramid(mosaic.path), mosaic)
    for found in results.values():
        assert found["like a box"].enrichment[1] > 8
        assert found["like a box"].recall[2] > found["like a box, raw"].recall[2]
    # ice is as bright as cloud
    assert results["the scene and ice"]["like a box"].recall[1] > results["the scene and ice"]["brightness"].recall[1]
