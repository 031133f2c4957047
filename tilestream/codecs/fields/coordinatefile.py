"""Networks of coordinates as bytes: containers of kind `siren`, `fourier` and `modulated`.

header      n [hidden width, hidden layers, octaves, flags, numbers of a latent], picture
            flags: 1 integrated, 2 takes the level, 4 sines, 8 quantised
sections    codes, where quantised; float16 of all else
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.container import Packed, pack, unpack
from tilestream.codecs.fields.coordinateparts import CoordinateParts
from tilestream.codecs.fields.coordinatesettings import MOST_HIDDEN, MOST_LAYERS
from tilestream.codecs.fields.encoding import MOST_OCTAVES, Encoding
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.fields.pictureheader import picture_header, picture_of
from tilestream.codecs.quantise import Quantised
from tilestream.errors import ConfigError, DamagedError
from tilestream.kernels.mlp_layers import MlpLayers

VERSION = 1
_NETWORK = "n"
_INTEGRATED, _LEVEL, _SINES, _QUANTISED = 1, 2, 4, 8


def write_coordinates(kind: str, parts: CoordinateParts, picture: Picture) -> bytes:
    """Return a network of coordinates as bytes.

    Parameters
    ----------
    kind : str
        Of the container.
    parts : CoordinateParts
        As codes where it has some, else as float16.
    picture : Picture
        What it stands for.

    Returns
    -------
    bytes
        A container.

    Raises
    ------
    ConfigError
        When a number is too large for float16.
    """
    encoding, layers = parts.encoding, parts.layers
    flags = (
        _INTEGRATED * encoding.integrated
        | _LEVEL * encoding.takes_level
        | _SINES * (layers.activation == "sine")
        | _QUANTISED * (parts.coded is not None)
    )
    header: dict[str, Any] = {
        _NETWORK: [layers.widths[1], len(layers.widths) - 2, encoding.octaves, flags, parts.latent],
        **picture_header(picture),
    }
    if parts.coded is None:
        sections = [_half(parts.run)]
    else:
        sections = [parts.coded.to_bytes(), _half(parts.run[~parts.is_coded])]
    return pack(kind, version=VERSION, header=header, sections=sections)


def read_coordinates(kind: str, data: bytes) -> tuple[CoordinateParts, Picture]:
    """Return the network that bytes hold.

    Parameters
    ----------
    kind : str
        Of the container.
    data : bytes
        Result of `write_coordinates`.

    Returns
    -------
    CoordinateParts
        The network.
    Picture
        What it stands for.

    Raises
    ------
    DamagedError
        When the bytes are not whole.
    SourceError
        When they are of another kind, or of a newer version.
    """
    packed = unpack(data, kinds={kind: VERSION})
    picture = picture_of(packed)
    hollow, is_quantised = _sizes_of(packed, picture)
    count, codes = sum(hollow.sizes.values()), sum(rows * columns for _, rows, columns in hollow.matrix_rows)
    if not is_quantised:
        (of_all,) = packed.section_bytes(1)
        return replace(hollow, run=_from_half(kind, of_all, count).astype(np.float32)), picture
    of_codes, of_rest = packed.section_bytes(2)
    rest = _from_half(kind, of_rest, count - codes)
    coded = Quantised.from_bytes(of_codes, starts=hollow.code_starts, count=codes)
    return replace(hollow, run=hollow.joined(coded.values(), rest), coded=coded), picture


def _sizes_of(packed: Packed, picture: Picture) -> tuple[CoordinateParts, bool]:
    """Return a network without its numbers, and whether they are codes."""
    sizes = packed.numbers(_NETWORK, least=0, most=MOST_HIDDEN, count=5)
    hidden, depth, octaves, flags, latent = (int(size) for size in sizes)
    is_whole = all(type(size) is int for size in sizes)
    if not (is_whole and hidden and 1 <= depth <= MOST_LAYERS and octaves <= MOST_OCTAVES and flags < 2 * _QUANTISED):
        raise DamagedError(f"a container of kind `{packed.kind}`: {sizes} is no network")
    encoding = Encoding(
        extent_px=picture.extent_px,
        levels=picture.levels,
        octaves=octaves,
        integrated=bool(flags & _INTEGRATED),
        takes_level=bool(flags & _LEVEL),
    )
    layers = MlpLayers(
        widths=(encoding.inputs, *[hidden] * depth, picture.channels),
        biases=True,
        activation="sine" if flags & _SINES else "relu",
    )
    hollow = CoordinateParts(encoding=encoding, layers=layers, latent=latent, run=np.zeros(0, np.float32))
    return hollow, bool(flags & _QUANTISED)


def _half(values: npt.NDArray[np.float32]) -> bytes:
    if not (np.abs(values) <= np.finfo(np.float16).max).all():
        raise ConfigError.of(
            "a field to be stored as float16",
            got="a number that is too large for it, or none",
            expected=f"numbers within ±{np.finfo(np.float16).max:,.0f}",
            do="Fit it again with a smaller learning rate.",
        )
    return values.astype("<f2").tobytes()


def _from_half(kind: str, data: bytes, count: int) -> npt.NDArray[np.float16]:
    if len(data) != 2 * count:
        raise DamagedError(f"a container of kind `{kind}`: {len(data):,} bytes for {count:,} numbers of 2")
    values = np.frombuffer(data, "<f2").astype(np.float16)
    if not np.isfinite(values).all():
        raise DamagedError(f"a container of kind `{kind}`: numbers that are not finite")
    return values
