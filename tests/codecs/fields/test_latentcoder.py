import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codecs.fields.madedecoder import made_codes, made_decoder
from tilestream.codecs.fields.latentcoder import CLASSES, EDGES, LARGEST, NEIGHBOURS_YX, ONE, LatentPrior
from tilestream.errors import DamagedError

PRIOR = made_decoder().prior
CHANNELS = PRIOR.channels


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    scale=st.sampled_from([0.0, 0.3, 2.0, 40.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_codes_come_back(height, width, scale, seed):
    codes = made_codes(np.random.default_rng(seed), CHANNELS, height, width, scale=scale)
    np.testing.assert_array_equal(PRIOR.decode(PRIOR.encode(codes), height=height, width=width), codes)


def expected_of(codes, channel, y, x):
    """Prediction and spread of a code, by the definition."""
    around = [
        int(codes[c, y + dy, x + dx]) if y + dy >= 0 and 0 <= x + dx < codes.shape[2] else 0
        for dy, dx in NEIGHBOURS_YX
        for c in range(CHANNELS)
    ]
    around += [int(codes[c, y, x]) for c in range(channel)]
    means = [int(weight) for weight in PRIOR.means[channel, : len(around)]]
    spreads = [int(weight) for weight in PRIOR.spreads[channel, : len(around)]]
    mean = (sum(a * b for a, b in zip(means, around, strict=True)) + ONE // 2) // ONE
    return min(max(mean, -LARGEST - 1), LARGEST + 1), int(PRIOR.least[channel]) + sum(
        a * abs(b) for a, b in zip(spreads, around, strict=True)
    )


def test_predictions_and_classes_are_those_of_the_definition():
    codes = made_codes(np.random.default_rng(3), CHANNELS, 5, 4, scale=4)
    gaps, groups = PRIOR.gaps(codes)
    for at in np.ndindex(codes.shape):
        mean, spread = expected_of(codes, *at)
        assert gaps[at] == codes[at] - mean
        assert groups[at] == sum(spread >= edge for edge in EDGES)


def test_models_of_what_is_coded_cost_less():
    codes = made_codes(np.random.default_rng(4), CHANNELS, 32, 32, scale=0.4)
    assert len(PRIOR.with_models([codes]).encode(codes)) < 0.95 * len(PRIOR.encode(codes))


def test_neighbours_that_tell_make_codes_cheaper():
    smooth = np.cumsum(np.random.default_rng(5).integers(-1, 2, (CHANNELS, 24, 24)), axis=2).clip(-LARGEST, LARGEST)
    blind = LatentPrior(
        means=np.zeros_like(PRIOR.means), spreads=PRIOR.spreads * 0, least=PRIOR.least, models=PRIOR.models
    )
    left = blind.means.copy()
    left[np.arange(CHANNELS), np.arange(CHANNELS)] = ONE
    seeing = LatentPrior(means=left, spreads=blind.spreads, least=PRIOR.least, models=PRIOR.models)
    costs = [len(prior.with_models([smooth]).encode(smooth)) for prior in (blind, seeing)]
    assert costs[1] < 0.7 * costs[0]


def test_a_prior_comes_back_from_bytes():
    data = PRIOR.to_bytes()
    again = LatentPrior.from_bytes(data, channels=CHANNELS)
    assert again.to_bytes() == data
    assert len(again.models) == CLASSES
    for wrong in (data[:-1], data + b"\0", b""):
        with pytest.raises(DamagedError):
            LatentPrior.from_bytes(wrong, channels=CHANNELS)


@pytest.mark.parametrize("side", [(1, 1), (400, 400)])
def test_bytes_that_cannot_hold_so_much_are_damage(side):
    with pytest.raises(DamagedError, match="cannot be in"):
        PRIOR.decode(b"" if side == (1, 1) else bytes(4), height=side[0], width=side[1])


@given(data=st.binary(min_size=1, max_size=60))
def test_any_bytes_are_codes_or_damage(data):
    try:
        found = PRIOR.decode(data, height=6, width=5)
    except DamagedError:
        return
    assert np.abs(found).max() <= LARGEST
