"""Objects on remote storage that are either whole under their name or not there, and what to say when one cannot be.

Object storage has no rename and needs none: a put is seen whole or not at all, and is durable when it returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import fsspec

from tilestream.codecs.checksums import Crc32c
from tilestream.codecs.retries import tries
from tilestream.errors import OutputError

PART_BYTES = 16 << 20
"""A file that grows larger than this goes up in parts of this size; S3 takes 10,000 of them, 156 GiB."""
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # s3fs asks for the size before it gets a whole object unless told that one request at a time is enough
    "s3": {"max_concurrency": 1},
    "s3a": {"max_concurrency": 1},
    # a copy on the disk of an object that was replaced is thrown away, where its service tells
    "blockcache": {"check_files": True},
    "filecache": {"check_files": True},
}
_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")
_CONNECTION = ("ConnectionError", "ConnectTimeout", "ConnectorError", "ServerDisconnected", "ReadTimeout")


def file_system(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path in it.

    Parameters
    ----------
    url : str
        fsspec URL.
    options : Mapping
        fsspec storage options.

    Returns
    -------
    tuple of AbstractFileSystem, str
        Instances are cached by fsspec for each process, so that a forked child gets one of its own. Nothing that was
        listed is remembered: other processes write here too.
    """
    protocol, *inner = [link.partition("://")[0] for link in url.split("::")]  # `blockcache::s3://bucket/key`
    wanted = {"use_listings_cache": False, **_DEFAULTS.get(protocol, {}), **options}
    for name in inner:
        wanted[name] = {"use_listings_cache": False, **_DEFAULTS.get(name, {}), **options.get(name, {})}
    system, path = fsspec.core.url_to_fs(url, **wanted)
    return system, str(path)


def words_of(error: BaseException) -> tuple[str, str, str]:
    """Return what a storage service has found, what was expected and what to do about it.

    Parameters
    ----------
    error : BaseException
        What fsspec or the library below it raised.

    Returns
    -------
    tuple of str
        The parts `got`, `expected` and `do` of an error.
    """
    kinds = {kind.__name__ for link in chain_of(error) for kind in type(link).__mro__}
    statuses = {getattr(link, "status", None) for link in chain_of(error)}
    said = " ".join(str(link) for link in chain_of(error))
    if isinstance(error, ImportError):
        got = f"no package that reaches this storage ({str(error).lower()})"
        return got, "one that is installed", "Run `pip install -e '.[cloud]'`."
    if "Protocol not known" in said:
        return said.lower(), "s3, gs, az, http or another that fsspec knows", "Check the URL."
    if kinds.intersection(_CREDENTIALS):
        return (
            "no credentials",
            "credentials for this storage",
            "Set them (for S3: AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or pass `options`.",
        )
    if isinstance(error, PermissionError) or statuses & {401, 403} or "Forbidden" in said:
        return (
            "access denied (403)",
            "credentials that may do this",
            "Check which credentials are used and what the bucket's policy lets them do.",
        )
    if "bucket does not exist" in said or "NoSuchBucket" in said:
        return "no such bucket", "one that exists", "Create it, or correct the URL."
    if isinstance(error, FileNotFoundError):
        return "nothing there (404)", "an object of that name", "Check the URL."
    if isinstance(error, TimeoutError) or any(word in kind for kind in kinds for word in _CONNECTION):
        return "no answer from the storage", "a connection", "Check network, endpoint and region, then run it again."
    said = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
    return said, "an answer that can be used", "Run the same command again: finished work is kept."


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it.

    Parameters
    ----------
    error : BaseException
        Any.

    Yields
    ------
    BaseException
        The error itself first.
    """
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


@contextmanager
def explained_store(url: str) -> Iterator[None]:
    """Turn what a storage service raises inside the block into an `OutputError` about `url`.

    Parameters
    ----------
    url : str
        Object that is being written.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    OutputError
        When the service refuses or does not answer.
    """
    try:
        yield
    except OutputError:
        raise
    except Exception as error:  # each library below fsspec has errors of its own
        got, expected, do = words_of(error)
        explained = OutputError.of(f"`{url}`", got=got, expected=expected, do=do)
        explained.errno = getattr(error, "errno", None)
        raise explained from error


class ObjectFile:
    """An object that appears under its name only when it is whole; use it as a context manager.

    A small one is sent in one put when the block ends. A larger one goes up in parts meanwhile, which become an object
    when the block ends, or are thrown away when it is left by an exception. What a killed process has sent is no
    object either; services remove such parts by a rule of the bucket.

    Parameters
    ----------
    url : str
        fsspec URL of the object.
    options : Mapping
        fsspec storage options.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.path = url
        self._options = options
        self._digest = Crc32c()
        self._held = bytearray()
        self._upload: Any = None
        self.size_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes.

        Parameters
        ----------
        data : bytes
            What comes next.

        Raises
        ------
        OutputError
            When the storage refuses a part.
        """
        self._digest.update(data)
        self.size_bytes += len(data)
        if self._upload is None:
            self._held += data
            if len(self._held) < PART_BYTES:
                return
            data, self._held = self._held, bytearray()
        with explained_store(self.path):
            if self._upload is None:
                system, path = file_system(self.path, self._options)
                # Without autocommit closing does not make an object: fsspec closes, and would commit, on errors too.
                self._upload = system.open(path, "wb", block_size=PART_BYTES, autocommit=False)
            self._upload.write(data)

    @property
    def checksum(self) -> str:
        """Return the CRC-32C of what was written so far, in hex."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            with explained_store(self.path):
                self._commit()
        except BaseException:
            self._abandon()
            raise

    def _commit(self) -> None:
        if self._upload is not None:
            self._upload.close()
            self._upload.commit()
            return
        system, path = file_system(self.path, self._options)
        tries()(system.pipe_file, path, bytes(self._held))
        self._held = bytearray()

    def _abandon(self) -> None:
        self._held = bytearray()
        if self._upload is None:
            return
        with suppress(Exception):  # the first error is the one to report
            self._upload.discard()
        self._upload.closed = True  # collecting it as garbage would close it, and on Azure commit it
