from bisect import bisect_right

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilestream.codecs.codemodels import LARGEST_CODE, PROBABILITY_BITS, CodeModel, Histogram, Reading, best_model
from tilestream.codecs.entropy import CODES_A_BYTE, FREE_CODES, decode_codes, encode_codes
from tilestream.errors import ConfigError, DamagedError

CODES = hnp.arrays(np.int16, st.integers(0, 300), elements=st.integers(-LARGEST_CODE, LARGEST_CODE)) | hnp.arrays(
    np.int8, st.integers(0, 300), elements=st.integers(-7, 7)
)
RANDOM = np.random.default_rng(7)
DRAWN = {
    "geometric": np.rint(RANDOM.laplace(2, 9, 20_000)).clip(-127, 127),
    "gaussian": np.rint(RANDOM.normal(0, 30, 20_000)).clip(-127, 127),
    "uniform": RANDOM.integers(-7, 8, 20_000),
    "two peaks": np.r_[RANDOM.normal(-60, 5, 10_000), RANDOM.normal(60, 5, 10_000)].round(),
    "wide": np.rint(RANDOM.normal(0, 900, 20_000)),
}


@given(codes=CODES, data=st.data())
def test_codes_come_back_whatever_their_groups(codes, data):
    starts = (0, *sorted(data.draw(st.lists(st.integers(0, len(codes)), max_size=6))))
    encoded = encode_codes(codes, starts)
    assert (decode_codes(encoded, starts, count=len(codes)) == codes).all()


@pytest.mark.parametrize("name", DRAWN)
def test_cost_is_that_of_the_entropy(name):
    codes = DRAWN[name].astype(np.int16)
    shares = np.unique(codes, return_counts=True)[1] / len(codes)
    least_bytes = -float(shares @ np.log2(shares)) * len(codes) / 8
    model_bytes = {"two peaks": 200, "wide": 0.05 * least_bytes}.get(
        name, 20
    )  # 20,000 codes say little of 5,000 values
    assert len(encode_codes(codes)) < 1.01 * least_bytes + model_bytes
    assert best_model(Histogram.of(codes)).form == ("counts" if name == "two peaks" else "shape")


def decoded_by_whole_numbers(data, starts, count):
    """The codes, by the formula of the module and nothing but Python's whole numbers."""
    whole, models = Reading(data), []
    reading = Reading(whole.take(whole.whole(least=0, most=len(data))))
    while len(models) < len(starts):
        model = CodeModel.read(reading, most=LARGEST_CODE)
        models += [model] * reading.whole(least=1, most=len(starts) - len(models))
    rest = whole.rest() + bytes(3)
    words = [int.from_bytes(rest[at : at + 4], "little") for at in range(0, len(rest) - 3, 4)] + [0] * (count + 2)
    circle, read, low, span, found = 2**64, 2, 0, 2**64 - 1, []
    point = words[0] << 32 | words[1]
    for model, first, last in zip(models, starts, [*starts[1:], count], strict=True):
        bounds = [0]
        for weight in model.weights().tolist() if model.size > 1 else []:
            bounds.append(bounds[-1] + weight + 1)
        for _ in range(last - first):
            if model.size == 1:
                found.append(model.low)
                continue
            part = span >> PROBABILITY_BITS
            symbol = bisect_right(bounds, (point - low) % circle // part) - 1
            found.append(model.low + symbol)
            low, span = (low + part * bounds[symbol]) % circle, part * (bounds[symbol + 1] - bounds[symbol])
            if span < 2**32:
                low, span, point, read = (
                    low * 2**32 % circle,
                    span << 32,
                    (point << 32 | words[read]) % circle,
                    read + 1,
                )
    return found


@given(codes=CODES, data=st.data())
def test_bytes_mean_what_whole_numbers_say(codes, data):
    """No float and no library decides: the formula alone reads what was written, on any machine."""
    starts = (0, *sorted(data.draw(st.lists(st.integers(0, len(codes)), max_size=3))))
    assert decoded_by_whole_numbers(encode_codes(codes, starts), starts, len(codes)) == codes.tolist()


def test_few_codes_cost_few_bytes():
    assert len(encode_codes(np.zeros(50_000, np.int8))) == 4
    assert len(encode_codes(np.zeros(0, np.int8))) == 4
    assert len(encode_codes(np.full(9, -3), range(9))) == 4, "equal groups share a model"
    assert len(encode_codes(np.rint(RANDOM.normal(0, 20, 1000)).astype(np.int8))) < 850


def test_groups_have_models_of_their_own_where_that_is_cheaper():
    narrow, wide = RANDOM.integers(-1, 2, 4000), RANDOM.integers(-100, 101, 4000)
    both = np.concatenate([narrow, wide])
    assert len(encode_codes(both, (0, 4000))) < 0.93 * len(encode_codes(both))
    alike = RANDOM.integers(-5, 6, 6400)
    assert len(encode_codes(alike, range(0, 6400, 64))) <= len(encode_codes(alike)) + 1


def test_bytes_of_the_format_do_not_change():
    codes = np.array([0, 1, -2, 0, 0, 3, -1, 0, 1, 0, -1, 2, 0, 0, 1, -4] * 20, np.int8)
    encoded = encode_codes(codes, (0, 100))
    assert encoded.hex() == (
        "0403042002dafe2796c7fa1e095b1c16bb6e6b1f0a6db6333f4668ebea3434b869ebcbbceaca2d04d8bb5552414109e566bc"
        "6572ab564993215687d9ac57a3f72bc9aa9fef6ce84902bdb5bef277f0993cdb1f2ccd1118245f85249ff184d40347df0f54"
        "75865a9cce2ff704b7"
    )
    by_counts = bytes.fromhex(  # of the same codes, by a model that costs more
        "0c0207082300232b3a302323021934e18fa66313a0fedb8eae79a35db7a8db4e63fe227a5485c7d09d896a9b3d20c1933e7cf0"
        "5caf450bae8dde2a9436c9012f7697c0f52f7af2088d0bccdcc786c4135a3feef062535e493bc1073b2d7ef1cd164394b98e"
        "64147980ac6a9cf7"
    )
    for data in (encoded, by_counts):
        assert (decode_codes(data, (0, 100), count=320) == codes).all()


@given(
    size=st.integers(2, 3000), data=st.data(), slope=st.integers(0, 65535), curve=st.integers(0, 65535)
)  # fmt: skip
def test_weights_leave_the_coder_nothing_to_round(size, data, slope, curve):
    centre = data.draw(st.integers(0, size - 1))
    sizes = bytes(data.draw(st.lists(st.integers(0, 255), min_size=2, max_size=300).filter(any)))
    for model in (
        CodeModel(form="shape", low=0, size=size, centre=centre, slope=slope, curve=curve),
        CodeModel(form="counts", low=0, size=len(sizes), sizes=sizes),
    ):
        weights = model.weights()
        assert weights.min() >= 0
        assert int(weights.sum()) == (1 << PROBABILITY_BITS) - model.size
        assert CodeModel.read(Reading(model.to_bytes()), most=LARGEST_CODE) == model


def test_bytes_bound_how_many_codes_they_are():
    many = FREE_CODES + 5 * CODES_A_BYTE
    encoded = encode_codes(np.zeros(many, np.int8))
    assert len(encoded) == 5
    assert not decode_codes(encoded, count=many).any()
    with pytest.raises(DamagedError, match="cannot be in so few bytes"):
        decode_codes(encoded, count=2**40)


@given(data=st.binary(max_size=60), count=st.integers(0, 2000), groups=st.integers(1, 5))
def test_any_bytes_are_codes_or_damage(data, count, groups):
    starts = tuple(number * count // groups for number in range(groups))
    try:
        codes = decode_codes(data, starts, count=count, most=127)
    except DamagedError:
        return
    assert codes.shape == (count,)
    assert np.abs(codes).max(initial=0) <= 127


def test_codes_larger_than_wanted_are_damage():
    encoded = encode_codes(np.array([-8, 3, 8]))
    assert decode_codes(encoded, count=3, most=8).tolist() == [-8, 3, 8]
    with pytest.raises(DamagedError):
        decode_codes(encoded, count=3, most=7)


@pytest.mark.parametrize(
    ("codes", "starts"),
    [
        (np.zeros(3), (0,)),
        (np.zeros((2, 2), int), (0,)),
        (np.array([40_000]), (0,)),
        (np.array([-32_768]), (0,)),
        (np.zeros(3, int), (1,)),
        (np.zeros(3, int), ()),
        (np.zeros(3, int), (0, 2, 1)),
        (np.zeros(3, int), (0, 4)),
    ],
)
def test_what_are_no_codes_is_refused(codes, starts):
    with pytest.raises(ConfigError, match=r"`codes`|`starts`"):
        encode_codes(codes, starts)
