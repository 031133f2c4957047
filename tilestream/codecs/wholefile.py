"""What a file in the making offers, wherever it is made."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self


class WholeFile(Protocol):
    """A file in the making: `DurableFile` on a disk, `ObjectFile` on object storage."""

    @property
    def path(self) -> Path | str:
        """Return the final name, for messages."""

    @property
    def checksum(self) -> str:
        """Return the checksum of what was written so far, in hex."""

    @property
    def size_bytes(self) -> int:
        """Return the number of bytes written so far."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""

    def __enter__(self) -> Self:
        """Begin; the file does not exist yet."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Make the file appear whole, or leave nothing of it when an exception passes through."""
