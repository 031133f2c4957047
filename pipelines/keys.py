"""Names of outputs: relative paths that no two inputs share, on any file system."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tilestream.errors import ConfigError
from tilestream.sources.address import Address, parse_address

DEEPEST = 64
"""Most folders that a key grows by before two inputs are taken for one."""


def output_key(relative: str, *, has_selection: bool = True) -> str:
    """Return the name of an input's outputs: its relative path, made safe to join to a folder.

    Parameters
    ----------
    relative : str
        Path or URL, with or without a selection.
    has_selection : bool
        Whether a `#` begins a selection; False where it belongs to a name that was come across.

    Returns
    -------
    str
        Parts joined by `/`, without scheme, query, root, `.` and `..`; a selection `#t=3&z=1` becomes `@t=3,z=1`.
    """
    address = parse_address(relative) if has_selection else Address(url=relative)
    bare = address.url
    if is_remote(bare):
        bare = bare.partition("://")[2].partition("?")[0].replace(":", "_")
    parts = [part for part in bare.split("/") if part not in ("", ".", "..")]
    chosen = [f"{axis}={index}" for axis, index in address.index.items()]
    chosen += [f"kind={address.kind}"] if address.kind else []
    return "/".join(parts) + ("@" + ",".join(chosen) if chosen else "")


def is_remote(url: str) -> bool:
    """Return whether a URL points outside the local file system."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", url) is not None and not url.startswith("file://")


def unique_keys(inputs: Sequence[tuple[str, str]]) -> list[str]:
    """Return a key for each input that differs from all others, also where case does not count.

    Parameters
    ----------
    inputs : sequence of (str, str)
        Wanted key and URL of each.

    Returns
    -------
    list of str
        The wanted keys; those that clash each take as many folders above them as they need.

    Raises
    ------
    ConfigError
        When one URL is there twice.
    """
    keys = [key for key, _ in inputs]
    for depth in range(1, DEEPEST):
        counts = Counter(map(_folded, keys))
        clashing = [index for index, key in enumerate(keys) if counts[_folded(key)] > 1]
        if not clashing:
            return keys
        for index in clashing:
            keys[index] = _longer(*inputs[index], depth)
    raise ConfigError.of(
        f"`{inputs[clashing[0]][1]}`", got="the same input twice", expected="each input once", do="Name it only once."
    )


def _longer(key: str, url: str, depth: int) -> str:
    parts = output_key(url if is_remote(url) else str(Path(url).absolute())).split("/")
    return "/".join(parts[-(key.count("/") + 1 + depth) :])


def _folded(key: str) -> str:
    # macOS and Windows treat names that differ in case or in the composition of accents as one
    return unicodedata.normalize("NFC", key).casefold()
