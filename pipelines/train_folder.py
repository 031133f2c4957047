"""The folder of a training: one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tilestream.codecs.durable import ensure_directory
from tilestream.errors import ConfigError
from tilestream.stream.leases import claim

LEASE = ".training.lease"


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Hold a folder for a training, made where it is not there.

    Parameters
    ----------
    out : Path
        The folder.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    ConfigError
        When another process trains there.
    OutputError
        When it cannot be written.
    """
    ensure_directory(out)
    lease = claim(out / LEASE)
    if lease is None:
        raise ConfigError.of(
            f"`{out}`",
            got="another process that trains there",
            expected="one",
            do="Wait for it, or take another --out.",
        )
    with lease:
        yield
