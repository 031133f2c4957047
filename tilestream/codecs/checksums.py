"""Checksums of files, whole or as they are written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import google_crc32c

CHECKSUM_BYTES = 16
_READ_BYTES = 1 << 20


class Digest(Protocol):
    """A running checksum."""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """Return the value of what was taken in so far."""


class Crc32c:
    """A running CRC-32C with the methods of `hashlib`: finds accidents, at a tenth of the cost of BLAKE2b."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take in more bytes."""
        self._value = google_crc32c.extend(self._value, bytes(data))

    def hexdigest(self) -> str:
        """Return the value of what was taken in so far."""
        return f"{self._value:08x}"


def new_digest() -> Digest:
    """Return a running BLAKE2b-128 checksum."""
    return hashlib.blake2b(digest_size=CHECKSUM_BYTES)


def checksum(data: bytes | bytearray | memoryview) -> str:
    """Return the BLAKE2b-128 checksum of `data` in hex.

    Parameters
    ----------
    data : bytes
        Whole content of a file.

    Returns
    -------
    str
        32 hex digits.
    """
    digest = new_digest()
    digest.update(data)
    return digest.hexdigest()


def checksum_file(path: Path) -> str:
    """Return the BLAKE2b-128 checksum of a file in hex, read in pieces of 1 MiB.

    Parameters
    ----------
    path : Path
        Existing file.

    Returns
    -------
    str
        32 hex digits.
    """
    digest = new_digest()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
