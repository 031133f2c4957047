"""Indexes of Zarr shards, read once and kept: which bytes of a shard are which chunk.

A shard of 16 x 16 chunks has an index of 4 KB, so that those of the largest slides fit into the budget; without them
each tile would cost a second read and a checksum.

References
----------
Zarr v3 sharding codec, https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np
import numpy.typing as npt
from zict import LRU

from tilestream.cache import limits
from tilestream.cache.tally import COMPRESSED, tell
from tilestream.errors import DamagedError, SourceError
from tilestream.sources.files import File, FileVersion
from tilestream.sources.recognise import LFS_MAGIC
from tilestream.sources.zarrlayout import IndexForm

ENTRY_BYTES = 1 << 10
"""Charged for the bookkeeping of an entry."""
LFS_REASON = "a Git LFS pointer stands in place of the chunk: run `git lfs pull`"
_MISSING = 2**64 - 1
_CRC_BYTES = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardIndex:
    """The index of one shard, and the very file that it was read from."""

    file: File
    """The shard."""
    version: FileVersion
    """What tells it from a file that takes its name later."""
    table: npt.NDArray[np.uint64]
    """Offset and length of each chunk, `(…counts, 2)`."""

    def locate(self, place: tuple[int, ...]) -> tuple[int, int] | None:
        """Return offset and length of a chunk in bytes, None where it is not stored.

        Parameters
        ----------
        place : tuple of int
            Position in the shard's grid of chunks.

        Returns
        -------
        tuple of int or None
            As the index says; it may lie.
        """
        offset, nbytes = self.table[place].tolist()
        return None if offset == nbytes == _MISSING else (offset, nbytes)

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of several chunks; raise `SourceError` when the shard is no longer the one it was."""
        try:
            return self.file.read_version(self.version, ranges)
        except SourceError:
            indexes.forget(self)  # who opens the image again shall read the new one
            raise

    def warm(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch chunks of a remote shard ahead of `read`, those that lie close together in one request."""
        self.file.warm(ranges, version=self.version)


class ShardIndexes:
    """Indexes of this process by identity of the store and name of the shard; safe under threads and after a fork.

    Parameters
    ----------
    budget_bytes : callable
        Returns the most bytes held, which may change.
    """

    def __init__(self, budget_bytes: Callable[[], int]) -> None:
        self._budget = budget_bytes
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Forget everything, locks included: a parent may have held one when it forked."""
        self._kept: LRU[tuple[str, str], ShardIndex] = LRU(
            self.budget_bytes,
            {},
            weight=lambda _, index: _nbytes(index),
            on_evict=lambda _, __: tell(COMPRESSED, evictions=1),
        )

    @property
    def budget_bytes(self) -> int:
        """Return the most bytes held."""
        return self._budget()

    @property
    def held_bytes(self) -> float:
        """Return the bytes that are held now."""
        return self._kept.total_weight

    def get(self, key: tuple[str, str], load: Callable[[], ShardIndex | None]) -> ShardIndex | None:
        """Return an index, from memory or by calling `load`.

        Parameters
        ----------
        key : tuple of str
            Fingerprint of the store and address of the shard.
        load : callable
            Reads it; None, for a shard that is not there, is not kept, since it may come.

        Returns
        -------
        ShardIndex or None
            The index.
        """
        found = self._kept.get(key)
        tell(COMPRESSED, hits=found is not None, misses=found is None, bytes=0 if found is None else found.table.nbytes)
        if found is None:
            # Two threads may read the same index at the same time: cheaper than making one wait for the other.
            found = load()
            if found is not None and _nbytes(found) <= self.budget_bytes // 2:
                self._kept.n = self.budget_bytes
                self._kept[key] = found
        return found

    def forget(self, index: ShardIndex) -> None:
        """Drop an index that is no longer true."""
        for key in [key for key, kept in list(self._kept.items()) if kept is index]:
            self._kept.pop(key, None)

    def forget_store(self, fingerprint: str, folder: str) -> None:
        """Drop the indexes of a store that is opened anew and looks as it did: its shards may have changed since.

        Parameters
        ----------
        fingerprint : str
            Identity of the image, which need not tell an update of a few chunks.
        folder : str
            Path or URL of the store; those of a store with another fingerprint stay, so that its readers notice.
        """
        prefix = f"{fingerprint} {folder.rstrip('/')}"
        for key in [key for key in list(self._kept) if key[0].startswith(prefix)]:
            self._kept.pop(key, None)


def _nbytes(index: ShardIndex) -> int:
    return ENTRY_BYTES + index.table.nbytes


indexes = ShardIndexes(limits.index_bytes)
"""Those of this process."""


def read_index(file: File, form: IndexForm) -> ShardIndex | None:
    """Return the index of a shard, None when there is no such file.

    Parameters
    ----------
    file : File
        The shard.
    form : IndexForm
        Form of its index.

    Returns
    -------
    ShardIndex or None
        The index, its checksum compared where it has one.

    Raises
    ------
    DamagedError
        When the shard is too short for an index or the checksum does not match.
    SourceError
        When it cannot be read.
    """
    version = file.version()
    if version is None:
        return None
    size = version.size_bytes
    if size < form.nbytes:
        head = b"".join(file.read_version(version, [(0, size)]))
        if head.startswith(LFS_MAGIC):
            raise DamagedError(LFS_REASON)
        raise DamagedError(f"shard of {size:,} bytes is shorter than its index of {form.nbytes:,}: it is cut")
    (data,) = file.read_version(version, [(size - form.nbytes if form.at_end else 0, form.nbytes)])
    if form.has_crc:
        data, told = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
        if google_crc32c.value(data) != int.from_bytes(told, "little"):
            raise DamagedError(f"checksum of the index of shard `{file.name}` does not match: it is cut or damaged")
    table = np.frombuffer(data, "<u8").astype(np.uint64, copy=False).reshape(*form.counts, 2)
    return ShardIndex(file=file, version=version, table=table)
