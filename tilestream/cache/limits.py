"""What the caches in memory of this process may take at most: its share of what a machine has for caches."""

from __future__ import annotations

from dataclasses import dataclass

MACHINE_PART = 8
"""Caches of all worker processes of a machine take at most this part of its memory when nothing is said."""
DECODED_BYTES = 128 << 20
"""Decoded blocks kept in one process when nothing is said."""
COMPRESSED_BYTES = 128 << 20
"""Stored bytes of remote files kept in one process when nothing is said: the tiles of some dozen super-tiles."""
IMAGE_BYTES = 256 << 20
"""Images that can only be decoded whole, kept in one process when nothing is said."""
OWNED_BYTES = 64 << 20
"""Stored bytes that one process keeps for its peers when nothing is said."""
FIELD_BYTES = 64 << 20
"""Unpacked networks kept in one process, of all images together, when nothing is said."""
INDEX_BYTES = 32 << 20
"""Indexes of shards kept in one process, of all images together, when nothing is said."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Most bytes of each tier in memory, in one process."""

    decoded: int
    """Decoded blocks."""
    images: int
    """Images that can only be decoded whole, besides the one used last."""
    compressed: int
    """Stored bytes of remote files."""
    owned: int
    """Stored bytes of remote files that other workers have fetched and will ask this one for."""
    indexes: int
    """Indexes of shards."""
    fields: int = 0
    """Unpacked networks, each of which stands for a tile at several levels."""

    @classmethod
    def of_machine(cls, host_bytes: int | None, workers: int) -> Limits:
        """Return the limits of one of the worker processes of a machine.

        Parameters
        ----------
        host_bytes : int, optional
            What caches may take on the machine; None = the usual, at most an eighth of its memory.
        workers : int
            Worker processes on the machine.

        Returns
        -------
        Limits
            Their sum is at most the share of one process. Most of it is for decoded pixels, which of local images are
            all that there is.
        """
        import psutil  # whoever opens an image only does without

        share = (psutil.virtual_memory().total // MACHINE_PART if host_bytes is None else host_bytes) // max(1, workers)
        part = share // 16
        limits = cls(decoded=8 * part, images=3 * part, compressed=2 * part, owned=part, indexes=part, fields=part)
        if host_bytes is not None:
            return limits
        return cls(
            decoded=min(limits.decoded, DECODED_BYTES),
            images=min(limits.images, IMAGE_BYTES),
            compressed=min(limits.compressed, COMPRESSED_BYTES),
            owned=min(limits.owned, OWNED_BYTES),
            indexes=min(limits.indexes, INDEX_BYTES),
            fields=min(limits.fields, FIELD_BYTES),
        )


_current: Limits | None = None


def set_limits(limits: Limits | None) -> None:
    """Set the limits of this process; None = each cache has the budget that it was made with."""
    global _current
    _current = limits


def within(budget_bytes: int) -> int:
    """Return a budget of decoded blocks, cut to what this process may take."""
    return budget_bytes if _current is None else min(budget_bytes, _current.decoded)


def image_bytes() -> int:
    """Return the budget of images that are decoded whole in this process."""
    return IMAGE_BYTES if _current is None else _current.images


def compressed_bytes() -> int:
    """Return the budget of stored bytes of remote files in this process."""
    return COMPRESSED_BYTES if _current is None else _current.compressed


def owned_bytes() -> int:
    """Return the budget of what this process keeps for its peers; nothing unless it is told that it has some."""
    return 0 if _current is None else _current.owned


def index_bytes() -> int:
    """Return the budget of indexes of shards in this process."""
    return INDEX_BYTES if _current is None else _current.indexes


def field_bytes() -> int:
    """Return the budget of unpacked networks in this process."""
    return FIELD_BYTES if _current is None else _current.fields
