"""Requests to object storage through fsspec; `Place` speaks to it by these. What fails is explained."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tilestream.codecs.objects import chain_of, explained_store, file_system
from tilestream.codecs.retries import tries
from tilestream.errors import OutputError

REQUESTS = 10
"""Most removals at once; botocore keeps as many connections."""

_VERSIONS = ("ETag", "etag", "generation", "LastModified", "Last-Modified", "last_modified", "updated", "created")

Options = Mapping[str, Any]
T = TypeVar("T")


def _ask(url: str, options: Options, request: Callable[[Any, str], T]) -> T:
    """Return what a request to the file system of a URL gives, made again while the trouble is one that passes."""
    with explained_store(url):
        system, path = file_system(url, options)
        return tries()(request, system, path)


def _unless_missing(request: Callable[[Any, str], T]) -> Callable[[Any, str], T | None]:
    def asked(system: Any, path: str) -> T | None:
        try:
            return request(system, path)
        except Exception as error:
            if missing(error):
                return None
            raise

    return asked


def require_bucket(url: str, options: Options) -> None:
    """Raise `OutputError` when the storage does not answer, cannot be written to, or there is no such bucket."""
    if url.partition("://")[0] in ("http", "https"):
        raise OutputError.of(
            f"`{url}`",
            got="a web server",
            expected="a folder on a disk or on object storage",
            do="Choose another `--out`.",
        )

    def look(system: Any, path: str) -> None:
        try:
            system.ls(path, detail=False)
        except Exception as error:
            if not missing(error):
                raise
            bucket = path.partition("/")[0]
            if "/" in path and not system.exists(bucket):
                raise FileNotFoundError(f"the specified bucket does not exist: {bucket}") from error

    _ask(url, options, look)


def put(url: str, options: Options, data: bytes) -> None:
    """Put an object; it is whole and durable when this returns."""
    _ask(url, options, lambda system, path: system.pipe_file(path, data))


def create(url: str, options: Options, data: bytes) -> bool:
    """Return whether an object was made that was not there before."""

    def put_new(system: Any, path: str) -> bool:
        try:
            system.pipe_file(path, data, mode="create")
        except Exception as error:
            if is_taken(error):
                return False
            raise
        return True

    return _ask(url, options, put_new)


def get(url: str, options: Options) -> bytes | None:
    """Return the content of an object, None when there is none."""
    return _ask(url, options, _unless_missing(lambda system, path: bytes(system.cat_file(path))))


def get_many(url: str, options: Options, names: Sequence[str]) -> dict[str, bytes]:
    """Return the contents of objects below a URL, got at once; absent ones are left out."""

    def get_all(system: Any, root: str) -> dict[str, bytes]:
        by_path = {f"{root}/{name}": name for name in names}
        result: dict[str, bytes] = {}
        for path, data in system.cat(list(by_path), on_error="return").items():
            if not isinstance(data, BaseException):
                result[by_path[path]] = bytes(data)
            elif not missing(data):
                raise data
        return result

    return _ask(url, options, get_all)


def exists(url: str, options: Options) -> bool:
    """Return whether there is an object of that name, or one below it."""
    return _ask(url, options, lambda system, path: bool(system.exists(path)))


def version(url: str, options: Options) -> str | None:
    """Return a text that differs when the object was replaced, None when there is none."""
    return _ask(url, options, _unless_missing(lambda system, path: version_of(system.info(path))))


def modified_s(url: str, options: Options) -> float | None:
    """Return when an object was put on the service's clock, in seconds since 1970; None when there is none."""
    return _ask(url, options, _unless_missing(lambda system, path: float(system.modified(path).timestamp())))


def names(url: str, options: Options) -> list[str]:
    """Return the last parts of the names of the objects directly below a URL."""

    def list_objects(system: Any, path: str) -> list[str]:
        found = system.ls(path, detail=True)
        objects = [entry["name"] for entry in found if entry["type"] != "directory"]
        return [name.rpartition("/")[2] for name in objects if name.rstrip("/") != path]

    return _ask(url, options, _unless_missing(list_objects)) or []


def sizes(url: str, options: Options) -> dict[str, int]:
    """Return the sizes in bytes of all objects below a URL, by their relative names."""

    def find(system: Any, root: str) -> dict[str, int]:
        found = system.find(root, detail=True)
        return {path[len(root) + 1 :]: int(entry["size"]) for path, entry in found.items() if path != root}

    return _ask(url, options, find)


def remove(url: str, options: Options, names: Sequence[str]) -> None:
    """Remove objects below a URL; those that are not there are passed over."""

    def remove_all(system: Any, root: str) -> None:
        # One by one: a bulk request of S3 tells of those it was not allowed to remove, and s3fs does not look.
        with ThreadPoolExecutor(min(len(names), REQUESTS)) as pool:
            removals = [pool.submit(system.rm_file, f"{root}/{name}") for name in names]
        for removal in removals:
            error = removal.exception()
            if error is not None and not missing(error):
                raise error

    _ask(url, options, remove_all)


def is_taken(error: BaseException) -> bool:
    """Return whether an exclusive creation was refused because the object is there, or being made this moment.

    Parameters
    ----------
    error : BaseException
        What `pipe_file(mode="create")` raised.

    Returns
    -------
    bool
        False for every other failure.
    """
    if isinstance(error, FileExistsError):
        return True
    # S3 itself says 409 while two conditional puts cross; servers that imitate it leave out the condition that failed.
    answers = [getattr(link, "response", None) for link in chain_of(error)]
    codes = {answer.get("Error", {}).get("Code") for answer in answers if isinstance(answer, dict)}
    return bool(codes & {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})


def missing(error: BaseException) -> bool:
    """Return whether a storage service says that there is no such object.

    Parameters
    ----------
    error : BaseException
        What fsspec raised.

    Returns
    -------
    bool
        False also for a bucket that is not there, which is no answer about an object.
    """
    return (
        isinstance(error, FileNotFoundError | NotADirectoryError) or getattr(error, "errno", None) == errno.ENOENT
    ) and "bucket does not exist" not in str(error)


def version_of(info: Mapping[str, Any]) -> str | None:
    """Return what of an object's description differs when it was replaced.

    Parameters
    ----------
    info : Mapping
        What `info` of an fsspec file system returned.

    Returns
    -------
    str or None
        Entity tag, else time of change; None where the service tells neither.
    """
    for name in _VERSIONS:
        if info.get(name):
            return str(info[name])
    return None
