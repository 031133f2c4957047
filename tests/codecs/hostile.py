"""Files that someone might send: whole by their checksum, and wrong inside."""

from __future__ import annotations

import copy
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from tilestream.codecs.container import Packed, pack
from tilestream.errors import ConfigError, DamagedError, SourceError

MOST_BYTES = 1 << 27
"""Memory that a small file may take to be read: a million codes are free, whatever its size."""
WHOLE = [-1, 0, 1, 2, 3, 17, 255, 2**15, 2**16, 2**24, 2**31, 2**40, 2**53, 2**63, -(2**31)]
OTHER = [
    0.0,
    0.5,
    -1.5,
    1e-30,
    1e30,
    1e308,
    float("nan"),
    float("inf"),
    None,
    True,
    "",
    "text",
    b"\0",
    [],
    [1],
    {},
    {"p": 1},
]
ABSURD = st.sampled_from([*WHOLE, *OTHER, [2**31] * 9])


@st.composite
def cut_or_flipped(draw: st.DrawFn, data: bytes) -> bytes:
    """A file that an accident changed."""
    if draw(st.booleans()):
        return data[: draw(st.integers(0, len(data) - 1))]
    flipped = bytearray(data)
    for at in draw(st.lists(st.integers(0, 8 * len(data) - 1), min_size=1, max_size=3, unique=True)):
        flipped[at // 8] ^= 1 << at % 8
    return bytes(flipped)


@st.composite
def with_another_header(draw: st.DrawFn, packed: Packed) -> bytes:
    """A file whose header lies: an entry, or a number in a list of it, is absurd, missing, or a little off."""
    header = copy.deepcopy(dict(packed.header))
    assume(header)
    for name in draw(st.lists(st.sampled_from(sorted(header)), min_size=1, max_size=2, unique=True)):
        value = header[name]
        if isinstance(value, list) and value and draw(st.booleans()):
            at = draw(st.integers(0, len(value) - 1))
            value[at] = draw(ABSURD | near(value[at]))
        elif draw(st.integers(0, 4)):
            header[name] = draw(ABSURD | near(value))
        else:
            del header[name]
    return repacked(packed, header=header)


@st.composite
def with_other_sections(draw: st.DrawFn, packed: Packed) -> bytes:
    """A file whose payloads lie: cut, longer, changed, missing, doubled or in another order."""
    sections = list(packed.sections)
    assume(sections)
    at = draw(st.integers(0, len(sections) - 1))
    section, how = bytearray(sections[at]), draw(st.integers(0, 5))
    if how == 0:
        sections[at] = bytes(section[: draw(st.integers(0, len(section)))])
    elif how == 1:
        sections[at] = bytes(section) + draw(st.binary(min_size=1, max_size=40))
    elif how == 2 and section:
        for where in draw(st.lists(st.integers(0, min(len(section), 64) - 1), min_size=1, max_size=4)):
            section[where] = draw(st.integers(0, 255))
        sections[at] = bytes(section)
    elif how == 3:
        del sections[at]
    elif how == 4:
        sections.insert(at, draw(st.sampled_from(sections)))
    else:
        sections = draw(st.permutations(sections))
    return repacked(packed, sections=sections)


def near(value: Any) -> st.SearchStrategy[Any]:
    """Numbers beside a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return st.nothing()
    return st.sampled_from([value + 1, value - 1, 2 * value, value // 2, -value])


def repacked(packed: Packed, **changes: Any) -> bytes:
    """A container with something of it changed, and the checksum that belongs to that."""
    parts = {"version": packed.version, "header": packed.header, "sections": packed.sections} | changes
    try:
        return pack(packed.kind, **parts)
    except ConfigError:
        assume(False)
        raise


def assert_harmless(read: Callable[[bytes], object], data: bytes, *, whole: bool) -> None:
    """Reading raises an error that says why, or gives a result; never another error, never much memory.

    Parameters
    ----------
    read : callable
        Reads a file and uses what it has read a little.
    data : bytes
        The file.
    whole : bool
        Whether it has the checksum that belongs to it; without it nothing may be read at all.
    """
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # numbers that overflow are odd pixels, and no harm
            read(data)
    except (DamagedError, SourceError):
        return
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_BYTES, f"{peak:,} bytes for a file of {len(data):,}"
    assert whole, "a damaged file was read"
