"""The file of one input in the folder of outputs, on a disk or on object storage."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import tifffile

from tilestream.codecs.checksums import checksum
from tilestream.codecs.durable import ensure_directory, explained
from tilestream.codecs.objects import explained_store, file_system
from tilestream.codecs.place import Place
from tilestream.stream.leasefiles import LeaseFile, lease_file

_PIECE_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    """One file of a run."""

    place: Place
    """Folder of all outputs."""
    name: str
    """Relative path with `/`."""

    @property
    def url(self) -> str:
        """Return its path or URL."""
        return self.place.at(self.name).url

    @property
    def exists(self) -> bool:
        """Return whether anything has its name, a link to nowhere too."""
        if not self.place.is_local:
            return self.place.exists(self.name)
        path = self.place.path / self.name
        with explained(path):  # a name that is too long is refused here
            return path.is_symlink() or path.exists()

    @property
    def lease(self) -> LeaseFile:
        """Return the lease of whoever writes it; its folder is made."""
        folder, _, name = self.name.rpartition("/")
        place = self.place.at(folder) if folder else self.place
        if place.is_local:
            ensure_directory(place.path)
        return lease_file(place, f".{checksum(name.encode())[:16]}.lease")

    def size_bytes(self) -> int:
        """Return the size of a file that exists."""
        if self.place.is_local:
            return (self.place.path / self.name).stat().st_size
        with explained_store(self.url):
            system, path = file_system(self.url, self.place.options)
            return int(system.size(path))

    def recipe(self) -> str | None:
        """Return the digest of the recipe of a file that exists, None when this program has not written it."""
        if self.place.is_local:
            return written_by_us(self.place.path / self.name)
        with explained_store(self.url):
            system, path = file_system(self.url, self.place.options)
            with system.open(path, "rb") as file:
                return written_by_us(file)

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Yield a local path to write to; on object storage the file goes there when the block ends well.

        Yields
        ------
        Path
            The final one on a disk, else one that is removed again: a TIFF is not written from first to last byte.
        """
        if self.place.is_local:
            yield self.place.path / self.name
            return
        with TemporaryDirectory(prefix="tilestream-export-") as folder:
            path = Path(folder) / "image.tif"
            yield path
            with path.open("rb") as made, self.place.writer(self.name) as file:
                while piece := made.read(_PIECE_BYTES):
                    file.write(piece)


def written_by_us(file: Path | IO[bytes]) -> str | None:
    """Return the digest of the recipe of a file that `export_pyramid` has written, None for any other.

    Parameters
    ----------
    file : Path or file object
        Existing file.

    Returns
    -------
    str or None
        What `recipe_digest` gave.
    """
    try:
        with tifffile.TiffFile(file) as tiff:
            found = re.fullmatch(r"tilestream \S+ export ([0-9a-f]{32})", str(tiff.pages.first.software))
    except (OSError, ValueError, LookupError, tifffile.TiffFileError):
        return None
    return found[1] if found else None
