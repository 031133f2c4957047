"""A gaze that moves sees other tokens, and only as many as it must."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.fovea.trace import gaze_trace
from tilestream.errors import ConfigError
from tilestream.fovea import Fovea, GazePredictor, GazeStream
from tilestream.fovea.gaze import keys_of
from tilestream.fovea.prediction import Motion
from tilestream.types import Shape

SHAPE = Shape(y=1024, x=1024)
FOVEA = Fovea(fixations_yx=(512, 512), e0_px=45, max_level=4)


def rows(tokens):
    return {tuple(row) for row in tokens.tolist()}


@given(data=st.data())
def test_what_is_new_and_dropped_is_the_difference(data: st.DataObject) -> None:
    """Also of images of any shape, and whatever is foreseen; the tree is that of the kernel with its hysteresis."""
    shape = Shape(y=data.draw(st.integers(1, 700)), x=data.draw(st.integers(1, 700)))
    fovea = Fovea(fixations_yx=(0, 0), e0_px=30, law=data.draw(st.sampled_from(["inverse-linear", "gaussian"])))
    stream = GazeStream(fovea, shape, patch_px=16, predictor=data.draw(st.sampled_from([None, GazePredictor()])))
    before = stream.tokens
    for step in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.tuples(st.floats(0, shape.y), st.floats(0, shape.x)))
        move = stream.move(at, step * 0.02)
        here = Fovea(fixations_yx=at, e0_px=30, law=fovea.law, max_level=fovea.depth(shape, patch_px=16))
        assert_array_equal(move.tokens, here.tokens(shape, patch_px=16, previous=before if step else None))
        assert_array_equal(stream.tokens, move.tokens)
        assert rows(move.new) == rows(move.tokens) - rows(before)
        assert rows(move.dropped) == rows(before) - rows(move.tokens)
        assert not rows(move.ahead) & rows(move.tokens)
        assert len(set(keys_of(move.tokens).tolist())) == len(move.tokens)
        before = move.tokens


def test_a_gaze_that_trembles_changes_nothing() -> None:
    """Within ±0.25 of a level; the tree without hysteresis changes all the time."""
    stream = GazeStream(FOVEA, SHAPE, patch_px=16)
    assert stream.move((512, 512), 0.0).is_new.all()
    changed = 0
    for k in range(1, 40):
        at = (512 + 3 * np.sin(k), 512 + 3 * np.cos(k))
        move = stream.move(at, k / 60)
        assert not move.is_new.any()
        assert not len(move.dropped)
        changed += rows(Fovea(fixations_yx=at, e0_px=45, max_level=4).tokens(SHAPE, patch_px=16)) != rows(move.tokens)
    assert changed > 10


def test_a_small_move_changes_few() -> None:
    stream = GazeStream(FOVEA, SHAPE, patch_px=16)
    first = stream.move((500, 500), 0.0)
    move = stream.move((520, 500), 0.1)
    assert 0 < move.is_new.sum() < len(first.tokens) / 3


def test_half_of_what_comes_to_be_seen_is_foreseen() -> None:
    """Measured over 20 s: 54 % of 9,800 new tokens are foreseen, for nearly as many in vain."""
    counted = {}
    for predictor in (None, GazePredictor()):
        stream = GazeStream(FOVEA, SHAPE, patch_px=16, predictor=predictor)
        ahead, late, needless = set(), 0, 0
        for t_s, at in gaze_trace(1024, seconds=6):
            move = stream.move(at, t_s)
            new = rows(move.new)
            late += len(new - ahead) if t_s else 0
            needless += len(ahead - new)
            ahead = rows(move.ahead)
        counted[predictor is not None] = late, needless
    (late_alone, none), (late, needless) = counted[False], counted[True]
    assert none == 0
    assert late < 0.65 * late_alone
    assert needless < late_alone, "what is read in vain is less than what had to be read"


def test_a_movement_goes_on_and_comes_to_rest() -> None:
    steady = GazePredictor(smoothing_s=1e-6)
    motion = Motion(yx=(10.0, 20.0), t_s=1.0)
    assert motion.ahead(steady) == (10.0, 20.0), "nothing is known of a first sample"
    motion = motion.seen((12.0, 16.0), 1.02, steady)
    assert_allclose(motion.velocity_yx, (100, -200))
    far = 0.1 * (1 - np.exp(-0.02 / 0.1))
    assert_allclose(motion.ahead(steady), (12 + 100 * far, 16 - 200 * far))
    assert_allclose(motion.ahead(GazePredictor(horizon_s=99, smoothing_s=1e-6)), (12 + 10, 16 - 20))
    halved = Motion(yx=(0.0, 0.0), t_s=0.0).seen((1.0, 0.0), 0.01, GazePredictor(smoothing_s=0.01 / np.log(2)))
    assert_allclose(halved.velocity_yx, (50, 0))


def test_what_is_foreseen_stays_in_the_image() -> None:
    stream = GazeStream(FOVEA, SHAPE, patch_px=16, predictor=GazePredictor())
    stream.move((500, 900), 0.0)
    move = stream.move((500, 1020), 0.016)
    assert len(move.ahead)
    assert (move.ahead[:, 1:3] < 1024).all()


@pytest.mark.parametrize(
    ("at", "t_s", "message"),
    [
        ((-1, 5), 2.0, "fixation of `Fovea`.*y -1"),
        ((5, 1025), 2.0, "x 1025"),
        ((float("nan"), 5), 2.0, "y nan.*tracker lost"),
        ((5,), 2.0, "pairs"),
        ((5, 5), 1.0, "`t_s`.*1.0 after 1.0"),
        ((5, 5), 0.5, "0.5 after 1.0"),
        ((5, 5), float("nan"), "`t_s`.*finite seconds"),
        ((5, 5), "now", "`t_s`"),
    ],
)
def test_a_sample_that_is_none_changes_nothing(at, t_s, message) -> None:
    stream = GazeStream(FOVEA, SHAPE, patch_px=16)
    before = stream.move((100, 100), 1.0).tokens
    with pytest.raises(ConfigError, match=message):
        stream.move(at, t_s)
    assert stream.tokens is before
    assert not stream.move((100, 100), 1.1).is_new.any()


@pytest.mark.parametrize("name", ["damping_s", "smoothing_s", "horizon_s"])
def test_times_of_a_predictor_are_positive(name) -> None:
    with pytest.raises(ConfigError, match=f"`{name}`"):
        GazePredictor(**{name: 0.0})


def test_hysteresis_of_more_than_a_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="`hysteresis`"):
        GazeStream(FOVEA, SHAPE, patch_px=16, hysteresis=2).move((5, 5), 0.0)
