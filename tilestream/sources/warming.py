"""Tiles of remote images asked for ahead of their use: those of one box in few requests instead of one each."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from tilestream.types import Box, Source


@runtime_checkable
class Warms(Protocol):
    """A source that can fetch stored bytes before they are decoded."""

    def warm(self, box: Box) -> None:
        """Fetch what the blocks of a box are stored in, as far as that is worth it and the process has room."""


def warm(source: Source, box: Box) -> None:
    """Fetch what a box of a remote source is stored in; of others nothing is done.

    Parameters
    ----------
    source : Source
        Any source.
    box : Box
        Part of one level; what lies outside the image is passed over.

    Raises
    ------
    SourceError
        When the storage fails.
    """
    if isinstance(source, Warms):
        source.warm(box)
