"""Where leases lie: as files on a disk, or as objects on remote storage.

On a disk a dead lease is taken away by renaming it, which only one taker can do. Object storage has no such step, and
what it has instead (conditional deletion) is not behind fsspec. So a taker looks once more, removes the dead lease and
then creates its own, which only one can do. Between that look and the removal, milliseconds, another taker may have
put a fresh lease there, which is then removed as if it were the dead one: two hold the claim. The same can happen when
a holder comes back from a pause longer than a lease lives. Nothing is lost by it: outputs are a function of source and
recipe, each is put whole, and so are receipts; the work of one super-tile is done twice. The one thing that must not
happen twice, beginning with two different recipes, does not rest on a lease there but on exclusive creation of the
recipe itself (`Journal.open`).

On a network file system all of this rests on the server, not on what a client remembers: creating, linking and renaming
are one request each of which one client's succeeds (NFS from version 3 on), opening a file asks for its attributes, and
making a lease in a folder shows the client that others have written there meanwhile. So whoever has claimed a unit also
sees the receipt of one who had it before.

Ages are counted on the clock of the file server or storage service (`storageclock`).
"""

from __future__ import annotations

import errno
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tilestream.codecs.durable import PARTIAL_SUFFIX, create_file, read_if_there
from tilestream.codecs.place import Place
from tilestream.stream.storageclock import storage_time_s


class LeaseFile(Protocol):
    """A lease as it lies somewhere; its text is unique to one claim."""

    @property
    def where(self) -> str:
        """Return its path or URL."""

    def create(self, text: bytes) -> bool:
        """Return whether it was made; False when there is one already."""

    def look(self) -> tuple[bytes, float] | None:
        """Return its text and the seconds since it was last refreshed, None when there is none."""

    def refresh(self, text: bytes) -> None:
        """Make it young again as long as it is the one with this text."""

    def release(self, text: bytes) -> None:
        """Remove it if it is the one with this text."""

    def take_away(self, found: bytes) -> None:
        """Remove a dead one with this text, so that a new one can be created."""


@dataclass(frozen=True, kw_only=True)
class LocalLease:
    """A lease as a file on a disk; its folder must exist."""

    path: Path
    """The file."""

    @property
    def where(self) -> str:
        """Return its path."""
        return str(self.path)

    def create(self, text: bytes) -> bool:
        """Return whether it was made: written aside and linked, so that nobody sees half of it."""
        if self.path.exists():  # asked again and again where others are at work, which should write nothing
            return False
        aside = self._hidden()
        create_file(aside, text)
        try:
            os.link(aside, self.path)
        except FileExistsError:  # ours where a file server's answer got lost and the link was asked for again
            return read_if_there(self.path) == text
        except OSError:  # a file system without links; there it is for a moment empty, and has to be waited for
            return create_file(self.path, text)
        finally:
            with suppress(OSError):
                aside.unlink()
        return True

    def look(self) -> tuple[bytes, float] | None:
        """Return its text and age, None when there is none."""
        try:
            with self.path.open("rb") as file:  # an open file's attributes are asked for anew on a network share
                text, modified_s = file.read(), os.fstat(file.fileno()).st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return None  # removed by another machine while it was read
        return text, storage_time_s(Place.of(self.path.parent)) - modified_s

    def refresh(self, text: bytes) -> None:
        """Set its time to that of the file server, unless it is another's by now."""
        if read_if_there(self.path) == text:
            os.utime(self.path)

    def release(self, text: bytes) -> None:
        """Remove it if it is ours."""
        if read_if_there(self.path) == text:
            self.path.unlink(missing_ok=True)

    def take_away(self, found: bytes) -> None:
        """Remove a dead one unless another taker has put a new one in its place meanwhile."""
        aside = self._hidden()
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        if aside.read_bytes() != found:
            with suppress(OSError):  # where a file can have but one name the work is done twice, which is harmless
                os.link(aside, self.path)
        aside.unlink(missing_ok=True)

    def _hidden(self) -> Path:
        """Return a name beside it that nobody else has; what is left under it is swept away (`Journal.close`)."""
        return self.path.parent / f".{uuid.uuid4().hex[:16]}{PARTIAL_SUFFIX}"


@dataclass(frozen=True, kw_only=True)
class ObjectLease:
    """A lease as an object on remote storage."""

    place: Place
    """Folder that it lies in."""
    name: str
    """Its name there."""

    @property
    def where(self) -> str:
        """Return its URL."""
        return self.place.at(self.name).url

    def create(self, text: bytes) -> bool:
        """Return whether it was made, also where the answer to that got lost and the put was sent again."""
        return self.place.create(self.name, text) or self.place.get(self.name) == text

    def look(self) -> tuple[bytes, float] | None:
        """Return its text and age on the server's clock, None when there is none."""
        text = self.place.get(self.name)
        modified_s = None if text is None else self.place.modified_s(self.name)
        if text is None or modified_s is None:
            return None
        return text, storage_time_s(self.place) - modified_s

    def refresh(self, text: bytes) -> None:
        """Put it once more, unless it is another's by now."""
        if self.place.get(self.name) == text:
            self.place.put(self.name, text)

    def release(self, text: bytes) -> None:
        """Remove it if it is ours."""
        if self.place.get(self.name) == text:
            self.place.remove(self.name)

    def take_away(self, found: bytes) -> None:
        """Remove it if it is still the dead one."""
        self.release(found)


def lease_file(place: Place, name: str) -> LeaseFile:
    """Return the lease of that name in a place.

    Parameters
    ----------
    place : Place
        Folder of the leases.
    name : str
        File name.

    Returns
    -------
    LeaseFile
        Nothing is looked at yet.
    """
    return LocalLease(path=place.path / name) if place.is_local else ObjectLease(place=place, name=name)
