"""Whole numbers as few bytes: a range coder with a static model a group, whichever costs the fewest bytes.

A group is what shares a model, such as a level of a table; neighbours are joined where one model is cheaper than two.
Models are written before the codes, for each run of groups: its form, parameters, and how many groups it spans.

    constant   one value, no bits a code
    shape      weight ∝ r^|k| · q^(|k|(|k|−1)/2) around a centre: geometric at q = 1, Gaussian at r = √q, or between
    counts     a weight for each value, as one byte of 3 bits of mantissa and 5 of exponent

All tables are made of whole numbers by whole-number arithmetic (`codemodels`), and sum to what the coder's 24-bit
probabilities leave, so that no float is rounded on the way: what one machine writes every other reads. With a value's
cumulated weights c_k = Σ_{j<k} (w_j + 1), and words of 32 bits, little-endian in the file, the decoder is

    low, span, point = 0, 2^64 − 1, the first two words
    value k with  c_k ≤ (point − low) / (span >> 24) < c_{k+1}
    low += (span >> 24) · c_k,  span = (span >> 24) · (c_{k+1} − c_k);   below 2^32 all three shift by the next word

A code costs a reader memory though it may cost a file nothing. So a file of n bytes may hold no more than
2^20 + 512·n codes; where good luck would break that, zeros are appended.

Source: Martin, "Range encoding", 1979; the coder is that of `constriction` (Bamler, arXiv:2201.01741).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tilestream.codecs.codemodels import LARGEST_CODE, CodeModel, Histogram, Reading, best_model, write_whole
from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Array

FREE_CODES = 1 << 20
CODES_A_BYTE = 512
"""Of those beyond `FREE_CODES`."""


def encode_codes(codes: Array, starts: Sequence[int] = (0,)) -> bytes:
    """Return whole numbers as bytes.

    Parameters
    ----------
    codes : ndarray of integers
        `(n,)`, within ±32,767.
    starts : sequence of int
        First index of each group, ascending from 0; groups may be empty.

    Returns
    -------
    bytes
        Models and codes; how many groups and codes there are must be known from elsewhere.

    Raises
    ------
    ConfigError
        When codes or starts are none.
    """
    import constriction

    starts = require_starts(starts, count=len(codes))
    if (
        codes.ndim != 1
        or codes.dtype.kind not in "iu"
        or (codes.size and abs(int(codes.min())) > LARGEST_CODE)
        or (codes.size and int(codes.max()) > LARGEST_CODE)
    ):
        raise ConfigError.of(
            "`codes`",
            got=f"{codes.shape} {codes.dtype}",
            expected=f"whole numbers (n,) within ±{LARGEST_CODE:,}",
            do="Quantise them to 16 bits or less.",
        )
    written = bytearray()
    coder = constriction.stream.queue.RangeEncoder()
    ends = [*starts[1:], len(codes)]
    for groups, model in _runs([codes[first:last] for first, last in zip(starts, ends, strict=True)]):
        written += model.to_bytes()
        write_whole(written, groups.stop - groups.start)
        part = codes[starts[groups.start] : ends[groups.stop - 1]]
        if part.size and model.size > 1:
            coder.encode((part.astype(np.int32) - model.low), model.for_coder())
    words = coder.get_compressed().astype("<u4").tobytes()
    written += words
    needed = -(-max(0, len(codes) - FREE_CODES) // CODES_A_BYTE)
    return bytes(written) + bytes(max(0, needed - len(written)))


def decode_codes(
    data: bytes, starts: Sequence[int] = (0,), *, count: int, most: int = LARGEST_CODE
) -> npt.NDArray[np.int16]:
    """Return the whole numbers that bytes hold.

    Parameters
    ----------
    data : bytes
        Result of `encode_codes`.
    starts : sequence of int
        First index of each group, as when they were written.
    count : int
        How many codes.
    most : int
        Largest magnitude of a code that the caller takes.

    Returns
    -------
    ndarray of int16
        `(count,)`.

    Raises
    ------
    DamagedError
        When `data` is too short for `count`, models do not span the groups, or a code is larger than `most`.
    """
    import constriction

    if count > FREE_CODES + CODES_A_BYTE * len(data):
        raise DamagedError(f"entropy-coded numbers: {count:,} of them cannot be in {len(data):,} bytes")
    starts = require_starts(starts, count=count)
    reading = Reading(data)
    models: list[tuple[int, CodeModel]] = []
    groups = 0
    while groups < len(starts):
        model = CodeModel.read(reading, most=most)
        groups += reading.whole(least=1, most=len(starts) - groups)
        models.append((groups, model))
    rest = reading.rest()
    words = np.frombuffer(rest + bytes(-len(rest) % 4), "<u4").astype(np.uint32)
    codes = np.empty(count, np.int16)
    ends = [*starts[1:], count]
    try:
        decoder = constriction.stream.queue.RangeDecoder(words)
        first = 0
        for stop, model in models:
            last = ends[stop - 1]
            if model.size == 1 or first == last:
                codes[first:last] = model.low
            else:
                codes[first:last] = decoder.decode(model.for_coder(), last - first) + np.int32(model.low)
            first = last
    except (AssertionError, ValueError) as error:  # what the coder raises of words that no encoder writes
        raise DamagedError(f"entropy-coded numbers: no codes in this order of bits ({error})") from error
    return codes


def require_starts(starts: Sequence[int], *, count: int) -> tuple[int, ...]:
    """Return first indices of groups as a tuple, once they are known to be such.

    Parameters
    ----------
    starts : sequence of int
        Ascending from 0 to at most `count`.
    count : int
        How many numbers there are.

    Returns
    -------
    tuple of int
        The same.

    Raises
    ------
    ConfigError
        When they are none.
    """
    found = tuple(int(start) for start in starts)
    if not found or found[0] != 0 or any(a > b for a, b in zip(found, (*found[1:], count), strict=True)):
        raise ConfigError.of(
            "`starts` of groups",
            got=f"{len(found)} of them for {count:,} numbers",
            expected="first indices, ascending from 0, none behind the last number",
            do="Give the first index of each group.",
        )
    return found


def _runs(groups: Sequence[Array]) -> list[tuple[range, CodeModel]]:
    """Return runs of groups with the model of each, neighbours joined where that is cheaper."""
    runs: list[tuple[range, CodeModel]] = []
    seen = Histogram.of(groups[0])
    for number, group in enumerate(groups):
        own = Histogram.of(group)
        model = best_model(own)
        if runs:
            before, shared = runs[-1]
            together = seen + own
            joined = best_model(together)
            if joined.cost_bits(together) <= shared.cost_bits(seen) + model.cost_bits(own):
                runs[-1], seen = (range(before.start, number + 1), joined), together
                continue
        runs.append((range(number, number + 1), model))
        seen = own
    return runs
