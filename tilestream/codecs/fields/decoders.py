"""The shared decoders that this process knows, by their digests: pictures in files name theirs, and hold no copy."""

from __future__ import annotations

import base64
import binascii
import functools
from pathlib import Path

from tilestream.codecs.durable import write_durable
from tilestream.codecs.fields.shareddecoder import SharedDecoder
from tilestream.errors import ConfigError, DamagedError, SourceError

ENDING = ".tsdecoder"
"""How names of files of decoders end; before it stands the digest."""
_known: dict[bytes, SharedDecoder] = {}  # a decoder never changes, and its digest says which it is


def keep_decoder(decoder: SharedDecoder) -> SharedDecoder:
    """Return a decoder after making it known, so that files which name it are read from now on.

    Parameters
    ----------
    decoder : SharedDecoder
        Which.

    Returns
    -------
    SharedDecoder
        The one of this digest that was known already, otherwise this one.
    """
    return _known.setdefault(decoder.digest, decoder)


def find_decoder(digest: bytes) -> SharedDecoder:
    """Return the decoder that a file names.

    Parameters
    ----------
    digest : bytes
        `SharedDecoder.digest`.

    Returns
    -------
    SharedDecoder
        Known by `keep_decoder` or `load_decoder`.

    Raises
    ------
    SourceError
        When it is not known.
    """
    if digest in _known:
        return _known[digest]
    others = ", ".join(f"`{decoder.name}`" for decoder in _known.values()) or "none"
    raise SourceError.of(
        "decoder of a `shared` picture",
        got=f"{others} at hand",
        expected=f"`{digest.hex()}`, which the file names",
        do=f"Load the file `{digest.hex()}{ENDING}` that was written when it was trained (`--weights`).",
    )


def load_decoder(path: Path | str) -> SharedDecoder:
    """Return the decoder of a file, known from now on.

    Parameters
    ----------
    path : Path or str
        The file.

    Returns
    -------
    SharedDecoder
        What it holds.

    Raises
    ------
    ConfigError
        When there is no such file.
    DamagedError
        When it is not whole, or holds something else.
    """
    place = Path(path)
    if not place.is_file():
        raise ConfigError.of(f"`{place}`", got="no file", expected=f"a decoder (`*{ENDING}`)", do="Check the path.")
    return keep_decoder(SharedDecoder.from_bytes(place.read_bytes()))


def save_decoder(decoder: SharedDecoder, folder: Path | str) -> Path:
    """Write a decoder into a folder, named by its digest.

    Parameters
    ----------
    decoder : SharedDecoder
        Which.
    folder : Path or str
        Made where it is not there.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    place = Path(folder) / f"{decoder.name}{ENDING}"
    write_durable(place, decoder.to_bytes())
    return place


def decoder_text(decoder: SharedDecoder) -> str:
    """Return a decoder as a word for JSON: Base64 of its bytes, which the metadata of a store carry."""
    return base64.b64encode(decoder.to_bytes()).decode("ascii")


@functools.lru_cache(maxsize=16)
def decoder_of(text: str) -> SharedDecoder:
    """Return the decoder of a word, known from now on.

    Parameters
    ----------
    text : str
        Result of `decoder_text`.

    Returns
    -------
    SharedDecoder
        What it holds.

    Raises
    ------
    DamagedError
        When it is no such word, or what it holds is not whole.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DamagedError(f"shared decoder: its text is no Base64 ({error})") from error
    return keep_decoder(SharedDecoder.from_bytes(data))
