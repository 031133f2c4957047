"""Static models of whole numbers for the range coder: constant, shape, signed or counts, in whole numbers only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tilestream.errors import DamagedError
from tilestream.types import Array

LARGEST_CODE = 32767
PROBABILITY_BITS = 24
"""Of the coder: it gives each value one part in 2^24, and by its weight what is left."""
_ONE = 1 << 32
_PEAK = 1 << 38
_FORMS = ("constant", "shape", "counts", "signed")
_STEPS = 24


class Reading:
    """Bytes that are read from the front, each read checked."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        if count > len(self._data) - self._at:
            raise DamagedError(f"entropy-coded numbers: cut, {len(self._data):,} bytes are there")
        self._at += count
        return self._data[self._at - count : self._at]

    def whole(self, *, least: int, most: int) -> int:
        """Return the whole number that comes next: 7 bits a byte, the lowest first, as `write_whole` wrote it."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        if byte >= 0x80 or not least <= value <= most:
            raise DamagedError(f"entropy-coded numbers: {value:,} where {least:,} to {most:,} was expected")
        return value

    def rest(self) -> bytes:
        """Return what was not read yet."""
        return self._data[self._at :]


def write_whole(written: bytearray, value: int) -> None:
    """Append a whole number of 0 to 2^35 − 1, 7 bits a byte, the lowest first."""
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How often each value occurs."""

    low: int
    """The first value of `counts`."""
    counts: npt.NDArray[np.int64]
    """`(values,)`; empty where nothing was counted, otherwise the first and the last are not 0."""

    @classmethod
    def of(cls, codes: Array) -> Histogram:
        """Return that of whole numbers."""
        if not codes.size:
            return cls(low=0, counts=np.zeros(0, np.int64))
        low = int(codes.min())
        return cls(low=low, counts=np.bincount(codes.astype(np.int64) - low))

    def __add__(self, other: Histogram) -> Histogram:
        if not (self.counts.size and other.counts.size):
            return self if self.counts.size else other
        low = min(self.low, other.low)
        counts = np.zeros(max(self.low + len(self.counts), other.low + len(other.counts)) - low, np.int64)
        for one in (self, other):
            counts[one.low - low : one.low - low + len(one.counts)] += one.counts
        return Histogram(low=low, counts=counts)


@dataclass(frozen=True, kw_only=True)
class CodeModel:
    """A distribution over `size` values from `low` on."""

    form: Literal["constant", "shape", "counts", "signed"]
    """How its weights are made."""
    low: int
    """Smallest value."""
    size: int = 1
    """How many values; 1 for a constant."""
    centre: int = 0
    """Of a shape: the index of its most likely value; of a signed one that of 0, in the middle."""
    slope: int = 0
    """Of a shape: 1 − r as 16 bits, see `_ratio`; a signed one has a few of them, see `_signed_slope`."""
    curve: int = 0
    """Of a shape: 1 − q as 16 bits."""
    sizes: bytes = b""
    """Of counts: the weight of each value as a byte, see `_weights_of`."""

    def weights(self) -> npt.NDArray[np.int64]:
        """Return `(size,)` of whole numbers that sum to 2^24 − size: the coder adds one part to each."""
        raw = (
            _weights_of(self.sizes) if self.form == "counts" else _shape(self.size, self.centre, self.slope, self.curve)
        )
        whole = (1 << PROBABILITY_BITS) - self.size
        total = int(raw.sum())
        # a sum of less than 2^38, so that products with 2^24 stay within 63 bits
        shift = max(0, total.bit_length() - 38)
        raw = raw >> shift
        weights = raw * whole // int(raw.sum())
        weights[int(weights.argmax())] += whole - int(weights.sum())
        return weights

    def for_coder(self) -> Any:
        """Return it as a model of `constriction`: floats of whole numbers, so that the coder has nothing to round."""
        import constriction

        return constriction.stream.model.Categorical(self.weights().astype(np.float64), perfect=False)

    def cost_bits(self, histogram: Histogram) -> float:
        """Return the bits of the model and of codes of such a histogram."""
        bits = 8.0 * (len(self.to_bytes()) + 1)
        if self.size > 1 and histogram.counts.size:
            shares = (self.weights() + 1.0) / (1 << PROBABILITY_BITS)
            first = histogram.low - self.low
            bits -= float(histogram.counts @ np.log2(shares[first : first + len(histogram.counts)]))
        return bits

    def to_bytes(self) -> bytes:
        """Return form and parameters."""
        written = bytearray([_FORMS.index(self.form)])
        if self.form == "signed":
            write_whole(written, self.centre)
            return bytes([*written, (self.slope >> 12 & 7) << 5 | self.slope & 31])
        write_whole(written, 2 * self.low if self.low >= 0 else -2 * self.low - 1)
        if self.form != "constant":
            write_whole(written, self.size)
        if self.form == "shape":
            write_whole(written, self.centre)
            written += self.slope.to_bytes(2, "little") + self.curve.to_bytes(2, "little")
        return bytes(written) + self.sizes

    @classmethod
    def signed(cls, most: int, byte: int) -> CodeModel:
        """Return weights ∝ r^|k| for values of up to ±`most`: what weights of networks are like, in a few bytes."""
        return cls(form="signed", low=-most, size=2 * most + 1, centre=most, slope=_signed_slope(byte))

    @classmethod
    def read(cls, reading: Reading, *, most: int) -> CodeModel:
        """Return the model that comes next; raise `DamagedError` where its values exceed ±`most`.

        Parameters
        ----------
        reading : Reading
            Where it stands.
        most : int
            Largest magnitude of a value.

        Returns
        -------
        CodeModel
            With weights of at least one value above 0.
        """
        form = reading.take(1)[0]
        if form == _FORMS.index("signed"):
            return cls.signed(reading.whole(least=1, most=most), reading.take(1)[0])
        folded = reading.whole(least=0, most=2 * most)
        low = folded // 2 if folded % 2 == 0 else -(folded + 1) // 2
        if form == 0:
            return cls(form="constant", low=low)
        size = reading.whole(least=2, most=most - low + 1)
        if form == 1:
            centre = reading.whole(least=0, most=size - 1)
            slope, curve = (int.from_bytes(reading.take(2), "little") for _ in range(2))
            return cls(form="shape", low=low, size=size, centre=centre, slope=slope, curve=curve)
        sizes = reading.take(size)
        if form != 2 or not any(sizes):
            raise DamagedError(f"entropy-coded numbers: a model of form {form}, or one without any weight")
        return cls(form="counts", low=low, size=size, sizes=sizes)


def _signed_slope(byte: int) -> int:
    """Return the slope that a byte stands for: 1 − r of 8 to 15 sixteenths, halved up to 31 times."""
    return (8 + (byte >> 5)) << 12 | byte & 31


def best_model(histogram: Histogram) -> CodeModel:
    """Return the model that costs the fewest bytes, its own included.

    Parameters
    ----------
    histogram : Histogram
        Of the codes.

    Returns
    -------
    CodeModel
        Constant, shape, counts or signed.
    """
    counts, low = histogram.counts, histogram.low
    if counts.size <= 1:
        return CodeModel(form="constant", low=low)
    sizes = bytes(map(_byte_of, counts.tolist()))
    found = [CodeModel(form="counts", low=low, size=len(counts), sizes=sizes)]
    mode, mean = int(counts.argmax()), round(float(counts @ np.arange(len(counts))) / float(counts.sum()))
    for centre in {mode, mean}:
        slope, curve = _fitted(counts, centre)
        found.append(CodeModel(form="shape", low=low, size=len(counts), centre=centre, slope=slope, curve=curve))
    found.append(_nearest_signed(histogram))
    return min(found, key=lambda model: (model.cost_bits(histogram), _FORMS.index(model.form), model.centre))


def _nearest_signed(histogram: Histogram) -> CodeModel:
    """Return the signed model of the mean magnitude."""
    counts, values = histogram.counts, np.abs(np.arange(len(histogram.counts)) + histogram.low)
    mean = max(float(counts @ values) / float(counts.sum()), 1e-6)
    lacking = 1 - (math.sqrt(1 + mean * mean) - 1) / mean
    exponent = min(31, max(0, math.floor(-math.log2(lacking))))
    mantissa = min(15, max(8, round(16 * lacking * 2**exponent)))
    return CodeModel.signed(int(values.max()), (mantissa - 8) << 5 | exponent)


@lru_cache(maxsize=16)  # costs are compared of few at a time
def _shape(size: int, centre: int, slope: int, curve: int) -> npt.NDArray[np.int64]:
    """Return weights that fall from the centre by whole-number ratios."""
    ratio, bend = _ratio(slope), _ratio(curve)
    reach = max(centre, size - 1 - centre)
    falling = np.zeros(reach + 1, np.int64)
    weight = _PEAK
    for distance in range(reach + 1):
        falling[distance] = weight
        weight = weight * ratio >> 32
        ratio = ratio * bend >> 32
        if not weight:
            break
    return falling[np.abs(np.arange(size) - centre)]


def _ratio(code: int) -> int:
    """Return a ratio of at most 1 in 2^-32, from 11 bits of mantissa and 5 of exponent of what it lacks to 1."""
    return _ONE - ((code >> 5) << 21 >> (code & 31))


def _ratio_code(lacking: float) -> int:
    """Return the code whose ratio is nearest to 1 − `lacking`."""
    lacking = min(max(lacking, 0.0), 2047 / 2048)
    exponent = 0
    while exponent < 31 and lacking * 2048 * 2 ** (exponent + 1) <= 2047:
        exponent += 1
    return round(lacking * 2.0 ** (11 + exponent)) << 5 | exponent


def _fitted(counts: npt.NDArray[np.int64], centre: int) -> tuple[int, int]:
    """Return slope and curve of most likelihood, by Newton's method on a concave function of both."""
    distance = np.abs(np.arange(len(counts)) - centre).astype(np.float64)
    traits = np.stack([distance, distance * (distance - 1) / 2])
    scale = np.maximum(traits.max(axis=1), 1.0)
    traits /= scale[:, None]
    shares = counts / counts.sum()
    wanted = traits @ shares
    falls = np.array([1.0 / max(float(distance @ shares), 1e-3), 0.0]) * scale

    def likelihood(falls: npt.NDArray[np.float64]) -> float:
        powers = -falls @ traits
        return float(-falls @ wanted - (powers.max() + math.log(np.exp(powers - powers.max()).sum())))

    best = likelihood(falls)
    for _ in range(_STEPS):
        powers = -falls @ traits
        density = np.exp(powers - powers.max())
        density /= density.sum()
        gap = traits @ density - wanted
        spread = (traits * density) @ traits.T - np.outer(traits @ density, traits @ density) + 1e-9 * np.eye(2)
        step = np.linalg.solve(spread, gap)
        for halving in range(8):
            tried = np.maximum(falls + step / 2**halving, 0.0)
            if (value := likelihood(tried)) > best:
                break
        else:
            break
        falls, best, gained = tried, value, value - best
        if gained < 1e-7:
            break
    slope, curve = (-math.expm1(-fall) for fall in falls / scale)
    return _ratio_code(slope), _ratio_code(curve)


@lru_cache(maxsize=1 << 12)
def _byte_of(count: int) -> int:
    """Return a count as a byte of 3 bits of mantissa and 5 of exponent; 0 is none."""
    if not count:
        return 0
    exponent = max(0, (count << 3).bit_length() - 4)
    mantissa = ((count << 3) + (1 << exponent >> 1)) >> exponent
    if mantissa == 16:
        exponent, mantissa = exponent + 1, 8
    return min(255, 1 + (exponent << 3 | mantissa - 8))


def _weights_of(sizes: bytes) -> npt.NDArray[np.int64]:
    codes = np.frombuffer(sizes, np.uint8).astype(np.int64) - 1
    weights: npt.NDArray[np.int64] = np.where(codes >= 0, (8 + (codes & 7)) << (np.maximum(codes, 0) >> 3), 0)
    return weights
