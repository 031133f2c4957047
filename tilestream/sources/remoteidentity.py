"""By what the caches know a remote file in the state that it is in, in this process and in others."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

from tilestream.sources.fetching import Seen


def identity_of(url: str, options: Mapping[str, Any], seen: Seen) -> bytes | tuple[str, str, Seen]:
    """Return what tells a remote file in its state from all others.

    Parameters
    ----------
    url : str
        fsspec URL.
    options : Mapping
        fsspec storage options; who asks says nothing of an object's bytes, so that credentials are no part of it.
    seen : Seen
        What its service said of it.

    Returns
    -------
    bytes or tuple
        Bytes where other processes and later runs may rely on it. A tuple, for this process, where a change between two
        runs could go unseen: web servers tell a time of change in whole seconds, unlike object stores.
    """
    if seen.etag or (seen.version and not url.startswith(("http://", "https://"))):
        return blake2b(repr((url, _endpoint(url, options), seen)).encode(), digest_size=16).digest()
    return url, repr(sorted(options.items())), seen


def service_of(url: str) -> str:
    """Return scheme and host of a URL, by which it is remembered how fast a service answers."""
    parts = urlsplit(url.rpartition("::")[2])
    return f"{parts.scheme}://{parts.netloc}"


def _endpoint(url: str, options: Mapping[str, Any]) -> object:
    if "::" in url:  # options by protocol
        return sorted(options.items())
    return (
        options.get("endpoint_url"),
        options.get("client_kwargs", {}).get("endpoint_url"),
        options.get("account_name"),
    )
