"""Where a store of fields is decoded: by a user's choice, since two devices may differ by one in a sample."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from tilestream.errors import ConfigError
from tilestream.types import Source

BACKENDS = ("cpu", "cuda")
"""The CPU, which is the default; the CUDA device of the process: the cluster gives each worker its own."""


@runtime_checkable
class DecodesFields(Protocol):
    """A source whose blocks are computed."""

    def decode_on(self, backend: str) -> Source:
        """Return the source decoded elsewhere."""


def decoded_by(source: Source, backend: str) -> Source:
    """Return a store of fields that is decoded by a device.

    Parameters
    ----------
    source : Source
        The store.
    backend : str
        One of `BACKENDS`; whether there is such a device is found when the first block is decoded, on the worker.

    Returns
    -------
    Source
        With the choice in its description and fingerprint.

    Raises
    ------
    ConfigError
        When there is no such backend, or the image is no store of fields.
    """
    if backend not in BACKENDS:
        raise ConfigError.of("`decode`", got=backend, expected=f"one of {', '.join(BACKENDS)}", do="Correct it.")
    if not isinstance(source, DecodesFields):
        raise ConfigError.of(
            f"`decode={backend}`", got=f"an image of format {source.info.format}", expected="a store of fields",
            do="Leave it out: only fields are computed where a user says.",
        )  # fmt: skip
    return source.decode_on(backend)
