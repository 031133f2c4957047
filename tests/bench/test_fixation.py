"""Foveated against uniform at equal tokens: what is compared is comparable, and the test of the claim is right."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def few():
    from tests.bench.fixations import sample
    from tests.bench.platecanvas import split

    return sample(48, split(0)[0], seed=5)


def test_digits_to_train_and_to_test_with_are_disjoint():
    from tests.bench.platecanvas import digits, split

    train, test = split(3)
    assert not set(train) & set(test)
    assert len(train) + len(test) == len(digits()[1])


def test_what_a_canvas_is_said_to_show_is_there():
    from tests.bench.platecanvas import DIGITS, SIZES_PX, WANTED_HUE, digits, draw, split

    for size in SIZES_PX:
        canvas = draw(np.random.default_rng(size), size, split(0)[0])
        assert (np.bincount(canvas.labels[1:]) == 4).sum() == 1
        assert canvas.labels[1:].tolist().count(canvas.frequent) == 4
        (y, x), plate = canvas.corners_yx[0], canvas.pixels
        edge = plate[max(0, y - 3), x : x + size].astype(float).mean(axis=0)
        assert edge[1] < edge[0]
        assert edge[1] < edge[2]  # as the wanted hue
        assert len(canvas.corners_yx) == DIGITS
    assert WANTED_HUE[1] == min(WANTED_HUE)
    assert digits()[0].shape[1:] == (8, 8)


def test_all_ways_have_equal_tokens_and_only_a_fovea_reads_the_smallest_digit(few):
    from tests.bench.fixations import BUDGET, WAYS
    from tests.bench.tokenreader import NONE

    small = few.size_px == 12
    for way in WAYS:
        squares = few.tokens[way].squares
        assert squares.shape == (48, BUDGET, 4)
        assert len(np.unique(squares[0], axis=0)) == BUDGET
        assert (squares[0, :, 3] == 16 << squares[0, :, 0]).all()
    assert (few.tokens["uniform"].shows[small] == NONE).all()
    wanted = few.wanted.numpy()[:, None]
    assert (few.tokens["told"].shows[small] == wanted[small]).any(axis=1).all()
    assert (few.tokens["uniform"].shows[~small] == wanted[~small]).any(axis=1).all()
    assert few.found.mean() > 0.75


def test_the_query_is_that_of_the_library():
    import tilestream as ts
    from tests.bench.fixations import example_of, query_map
    from tests.bench.platecanvas import draw, split
    from tilestream.pipelines.embedder import TileEmbedder
    from tilestream.relevance.query import Query

    one, other = (draw(np.random.default_rng(seed), 24, split(0)[0]) for seed in (1, 2))
    example = example_of(one)
    embedder = TileEmbedder(encoder="handcrafted", params={"tile_px": 4}, reduce=8.0)
    found = Query(embedder=embedder, wanted=(example,), standardise=True)(ts.open_pyramid(other.pixels))
    ours = query_map(other, example)
    assert found.cell_yx == ours.cell_yx
    np.testing.assert_allclose(found.values, ours.values, atol=1e-5)


def test_training_runs_and_the_verdict_is_that_of_a_paired_test(tmp_path):
    from tests.bench.bench_fixation import QUESTIONS, Outcome, claim_rows, measure, plot
    from tests.bench.fixations import WAYS

    outcome = measure(seeds=1, train=18, test=9, effort=0.02)
    assert all(((right >= 0) & (right <= 1)).all() for right in outcome.right.values())
    uniform = np.array([[0.5, 0.5, 0.5], [0.6, 0.6, 0.6], [0.4, 0.4, 0.4]])
    better = np.array([0.05, 0.06, 0.04])[:, None]
    right = {(question, way): uniform + (way != "uniform") * better for question in QUESTIONS for way in WAYS}
    gain, spread, p = Outcome(right=right, found=uniform, seconds=1.0).gain("wanted", "query")
    assert (gain, spread) == (pytest.approx(0.05), pytest.approx(0.01))
    t = 0.05 / (0.01 / 3**0.5)
    assert p == pytest.approx(1 - t / (2 + t * t) ** 0.5)  # Student with two degrees of freedom, in closed form
    rows = claim_rows(Outcome(right=right, found=uniform, seconds=1.0))
    assert all("+ 3 points holds" in row["note"] for row in rows)
    right = {key: values[:1] for key, values in right.items()}
    assert plot(outcome, tmp_path / "plot.png").stat().st_size > 10_000
    once = claim_rows(Outcome(right=right, found=uniform[:1], seconds=1.0))
    assert all("not tested" in row["note"] for row in once)
