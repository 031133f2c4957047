import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilestream.codecs.quantise import MAX_BITS, MIN_BITS, Quantised, largest_code, quantise
from tilestream.errors import ConfigError, DamagedError

VALUES = hnp.arrays(np.float32, st.integers(0, 200), elements=st.floats(-(2**19), 2**19, width=32))
BITS = st.integers(MIN_BITS, MAX_BITS)


@given(values=VALUES, bits=BITS, data=st.data())
def test_error_is_bounded_and_bytes_hold_it_exactly(values, bits, data):
    starts = (0, *sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4))))
    found = quantise(values, starts, bits)
    assert np.abs(found.codes).max(initial=0) <= largest_code(bits)
    back = Quantised.from_bytes(found.to_bytes(), starts=starts, count=len(values))
    assert back.bits == bits
    assert back.starts == starts
    assert (back.codes == found.codes).all()
    assert (back.scales == found.scales).all()
    assert (back.values() == found.values()).all()
    assert back.values().dtype == np.float32
    for first, last in zip(starts, [*starts[1:], len(values)], strict=True):
        group, own = values[first:last], found.values()[first:last]
        step = np.abs(group).max(initial=0) / largest_code(bits)  # of the scale that clips nothing
        assert float(np.square(own - group, dtype=np.float64).sum()) <= (0.3 * float(step) ** 2 + 1e-60) * len(group)


def test_outliers_are_clipped_where_that_costs_less():
    values = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    values[:5] = 12
    error = [float(np.square(quantise(values, bits=bits).values() - values).mean()) for bits in (4, 8)]
    assert error[0] < 0.5 * (12 / 7) ** 2 / 12, "a scale that clips nothing"
    assert error[1] < error[0] / 50


def test_each_group_has_its_scale():
    values = np.concatenate([np.linspace(-1, 1, 100), np.linspace(-1e-3, 1e-3, 100)]).astype(np.float32)
    apart, together = quantise(values, (0, 100)), quantise(values)
    assert apart.scales[0] > 500 * apart.scales[1]
    assert not together.codes[100:].any()
    assert np.abs(apart.values() - values)[100:].max() < 1e-5
    assert quantise(np.zeros(4, np.float32)).scales.tolist() == [1]


def test_given_scales_are_taken():
    found = quantise(np.array([1, 2, 40], np.float32), (0, 2), scales=np.array([0.5, 0.25], np.float32))
    assert found.codes.tolist() == [2, 4, 127]
    assert found.scales.tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("values", "options", "what"),
    [
        ([np.nan], {}, "`values`"),
        ([np.inf], {}, "`values`"),
        ([1e35], {}, "`values`"),
        ([1], {"bits": 1}, "`bits`"),
        ([1], {"bits": 17}, "`bits`"),
        ([1], {"starts": (1,)}, "`starts`"),
        ([1], {"scales": np.zeros(1, np.float32)}, "`scales`"),
        ([1], {"scales": np.ones(2, np.float32)}, "`scales`"),
    ],
)
def test_what_cannot_be_quantised_is_refused(values, options, what):
    with pytest.raises(ConfigError, match=what):
        quantise(np.array(values, np.float32), **options)


@given(data=st.binary(max_size=80), count=st.integers(0, 500), groups=st.integers(1, 4))
def test_any_bytes_are_numbers_or_damage(data, count, groups):
    starts = tuple(number * count // groups for number in range(groups))
    try:
        found = Quantised.from_bytes(data, starts=starts, count=count)
    except DamagedError:
        return
    assert np.isfinite(found.values()).all()


@pytest.mark.parametrize("scale", [b"\x00\x00", b"\x80\x7f", b"\xc0\x7f", b"\x80\xbf"], ids=["0", "inf", "nan", "-1"])
def test_a_scale_that_is_none_is_damage(scale):
    whole = bytearray(quantise(np.ones(3, np.float32)).to_bytes())
    whole[1:3] = scale
    with pytest.raises(DamagedError, match="scale"):
        Quantised.from_bytes(bytes(whole), starts=(0,), count=3)
