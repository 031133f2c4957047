"""Files by chance, cut, flipped and lying about themselves: `make fuzz` reads 100,000 of them.

    python -m tests.codecs.fuzz 100000 [first]

Each file follows from its number alone, which an error names. What the property tests of `test_hostile_tiles` choose
with care, this does in bulk: most files here are whole by their checksum, and wrong inside.
"""

from __future__ import annotations

import resource
import sys
import warnings
from collections import Counter
from functools import cache

import numpy as np

from tests.codecs.pyramid.coarser import coarser
from tests.codecs.pyramid.made import made_nets
from tests.codecs.pyramid.madefile import encoded_pyramid
from tilestream.codecs.constanttile import ConstantTile
from tilestream.codecs.container import pack, unpack
from tilestream.codecs.pyramid.netfile import KIND as NETS
from tilestream.codecs.pyramid.netfile import pack_nets, unpack_nets
from tilestream.codecs.pyramid.pyramidtile import PyramidTile
from tilestream.codecs.tilecodec import unpack_tile
from tilestream.errors import DamagedError, SourceError
from tilestream.types import Box, Shape

MOST_GROWTH_KIB = 256 << 10
"""By which this process may grow while it reads, whatever files claim."""
ABSURD = (-1, 0, 1, 255, 256, 1 << 13, 1 << 16, 1 << 24, 1 << 40, 1 << 62, 1.5, float("nan"), None, "text", b"12345678")


@cache
def files() -> tuple[bytes, ...]:
    """Return files as they should be."""
    nets = coarser(made_nets(3, scales=4, hidden=6, width=6), zeros=7)
    constant = ConstantTile(shape=Shape(y=9, x=12), dtype="uint8", values=(240.0, 241.0, 243.0))
    return encoded_pyramid(bounded=False), encoded_pyramid(bounded=True), pack_nets(nets), constant.to_bytes()


def changed(number: int) -> tuple[bytes, bool]:
    """Return the file of a number, and whether its checksum is right."""
    rng = np.random.default_rng(number)
    data = files()[rng.choice(len(files()), p=(0.6, 0.1, 0.25, 0.05))]
    if rng.random() < 0.2:
        flipped = bytearray(data[: rng.integers(1, len(data))] if rng.random() < 0.4 else data)
        for _ in range(rng.integers(1, 4)):
            flipped[rng.integers(len(flipped))] ^= 1 << int(rng.integers(8))
        return bytes(flipped), bytes(flipped) == data
    packed = unpack(data)
    header, sections = dict(packed.header), list(packed.sections)
    if header and (not sections or rng.random() < 0.3):
        name = sorted(header)[rng.integers(len(header))]
        value = header[name]
        absurd = ABSURD[rng.integers(len(ABSURD))]
        if isinstance(value, list) and rng.random() < 0.8:
            at = int(rng.integers(len(value)))
            one = value[at] + int(rng.integers(-3, 4)) if rng.random() < 0.5 else absurd
            header[name] = [*value[:at], one, *value[at + 1 :]]
        else:
            header[name] = absurd
    elif sections:
        _change(rng, sections)
    return pack(packed.kind, version=packed.version, header=header, sections=sections), True


def _change(rng: np.random.Generator, sections: list[bytes]) -> None:
    """Change bytes of a section, its length, or which sections there are."""
    at, how = int(rng.integers(len(sections))), rng.random()
    section = bytearray(sections[at])
    if how < 0.7 and section:
        for _ in range(rng.integers(1, 6)):
            section[rng.integers(len(section))] = rng.integers(256)
        sections[at] = bytes(section)
    elif how < 0.8:
        sections[at] = bytes(section[: rng.integers(len(section) + 1)])
    elif how < 0.9:
        sections[at] = bytes(section) + rng.bytes(rng.integers(1, 30))
    elif how < 0.95:
        del sections[at]
    else:
        sections.insert(at, sections[rng.integers(len(sections))])


def read(data: bytes) -> None:
    """Read a file as what it says it is, and look at some of it."""
    if unpack(data).kind == NETS:
        unpack_nets(data)
        return
    tile = unpack_tile(data)
    tile.decode(Box(level=0, y=0, x=0, height=1, width=min(2, tile.picture.shape.x)))
    if isinstance(tile, PyramidTile):
        tile.decode(level=min(1, len(tile.file.nets.synth) - 1), stages=1)


def run(count: int, *, first: int = 0) -> Counter[str]:
    """Read files by their numbers, and return how many were read and refused.

    Parameters
    ----------
    count : int
        How many.
    first : int
        The first number.

    Returns
    -------
    Counter
        `read` and `refused`.

    Raises
    ------
    AssertionError
        When a file raises what it should not, is read though it is damaged, or makes the process grow.
    """
    found: Counter[str] = Counter()
    for data in files():
        read(data)  # what is compiled and imported once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(first, first + count):
        data, is_whole = changed(number)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # numbers that overflow are odd pixels, and no harm
                read(data)
        except (DamagedError, SourceError):
            found["refused"] += 1
        except Exception as error:
            raise AssertionError(f"file {number}: {type(error).__name__}: {error}") from error
        else:
            assert is_whole, f"file {number}: damaged, and read"
            found["read"] += 1
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < MOST_GROWTH_KIB, f"file {number}: {grown:,} KiB more"
    return found


if __name__ == "__main__":
    asked = [int(one) for one in sys.argv[1:]] or [100_000]
    result = run(asked[0], first=asked[1] if len(asked) > 1 else 0)
    sys.stdout.write(f"{asked[0]:,} files: {result['read']:,} read, {result['refused']:,} refused\n")
