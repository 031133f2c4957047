"""Requests to object storage through fsspec; `Place` speaks to it by these. What fails is explained."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tilestream.codecs.objects import chain_of, explained_store, file_system

REQUESTS = 10
"""Most removals at once; botocore keeps as many connections."""

Options = Mapping[str, Any]


def require_bucket(url: str, options: Options) -> None:
    """Raise `OutputError` when the storage does not answer, or there is no such bucket."""
    with explained_store(url):
        system, path = file_system(url, options)
        try:
            system.ls(path, detail=False)
        except Exception as error:
            if not missing(error):
                raise
            bucket = path.partition("/")[0]
            if "/" in path and not system.exists(bucket):
                raise FileNotFoundError(f"the specified bucket does not exist: {bucket}") from error


def put(url: str, options: Options, data: bytes) -> None:
    """Put an object; it is whole and durable when this returns."""
    with explained_store(url):
        system, path = file_system(url, options)
        system.pipe_file(path, data)


def create(url: str, options: Options, data: bytes) -> bool:
    """Return whether an object was made that was not there before."""
    with explained_store(url):
        system, path = file_system(url, options)
        try:
            system.pipe_file(path, data, mode="create")
        except Exception as error:
            if is_taken(error):
                return False
            raise
    return True


def get(url: str, options: Options) -> bytes | None:
    """Return the content of an object, None when there is none."""
    with explained_store(url):
        system, path = file_system(url, options)
        try:
            return bytes(system.cat_file(path))
        except Exception as error:
            if missing(error):
                return None
            raise


def get_many(url: str, options: Options, names: Sequence[str]) -> dict[str, bytes]:
    """Return the contents of objects below a URL, got at once; absent ones are left out."""
    with explained_store(url):
        system, root = file_system(url, options)
        by_path = {f"{root}/{name}": name for name in names}
        result: dict[str, bytes] = {}
        for path, data in system.cat(list(by_path), on_error="return").items():
            if not isinstance(data, BaseException):
                result[by_path[path]] = bytes(data)
            elif not missing(data):
                raise data
    return result


def exists(url: str, options: Options) -> bool:
    """Return whether there is an object of that name, or one below it."""
    with explained_store(url):
        system, path = file_system(url, options)
        return bool(system.exists(path))


def version(url: str, options: Options) -> str | None:
    """Return a text that differs when the object was replaced, None when there is none."""
    with explained_store(url):
        system, path = file_system(url, options)
        try:
            return version_of(system.info(path))
        except Exception as error:
            if missing(error):
                return None
            raise


def modified_s(url: str, options: Options) -> float | None:
    """Return when an object was put on the service's clock, in seconds since 1970; None when there is none."""
    with explained_store(url):
        system, path = file_system(url, options)
        try:
            return float(system.modified(path).timestamp())
        except Exception as error:
            if missing(error):
                return None
            raise


def names(url: str, options: Options) -> list[str]:
    """Return the last parts of the names of the objects directly below a URL."""
    with explained_store(url):
        system, path = file_system(url, options)
        try:
            found = system.ls(path, detail=True)
        except Exception as error:
            if missing(error):
                return []
            raise
    inside = [entry["name"] for entry in found if entry["type"] != "directory" and entry["name"].rstrip("/") != path]
    return [name.rpartition("/")[2] for name in inside]


def sizes(url: str, options: Options) -> dict[str, int]:
    """Return the sizes in bytes of all objects below a URL, by their relative names."""
    with explained_store(url):
        system, root = file_system(url, options)
        found = system.find(root, detail=True)
    return {path[len(root) + 1 :]: int(entry["size"]) for path, entry in found.items() if path != root}


def remove(url: str, options: Options, names: Sequence[str]) -> None:
    """Remove objects below a URL; those that are not there are passed over."""
    with explained_store(url):
        system, root = file_system(url, options)
        # One by one: a bulk request of S3 tells of those it was not allowed to remove, and s3fs does not look.
        with ThreadPoolExecutor(min(len(names), REQUESTS)) as pool:
            removals = [pool.submit(system.rm_file, f"{root}/{name}") for name in names]
        for removal in removals:
            error = removal.exception()
            if error is not None and not missing(error):
                raise error


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
    for name in ("ETag", "etag", "generation", "md5Hash", "content_md5", "LastModified", "last_modified", "updated"):
        if info.get(name):
            return str(info[name])
    return None
