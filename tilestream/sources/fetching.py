"""Requests for one range of an object that must still be the one that was opened, by protocol.

HTTP and S3 are told which object is meant (`If-Match`); fsspec has no word for that, so that its file systems are used
for session, credentials and addresses, and the request itself is made here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tilestream.codecs.objects import chain_of

STALL_S = 20.0
"""How long a web server may send nothing before the request is made again; S3's own client waits for a minute."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a service said of a file."""

    size_bytes: int
    """Its size."""
    version: str | None
    """Entity tag, else time of change; None where neither is told."""
    etag: str | None
    """Entity tag, where there is one that identifies bytes."""


class ChangedError(OSError):
    """The object is another than the one that was opened."""


class NoRangesError(OSError):
    """The server sends whole files only."""


Fetch: TypeAlias = Callable[[Any, str, int, int, Seen], Awaitable[bytes]]


def _options(system: Any) -> dict[str, Any]:
    """Return what each request of a file system takes; however long it is, bytes have to come."""
    from aiohttp import ClientTimeout  # comes with what speaks HTTP

    return {"timeout": ClientTimeout(total=None, sock_connect=STALL_S, sock_read=STALL_S), **system.kwargs}


async def _http(system: Any, path: str, start: int, stop: int, seen: Seen) -> bytes:
    kwargs = _options(system)
    headers = {**kwargs.pop("headers", {}), "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    if seen.etag:
        headers["If-Match"] = seen.etag
    session = await system.set_session()
    async with session.get(system.encode_url(path), headers=headers, **kwargs) as answer:
        if answer.status == 404:
            raise FileNotFoundError(path)
        if answer.status in (412, 416):
            raise ChangedError(f"answer {answer.status} to a range that it had")
        answer.raise_for_status()
        if answer.status != 206 and stop - start != seen.size_bytes:
            raise NoRangesError("a server that sends whole files only, no ranges of bytes")
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if total.isdigit() and int(total) != seen.size_bytes:
            raise ChangedError(f"{total} bytes")
        if seen.etag and answer.headers.get("ETag", seen.etag) != seen.etag:
            raise ChangedError("another object of that name")
        return bytes(await answer.read())


async def _http_look(system: Any, path: str) -> dict[str, Any]:
    """Return what a web server says of a file, as `info` does, which asks twice for what is not there."""
    kwargs = _options(system)
    headers = {**kwargs.pop("headers", {}), "Accept-Encoding": "identity"}
    session = await system.set_session()
    url = system.encode_url(path)
    async with session.head(url, headers=headers, **{"allow_redirects": True, **kwargs}) as answer:
        if answer.status in (404, 410):
            raise FileNotFoundError(path)
        size = answer.headers.get("Content-Length", "")
        is_plain = answer.headers.get("Content-Encoding", "identity") in ("identity", "")
        if answer.status != 200 or not size.isdigit() or not is_plain:
            return dict(await system._info(path))  # of a server that answers GET alone
        found = {name: answer.headers[name] for name in ("ETag", "Last-Modified") if name in answer.headers}
        return {"size": int(size), "partial": answer.headers.get("Accept-Ranges") != "none", **found}


async def _s3(system: Any, path: str, start: int, stop: int, seen: Seen) -> bytes:
    bucket, key, version = system.split_path(path)
    wanted = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{stop - 1}", **system.req_kw}
    if version:
        wanted["VersionId"] = version
    if seen.etag:
        wanted["IfMatch"] = seen.etag
    answer = await system._call_s3("get_object", **wanted)
    try:
        return bytes(await answer["Body"].read())
    finally:
        answer["Body"].close()


FETCH: Mapping[str, Fetch] = {"http": _http, "https": _http, "s3": _s3, "s3a": _s3}
"""Protocol → how it is asked; others through `cat_file` of their file system."""


LOOK: Mapping[str, Callable[[Any, str], Awaitable[dict[str, Any]]]] = {"http": _http_look, "https": _http_look}
"""Protocol → how it is asked what a file is; others through `info` of their file system."""


def codes_of(error: BaseException) -> set[str]:
    """Return the codes of S3's answers behind an error.

    Parameters
    ----------
    error : BaseException
        What a request raised.

    Returns
    -------
    set of str
        Empty where none of S3 is behind it.
    """
    answers = [getattr(link, "response", None) for link in chain_of(error)]
    return {str(answer.get("Error", {}).get("Code")) for answer in answers if isinstance(answer, dict)}
