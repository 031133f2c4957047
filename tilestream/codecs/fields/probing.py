"""Learned probing of a hash grid: which of a few entries a vertex reads is fitted, and stored as a few bits.

    bucket = h1(v) mod (2^T / N_p),   at = bucket · N_p + choices[h2(v) mod N_c],   f(v) = table[at]

v is the place of a vertex in a *wide* grid, whose levels are dense or nearly so; the *narrow* grid of the same levels
with at most 2^T entries says how many entries are stored. Levels that are of one size in both are stored as they are.
What a file holds is thereby looked up once, for every vertex, when it is read: the wide table is an ordinary one, which
every kernel decodes on every device, and nothing is slower than without probing but memory is that of the vertices.

The two hashes are those of one finaliser with two seeds, so that vertices that share a choice rarely share a bucket.
The original hashes coordinates; here it is the vertex's number, since a wide level holds each vertex once.

Source: Takikawa et al., "Compact neural graphics primitives with learned hash probing", arXiv:2312.17241; the
finaliser is that of MurmurHash3 (Appleby, public domain).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tilestream.codecs.entropy import decode_codes, encode_codes
from tilestream.errors import ConfigError, DamagedError
from tilestream.kernels.hashgrid import HashGrid

MAX_LOG2_PROBES = 6
MAX_LOG2_CHOICES = 24
MAX_LOG2_WIDE = 20
"""Of a wide level."""
MOST_WIDE_ENTRIES = 1 << 21
"""Of a wide table, so that a small file cannot ask for much memory: 16 MiB of float32 with two features."""
_SEEDS = np.uint32(0x9E3779B9), np.uint32(0x85EBCA77)


@dataclass(frozen=True, kw_only=True)
class Probing:
    """How much is chosen."""

    log2_probes: int = 3
    """Binary logarithm of N_p, the entries that a vertex may read."""
    log2_choices: int = 13
    """Binary logarithm of N_c, the most choices of a level that are stored."""

    def __post_init__(self) -> None:
        checks = (
            ("log2_probes", self.log2_probes, 1 <= self.log2_probes <= MAX_LOG2_PROBES, f"1 to {MAX_LOG2_PROBES}"),
            ("log2_choices", self.log2_choices, 3 <= self.log2_choices <= MAX_LOG2_CHOICES, f"3 to {MAX_LOG2_CHOICES}"),
        )
        for name, got, good, expected in checks:
            if not good:
                raise ConfigError.of(f"`{name}` of a probing", got=got, expected=expected, do="Choose another.")


@dataclass(frozen=True, kw_only=True)
class ProbedLevel:
    """A level of which choices are stored."""

    level: int
    """Of both grids."""
    buckets: npt.NDArray[np.int64]
    """`(wide entries,)`: bucket of N_p entries that each vertex may read."""
    places: npt.NDArray[np.int64]
    """`(wide entries,)`: which choice each vertex shares."""
    choices: int
    """How many there are."""


@dataclass(frozen=True, kw_only=True)
class ProbedGrid:
    """A grid whose finer levels store fewer entries than they have vertices."""

    narrow: HashGrid
    """What is stored."""
    probing: Probing
    """How it is chosen from."""

    def __post_init__(self) -> None:
        if self.wide.entries > MOST_WIDE_ENTRIES:
            raise ConfigError.of(
                "a probed grid",
                got=f"{self.wide.entries:,} vertices",
                expected=f"at most {MOST_WIDE_ENTRIES:,}",
                do="Use fewer or coarser levels, or no probing.",
            )
        if self.narrow.log2_table < self.probing.log2_probes:
            raise ConfigError.of(
                "`log2_table` of a probed grid",
                got=self.narrow.log2_table,
                expected=f"at least `log2_probes`, {self.probing.log2_probes}",
                do="Store more entries, or probe fewer.",
            )

    @cached_property
    def wide(self) -> HashGrid:
        """Return the grid of which every vertex is an entry, up to 2^20 of a level."""
        most = max(resolution**self.narrow.dims + 7 for resolution in self.narrow.resolutions)
        wide = max(self.narrow.log2_table, min(MAX_LOG2_WIDE, (most - 1).bit_length()))
        return dataclasses.replace(self.narrow, log2_table=wide)

    @cached_property
    def levels(self) -> tuple[ProbedLevel, ...]:
        """Return the levels of which choices are stored, the coarsest first."""
        return tuple(
            self._probed(level)
            for level, (few, many) in enumerate(zip(self.narrow.sizes, self.wide.sizes, strict=True))
            if few < many
        )

    @cached_property
    def choice_starts(self) -> tuple[int, ...]:
        """Return the first choice of each probed level, and how many there are of all; `(0,)` where none is probed."""
        found = [0]
        for level in self.levels:
            found.append(found[-1] + level.choices)
        return tuple(found)

    def choices_to_bytes(self, choices: npt.NDArray[np.integer]) -> bytes:
        """Return choices entropy-coded, a model a level."""
        return encode_codes(choices, self.choice_starts[:-1] or (0,))

    def choices_from_bytes(self, data: bytes) -> npt.NDArray[np.int16]:
        """Return the choices that `choices_to_bytes` wrote; raise `DamagedError` where one is no candidate."""
        most = (1 << self.probing.log2_probes) - 1
        found = decode_codes(data, self.choice_starts[:-1] or (0,), count=self.choice_starts[-1], most=most)
        if found.min(initial=0) < 0:
            raise DamagedError("choices of a probed grid: a negative one")
        return found

    def _probed(self, level: int) -> ProbedLevel:
        vertices = np.arange(self.wide.sizes[level], dtype=np.uint32)
        buckets = self.narrow.sizes[level] >> self.probing.log2_probes
        choices = min(1 << self.probing.log2_choices, 1 << (len(vertices) - 1).bit_length())
        return ProbedLevel(
            level=level,
            buckets=_mixed(vertices, _SEEDS[0]) & np.int64(buckets - 1),
            places=_mixed(vertices, _SEEDS[1]) & np.int64(choices - 1),
            choices=choices,
        )

    def bake(self, table: npt.NDArray[np.float32], choices: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return the wide table that stored entries and choices stand for.

        Parameters
        ----------
        table : ndarray of float32
            `(narrow.entries, features)`.
        choices : ndarray of integers
            `(choice_starts[-1],)`, each 0 to N_p − 1.

        Returns
        -------
        ndarray of float32
            `(wide.entries, features)`, for any kernel that takes `wide`.
        """
        found = np.empty((self.wide.entries, self.wide.features), np.float32)
        starts = iter(self.choice_starts)
        probed = {level.level: level for level in self.levels}
        for level in range(self.wide.levels):
            part = table[self.narrow.offsets[level] : self.narrow.offsets[level + 1]]
            if level in probed:
                one, start = probed[level], next(starts)
                chosen = choices[start : start + one.choices].astype(np.int64)[one.places]
                part = part[(one.buckets << self.probing.log2_probes) + chosen]
            found[self.wide.offsets[level] : self.wide.offsets[level + 1]] = part
        return found


@dataclass(frozen=True, kw_only=True)
class ProbedEntries:
    """What is stored of a probed table."""

    grid: ProbedGrid
    """How it is looked up."""
    entries: npt.NDArray[np.float32]
    """`(narrow.entries, features)`."""
    choices: npt.NDArray[np.int16]
    """`(choice_starts[-1],)`."""

    def table(self) -> npt.NDArray[np.float32]:
        """Return the wide table."""
        return self.grid.bake(self.entries, self.choices)


def _mixed(numbers: npt.NDArray[np.uint32], seed: np.uint32) -> npt.NDArray[np.int64]:
    """Return numbers with their bits mixed, as int64 of 0 to 2^32 − 1; all arithmetic wraps in 32 bits."""
    mixed = numbers ^ seed
    mixed = (mixed ^ (mixed >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return (mixed ^ (mixed >> np.uint32(16))).astype(np.int64)
