import numpy as np
import pytest

from tilestream.errors import ConfigError
from tilestream.relevance import Entropy, Gradient
from tilestream.relevance.weights import checked_weights


class Grouped:
    def __init__(self, group):
        self.group = group

    def __call__(self, pyr):
        raise AssertionError("nobody looks")


QUERY, SCORER = Grouped("query"), Grouped("scorer")


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"entropy": Entropy()}, {"entropy": 1}),
        ({"e": Entropy(), "g": Gradient(), "q": QUERY}, {"e": 0.25, "g": 0.25, "q": 0.5}),
        ({"e": Entropy(), "g": Gradient()}, {"e": 0.5, "g": 0.5}),
        ({"g": Gradient(), "h": Gradient(cell_px=4), "q": QUERY}, {"g": 1 / 6, "h": 1 / 6, "q": 2 / 3}),
        ({"e": Entropy(), "mine": print}, {"e": 1 / 3, "mine": 2 / 3}),
        ({"e": Entropy(), "q": QUERY, "s": SCORER}, {"e": 0, "q": 0, "s": 1}),
    ],
)
def test_what_nobody_weights(terms, expected):
    assert checked_weights(terms, None) == pytest.approx(expected)


def test_weights_have_any_unit():
    terms = {"e": Entropy(), "g": Gradient()}
    assert checked_weights(terms, {"g": np.float32(30), "e": 10}) == {"e": 0.25, "g": 0.75}


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"e": 0, "g": 0}, "0 in sum"),
        ({"e": 1e308, "g": 1e308}, "inf in sum"),
        ({"e": -1, "g": 2}, "weight of `e`: got -1"),
        ({"e": float("nan"), "g": 2}, "weight of `e`: got nan"),
        ({"e": float("inf"), "g": 2}, "weight of `e`: got inf"),
        ({"e": "1", "g": 2}, "weight of `e`: got '1'"),
        ({"e": True, "g": 2}, "weight of `e`: got True"),
        ({"e": 1}, "none for `g`"),
        ({"e": 1, "g": 1, "gradent": 1}, "`gradent`: got an unknown name"),
    ],
)
def test_weights_that_make_no_sense(weights, told):
    with pytest.raises(ConfigError, match=told):
        checked_weights({"e": Entropy(), "g": Gradient()}, weights)


def test_no_terms():
    with pytest.raises(ConfigError, match="at least one"):
        checked_weights({}, None)


def test_a_group_that_there_is_not():
    with pytest.raises(ConfigError, match="`group`"):
        checked_weights({"x": Grouped("beauty")}, None)
