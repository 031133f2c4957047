"""What a picture adds to a base so that no pixel is off by more than is allowed, or none at all, as few bytes.

    x̂ = p + (2N + 1)·q,   q = ⌊(x − p + N) / (2N + 1)⌋,   so that |x − x̂| ≤ N for any p

p is foretold of each pixel from what is told before it (`residuallattice`) by weights that are fitted to the tile
(`residualfit`), and q is entropy-coded by a model as wide as the errors around it are large (`residualtables`). A
reader does nothing but whole-number arithmetic on the base that the synthesis gives in whole numbers too: the bound
holds on every machine. N = 0 is lossless.

    bytes   length of the front, front, steps
    front   N, order of channels, models of channels, as of `CodeWriter`
    steps   as of `StepWriter`; zeros behind them where good luck would leave fewer bytes than `CODES_A_BYTE` asks for

Source: prediction and adaptive models as of near-lossless JPEG-LS (Weinberger et al. 2000), least squares a tile as of
TMW (Meyer and Tischer 1997), the lattices as of the interlaced coders before them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.codemodels import Reading, write_whole
from tilestream.codecs.entropy import CODES_A_BYTE, FREE_CODES, CodeReader, CodeWriter
from tilestream.codecs.pyramid.residualfit import ChannelFit
from tilestream.codecs.pyramid.residuallattice import TIED_PIXELS, Frame
from tilestream.codecs.pyramid.residualmodel import ChannelModel
from tilestream.codecs.pyramid.residualsymbols import StepReader, StepWriter
from tilestream.codecs.pyramid.residualwalk import Cells, tell_channel
from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Array

DTYPES = ("uint8", "int8", "uint16", "int16")
"""Of pixels with a bounded error."""
MOST_ERROR = (1 << 15) - 1
MOST_CHANNELS = 64
_GREEN_FIRST = (1, 0, 2)
"""Red and blue are told from green: it is the channel that most of both is seen in."""


def encode_residual(pixels: Array, base: Array, max_error: int, *, valid: npt.NDArray[np.bool_] | None = None) -> bytes:
    """Return what a picture adds to a base, as bytes; equal arguments give equal bytes on one machine.

    Parameters
    ----------
    pixels : ndarray
        `(c, y, x)` of one of `DTYPES`.
    base : ndarray
        Of the same shape and type: what a reader will have, to the bit. Any picture serves; a better one costs less.
    max_error : int
        Largest difference allowed of any sample: 0 for none, at most 32,767.
    valid : ndarray of bool, optional
        `(y, x)`; what is not valid may decode to anything.

    Returns
    -------
    bytes
        For `decode_residual`. About two seconds of one core for 512 × 512 pixels of three channels.

    Raises
    ------
    ConfigError
        When pixels are of another type, shapes differ, or no such error can be promised.
    """
    _require(pixels, base, max_error, valid)
    channels = len(pixels)
    order = _GREEN_FIRST if channels == len(_GREEN_FIRST) else tuple(range(channels))
    cells = _cells(pixels, max_error)
    whole = pixels.astype(np.int32)
    measured = np.ones(pixels.shape[1:], bool) if valid is None else valid
    frame = Frame(base.astype(np.int32), order)
    front, steps = CodeWriter(), StepWriter()
    for number in (max_error, *order):
        front.whole(number)
    for place, channel in enumerate(order):
        model = ChannelFit(frame, place, whole, measured, cells).run()
        model.write(front)

        def take(half: int, turn: int | None, middles: Any, index: Any, shape: int, channel: int = channel) -> Any:
            found = cells.steps(middles, frame.view(whole[channel], half, turn), frame.view(measured, half, turn))
            steps.add(found.reshape(-1), index.reshape(-1), cells.lean(middles).reshape(-1), shape=shape)
            return found

        tell_channel(frame, place, model, cells, take)
    written = bytearray()
    models = front.to_bytes()
    write_whole(written, len(models))
    found = bytes(written) + models + steps.to_bytes()
    return found.ljust(_least_bytes(pixels), b"\0")


def decode_residual(data: bytes, base: Array, *, out: Array | None = None) -> Array:
    """Return the picture that a base and what was added to it give.

    Parameters
    ----------
    data : bytes
        Of `encode_residual`.
    base : ndarray
        `(c, y, x)`, to the bit what was given there.
    out : ndarray, optional
        Like `base`; overwritten.

    Returns
    -------
    ndarray
        `(c, y, x)` of the type of the base, no sample further from what it was than `max_error` of then.

    Raises
    ------
    DamagedError
        When bytes are missing, changed, or of a picture of other channels.
    """
    if len(data) < _least_bytes(base):
        raise DamagedError(f"residual of a pyramid: {base.size:,} samples cannot be in {len(data):,} bytes")
    reading = Reading(bytes(data))
    reader = CodeReader(reading.take(reading.whole(least=1, most=len(data))))
    max_error = reader.whole(least=0, most=MOST_ERROR)
    order = tuple(reader.whole(least=0, most=len(base) - 1) for _ in base)
    if len(set(order)) != len(base):
        raise DamagedError(f"residual of a pyramid: channels in the order {order}")
    cells = _cells(base, max_error)
    frame = Frame(base.astype(np.int32), order)
    models = [
        ChannelModel.read(reader, before=len(frame.before(place)), is_tied=cells.is_tied) for place in range(len(order))
    ]
    steps = StepReader(reading.rest())

    def take(half: int, turn: int | None, middles: Any, index: Any, shape: int) -> Any:
        return steps.take(index.reshape(-1), cells.lean(middles).reshape(-1), shape=shape).reshape(middles.shape)

    for place, model in enumerate(models):
        tell_channel(frame, place, model, cells, take)
    if out is None:
        return frame.found.astype(base.dtype)
    out[...] = frame.found
    return out


def max_error_of(data: bytes) -> int:
    """Return the largest error that a residual promises; raise `DamagedError` where its front is not whole."""
    reading = Reading(bytes(data))
    return CodeReader(reading.take(reading.whole(least=1, most=len(data)))).whole(least=0, most=MOST_ERROR)


def _least_bytes(pixels: Array) -> int:
    """Return the bytes that so many samples have at least: they cost a reader memory, though they may tell nothing."""
    return -(-max(0, pixels.size - FREE_CODES) // CODES_A_BYTE)


def _cells(pixels: Array, max_error: int) -> Cells:
    limits = np.iinfo(pixels.dtype)
    is_tied = pixels.shape[1] * pixels.shape[2] < TIED_PIXELS
    return Cells(max_error=max_error, low=int(limits.min), high=int(limits.max), is_tied=is_tied)


def _require(pixels: Array, base: Array, max_error: object, valid: Array | None) -> None:
    if pixels.dtype.name not in DTYPES or pixels.ndim != 3 or not 1 <= len(pixels) <= MOST_CHANNELS or not pixels.size:
        raise ConfigError.of(
            "`pixels` of a bounded error",
            got=f"{pixels.shape} {pixels.dtype}",
            expected=f"(c, y, x) of {', '.join(DTYPES)}, up to {MOST_CHANNELS} channels",
            do="Convert them, or leave `max_error` out.",
        )
    wrong = [base.shape != pixels.shape or base.dtype != pixels.dtype]
    wrong.append(valid is not None and (valid.dtype != bool or valid.shape != pixels.shape[1:]))
    if any(wrong):
        raise ConfigError.of(
            "`base` or `valid` of a residual",
            got=f"{base.shape} {base.dtype}, {'none' if valid is None else f'{valid.shape} {valid.dtype}'}",
            expected=f"{pixels.shape} {pixels.dtype}, {pixels.shape[1:]} bool",
            do="Decode the base of the same picture.",
        )
    if isinstance(max_error, bool) or not isinstance(max_error, int | np.integer) or not 0 <= max_error <= MOST_ERROR:
        raise ConfigError.of(
            "`max_error`", got=max_error, expected=f"a whole number of 0 to {MOST_ERROR:,}", do="0 is lossless."
        )
