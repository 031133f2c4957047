"""Files behind a URL as this process knows them: what they were when they were opened, and ranges of just that.

Each answer is compared with what was seen at opening: over HTTP and from S3 the request itself says which object it
means (`If-Match`), and entity tag and size in the answer are looked at too. Other services are asked again after the
reading (`sources/stamps.py`). So what is read is of one object, or an error says that it changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

from fsspec.asyn import sync
from fsspec.implementations.cached import CachingFileSystem
from zict import LRU

from tilestream.cache.ranges import Range, kept_ranges
from tilestream.cache.stack import fetch_through, pass_down
from tilestream.cache.tally import COMPRESSED, tell
from tilestream.codecs.objects import file_system, words_of
from tilestream.codecs.remote import missing, version_of
from tilestream.codecs.retries import ShortAnswer, tries
from tilestream.errors import SourceError
from tilestream.metrics import count
from tilestream.sources.fetching import FETCH, LOOK, ChangedError, NoRangesError, Seen, codes_of
from tilestream.sources.ranges import REQUESTS, Span, spans_of
from tilestream.sources.remoteidentity import identity_of, service_of

REMEMBERED = 1024
"""Remote files of which a process remembers what they were."""
HEAD_BYTES = 1 << 16
"""Of reads at the start of a file this much is fetched, and answers up to this size are kept."""
AHEAD_PART = 4
"""One call asks for at most this part of what is kept ahead of its use: other threads do so too, and what is pushed out
was in vain."""
FRESH_S = 2.0
"""A file that is opened again within this time is not asked for again: opening an image makes several records of it."""


class RemoteFile:
    """One file of one process; threads may share it.

    Parameters
    ----------
    url : str
        fsspec URL.
    options : Mapping
        fsspec storage options.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.url = url
        self._options = options
        self._seen: Seen | None = None
        self._known: tuple[Seen, bytes | tuple[str, str, Seen]] | None = None
        self._looked_s = -FRESH_S

    def look(self, *, max_age_s: float = FRESH_S) -> Seen:
        """Return what the file is now, or was at most some seconds ago.

        Parameters
        ----------
        max_age_s : float
            How long ago it may have been looked at; 0 = ask.

        Returns
        -------
        Seen
            To be given to `read`.

        Raises
        ------
        SourceError
            When there is no such file, or the service does not answer.
        """
        seen = self._seen
        if seen is None or time.monotonic() - self._looked_s >= max_age_s:
            looked_s = time.monotonic()
            try:
                seen = tries()(self._info)
            except Exception as error:
                raise explained(self.url, error) from error
            self._seen, self._looked_s = seen, looked_s
        return seen

    def read(self, start: int, stop: int, seen: Seen) -> bytes:
        """Return a range of the file as it was when it was looked at; of small ones what was read before is kept.

        Parameters
        ----------
        start, stop : int
            First byte, and the one behind the last.
        seen : Seen
            What `look` returned.

        Returns
        -------
        bytes
            Exactly `stop - start` of them.

        Raises
        ------
        SourceError
            When it changed, cannot be read, or the service does not answer for long.
        """
        return self.read_ranges([(start, stop - start)], seen)[0]

    def read_ranges(self, ranges: Sequence[tuple[int, int]], seen: Seen) -> list[bytes]:
        """Return several ranges, those that lie close together got in one request.

        Parameters
        ----------
        ranges : sequence of (int, int)
            Offset and length; they must lie inside the file.
        seen : Seen
            What `look` returned.

        Returns
        -------
        list of bytes
            In the order of the ranges.

        Raises
        ------
        SourceError
            As for `read`.
        """
        name, head_bytes = self._id(seen), min(HEAD_BYTES, seen.size_bytes)
        # a header is read in several pieces, so that it is got as a whole
        pieces = [(0, head_bytes) if start + nbytes <= head_bytes else (start, nbytes) for start, nbytes in ranges]
        kept = {piece: _kept.get(name, piece[0], sum(piece)) for piece in dict.fromkeys(pieces) if piece[1]}
        found = {piece: data for piece, data in kept.items() if data is not None}
        tell(COMPRESSED, hits=len(found), misses=len(kept) - len(found), bytes=sum(map(len, found.values())))
        missing = [piece for piece in kept if piece not in found]
        if missing:
            found |= self._through(missing, seen, lambda some: self._fetch_all(some, seen))
            for piece in missing:
                if piece[1] <= HEAD_BYTES:
                    _kept.put(name, piece[0], found[piece])
        return [
            found[piece][start - piece[0] : start - piece[0] + nbytes] if nbytes else b""
            for piece, (start, nbytes) in zip(pieces, ranges, strict=True)
        ]

    def warm(self, ranges: Sequence[tuple[int, int]], seen: Seen) -> None:
        """Fetch ranges that are not kept yet, and keep them for `read`, unless that is too much.

        Parameters
        ----------
        ranges : sequence of (int, int)
            Offset and length; they must lie inside the file.
        seen : Seen
            What `look` returned.

        Raises
        ------
        SourceError
            As for `read`.
        """
        name = self._id(seen)
        kept = {one: _kept.get(name, one[0], sum(one)) for one in dict.fromkeys(ranges) if one[1]}
        # what came along with a request for others is kept, and has not been passed down
        pass_down(name if isinstance(name, bytes) else None, {one: data for one, data in kept.items() if data})
        wanted = [one for one, data in kept.items() if data is None]
        if sum(nbytes for _, nbytes in wanted) > _kept.budget_bytes // AHEAD_PART:
            return
        found = self._through(wanted, seen, lambda some: self._fetch_all(some, seen, keep=True))
        for (start, _), data in found.items():
            _kept.put(name, start, data)

    def _through(
        self, ranges: Sequence[Range], seen: Seen, fetch: Callable[[Sequence[Range]], list[bytes]]
    ) -> dict[Range, bytes]:
        """Return ranges that memory does not have, from the tiers below it."""
        name = self._id(seen)
        parts = fetch_through(name if isinstance(name, bytes) else None, ranges, fetch, source=service_of(self.url))
        return dict(zip(ranges, parts, strict=True))

    def _fetch_all(self, ranges: Sequence[Range], seen: Seen, *, keep: bool = False) -> list[bytes]:
        """Return ranges from the source; what is got with them, since they lie close together, is kept too."""
        spans = spans_of(ranges)
        found = [b""] * len(ranges)
        for span, data in zip(
            spans, _at_once(spans, lambda span: self._fetch(span.start, span.stop, seen)), strict=True
        ):
            count("bytes_read", len(data))
            if keep:
                _kept.put(self._id(seen), span.start, data)
            for number in span.members:
                start = ranges[number][0] - span.start
                found[number] = data[start : start + ranges[number][1]]
        return found

    def part(self, start: int, stop: int) -> bytes | None:
        """Return a range of a small file, None when there is none of that name.

        Parameters
        ----------
        start, stop : int
            First byte, and the one behind the last.

        Returns
        -------
        bytes or None
            Fewer where the file ends before; of a server that knows no ranges all of it. Not compared with what was
            seen before: small files are read at once, or checked as a whole.

        Raises
        ------
        SourceError
            When it cannot be read.
        """
        try:
            return tries()(self._part, start, stop)
        except Exception as error:
            if missing(error):
                return None
            raise explained(self.url, error) from error

    def find(self) -> Seen | None:
        """Return what the file is now, None when there is none or it is a folder; raise as `look` does."""
        try:
            return self.look(max_age_s=0)
        except SourceError as error:
            cause = error.__cause__
            if cause is not None and (missing(cause) or isinstance(cause, IsADirectoryError)):
                return None
            raise

    def exists(self) -> bool:
        """Return whether it is there and may be read: who may not list a bucket is told 403 of what is not there."""
        try:
            return self.look() is not None
        except SourceError as error:
            cause = error.__cause__
            # of an address made by appending to a signed one, servers also say that it makes no sense
            is_refused = isinstance(cause, PermissionError) or getattr(cause, "status", 0) in (400, 401, 403)
            if cause is not None and (missing(cause) or is_refused or isinstance(cause, IsADirectoryError)):
                return False
            raise

    @staticmethod
    def seen_as(version: tuple[int, tuple[object, ...]]) -> Seen:
        """Return what was seen, from the size and marks that were made of it."""
        size_bytes, (told, etag) = version
        return Seen(
            size_bytes=size_bytes,
            version=None if told is None else str(told),
            etag=None if etag is None else str(etag),
        )

    def _id(self, seen: Seen) -> bytes | tuple[str, str, Seen]:
        known = self._known
        if known is None or known[0] != seen:  # each tile asks several times
            self._known = known = seen, identity_of(self.url, self._options, seen)
        return known[1]

    def _fetch(self, start: int, stop: int, seen: Seen) -> bytes:
        try:
            return tries()(self._get, start, stop, seen)
        except ChangedError as error:
            self._looked_s = -FRESH_S  # whoever opens it now gets the new one
            raise changed(self.url, str(error), seen) from error
        except Exception as error:
            raise explained(self.url, error) from error

    def _info(self) -> Seen:
        system, path = file_system(self.url, self._options)
        if isinstance(system, CachingFileSystem):  # (`blockcache::s3://…`) what is on the disk may be out of date
            system = system.fs
        try:
            look = LOOK.get(self.url.partition("://")[0])
            info = system.info(path) if look is None else sync(system.loop, look, system, path)
        except FileNotFoundError as error:
            # fsspec says so of whatever a web server answers, and of one that does not answer
            if error.__cause__ is not None and getattr(error.__cause__, "status", 0) not in (404, 410):
                raise error.__cause__ from None
            raise
        if info.get("type") == "directory":
            raise IsADirectoryError("a folder")
        if info.get("size") is None:
            raise NoRangesError("a server that does not tell the size of the file")
        if info.get("partial") is False:
            raise NoRangesError("a server that sends whole files only, no ranges of bytes")
        etag = info.get("ETag") or info.get("etag")
        strong = str(etag) if etag and not str(etag).startswith("W/") else None
        return Seen(size_bytes=int(info["size"]), version=version_of(info), etag=strong)

    def _part(self, start: int, stop: int) -> bytes:
        system, path = file_system(self.url, self._options)
        try:
            return bytes(system.cat_file(path, start=start, end=stop))
        except Exception as error:
            if "InvalidRange" in codes_of(error) or getattr(error, "status", 0) == 416:  # no byte, so no range
                return b""
            raise

    def _get(self, start: int, stop: int, seen: Seen) -> bytes:
        system, path = file_system(self.url, self._options)
        fetch = FETCH.get(self.url.partition("://")[0])
        try:
            if fetch is None:
                data = bytes(system.cat_file(path, start=start, end=stop))
            else:
                data = sync(system.loop, fetch, system, path, start, stop, seen)
        except Exception as error:
            if {"412", "PreconditionFailed"} & codes_of(error):
                raise ChangedError("another object of that name") from error
            raise
        if len(data) != stop - start:
            raise ShortAnswer(f"{len(data)} of {stop - start} bytes")
        return data


def _at_once(spans: Sequence[Span], fetch: Callable[[Span], bytes]) -> list[bytes]:
    if len(spans) < 2:
        return [fetch(span) for span in spans]
    with ThreadPoolExecutor(min(len(spans), REQUESTS)) as pool:
        return list(pool.map(fetch, spans))


def changed(url: str, got: str, seen: Seen) -> SourceError:
    """Return the error for a file that changed since it was opened."""
    return SourceError.of(
        f"`{url}` changed during the run",
        got=got,
        expected=f"the {seen.size_bytes} bytes that it had when it was opened",
        do="Nothing was made of a mixture; run the same command again when the file is at rest.",
    )


def explained(url: str, error: BaseException) -> SourceError:
    """Return the error that says why a remote file cannot be read."""
    if isinstance(error, NoRangesError):
        return SourceError.of(f"`{url}`", got=str(error), expected="ranges of bytes", do="Copy it to a disk first.")
    got, expected, do = words_of(error)
    return SourceError.of(f"`{url}`", got=got, expected=expected, do=do)


def remote_file(url: str, options: Mapping[str, Any]) -> RemoteFile:
    """Return what this process knows of a file behind a URL.

    Parameters
    ----------
    url : str
        fsspec URL.
    options : Mapping
        fsspec storage options.

    Returns
    -------
    RemoteFile
        The same one for the same URL and options.
    """
    key = (os.getpid(), url, repr(sorted(options.items())))
    with _lock:
        if key not in _files:
            _files[key] = RemoteFile(url, options)
        return _files[key]


_kept = kept_ranges
_files: LRU[tuple[int, str, str], RemoteFile] = LRU(REMEMBERED, {})
_lock = Lock()


def forget_below(folder: str) -> None:
    """Forget what is known of the files in a folder, after this process has written there.

    Parameters
    ----------
    folder : str
        fsspec URL.
    """
    prefix = folder.rstrip("/") + "/"
    with _lock:
        for key in [key for key, file in _files.items() if file.url.startswith(prefix)]:
            del _files[key]


def _renew() -> None:
    global _lock  # the parent may have held it when it forked
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
