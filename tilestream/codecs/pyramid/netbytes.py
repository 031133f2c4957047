"""The networks of a pyramid as few bytes.

Weights are whole numbers times a power of two, each tensor having its own: how many zeros all its numbers end with is
found when they are written, so that whoever makes networks chooses steps, and nobody has to say them. The numbers
without these zeros go through the range coder (`tilestream.codecs.entropy`), layers of one role behind one another:
their numbers are alike, and the coder joins neighbours where one model is cheaper than two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.codemodels import LARGEST_CODE
from tilestream.codecs.entropy import CodeReader, CodeWriter
from tilestream.codecs.pyramid.nets import (
    CONTEXT_OUT,
    MOST_CHANNELS,
    MOST_CONVS,
    MOST_SCALES,
    MOST_SHIFT,
    MOST_WIDTH,
    NEIGHBOURS,
    PASSES,
    TAPS,
    Layer,
    PyramidNets,
    SynthNet,
)
from tilestream.errors import DamagedError
from tilestream.types import Array

BILINEAR = (0, 768, 256, 0)
"""What filters are written as differences from."""
_PART_BITS, _PARTS = 12, 3
_MOST_ZEROS = 31
_Shape = tuple[int, int]


def write_nets(nets: PyramidNets) -> bytes:
    """Return networks as bytes.

    Parameters
    ----------
    nets : PyramidNets
        Networks that fit together.

    Returns
    -------
    bytes
        For `read_nets`.

    Raises
    ------
    DamagedError
        When they are none that a decoder takes.
    """
    nets.check()
    writer = CodeWriter()
    for size in (nets.scales, nets.channels, len(nets.synth), len(nets.context)):
        writer.whole(size)
    for net in nets.synth:
        writer.whole(net.hidden)
        writer.whole(len(net.convs))
    for layers in nets.context:
        writer.whole(len(layers[0].bias))
    roles = _by_role([net.layers for net in nets.synth], nets.context)
    ordered = [layer for role in roles for layer in role]
    tensors = [
        nets.filters.astype(np.int64) - BILINEAR,
        *(one.weights for one in ordered),
        *(one.bias for one in ordered),
    ]
    found = [_code(tensor.ravel().astype(np.int64)) for tensor in tensors]
    _add(writer, [nets.table.ravel(), [one.shift for one in ordered], [zeros for zeros, _ in found]])
    _add(writer, [[len(parts) for _, parts in found]])
    _add(writer, [part for _, parts in found for part in parts])
    return writer.to_bytes()


def read_nets(data: bytes) -> PyramidNets:
    """Return the networks that bytes hold.

    Parameters
    ----------
    data : bytes
        Result of `write_nets`.

    Returns
    -------
    PyramidNets
        Checked.

    Raises
    ------
    DamagedError
        When they are none, or none that a decoder takes.
    """
    reader = CodeReader(data)
    scales, channels = reader.whole(least=1, most=MOST_SCALES), reader.whole(least=1, most=MOST_CHANNELS)
    levels, contexts = reader.whole(least=1, most=scales), reader.whole(least=1, most=scales * PASSES)
    sizes = [(reader.whole(least=1, most=MOST_WIDTH), reader.whole(least=0, most=MOST_CONVS)) for _ in range(levels)]
    widths = [reader.whole(least=1, most=MOST_WIDTH) for _ in range(contexts)]
    synth = [_synth_shapes(hidden, convs, scales - level, channels) for level, (hidden, convs) in enumerate(sizes)]
    context = [[(width, NEIGHBOURS), (width, width), (CONTEXT_OUT, width)] for width in widths]
    roles = _by_role(synth, context)
    shapes = [shape for role in roles for shape in role]
    lengths = [TAPS * (scales - 1), *(out * inputs for out, inputs in shapes), *(out for out, _ in shapes)]
    table, shifts, zeros = _take(reader, [scales * PASSES, len(shapes), len(lengths)], most=_MOST_ZEROS)
    (parts,) = _take(reader, [len(lengths)], most=_PARTS)
    if min(map(int, parts)) < 1 or min(map(int, zeros)) < 0 or not 1 <= shifts.min() <= shifts.max() <= MOST_SHIFT:
        raise DamagedError("networks of a pyramid: steps of weights that no encoder writes")
    codes = iter(_take(reader, [n for n, count in zip(lengths, parts, strict=True) for _ in range(count)]))
    tensors = [
        _values([next(codes) for _ in range(count)], int(zero)) for count, zero in zip(parts, zeros, strict=True)
    ]
    weights, biases = tensors[1 : len(shapes) + 1], tensors[len(shapes) + 1 :]
    layers = [
        Layer(weights=_as(values, np.int16).reshape(shape), bias=_as(bias, np.int32), shift=int(shift))
        for shape, values, bias, shift in zip(shapes, weights, biases, shifts, strict=True)
    ]
    made_synth, made_context = _by_owner(layers, synth, context)
    return PyramidNets(
        filters=_as(tensors[0].reshape(-1, TAPS) + BILINEAR, np.int16),
        synth=tuple(SynthNet(first=one[0], second=one[1], convs=tuple(one[2:])) for one in made_synth),
        context=tuple((one[0], one[1], one[2]) for one in made_context),
        table=table.reshape(scales, PASSES).astype(np.int8),
    ).check()


def _synth_shapes(hidden: int, convs: int, grids: int, channels: int) -> list[_Shape]:
    return [(hidden, grids), (channels, hidden + grids), *[(channels, channels * 9)] * convs]


def _by_role(synth: Sequence[Sequence[Any]], context: Sequence[Sequence[Any]]) -> Iterator[list[Any]]:
    """Yield first layers of all levels, second ones, convolutions; then those of the contexts in the same way."""
    for nets in (synth, context):
        for place in range(max(map(len, nets))):
            yield [net[place] for net in nets if place < len(net)]


def _by_owner(
    layers: Sequence[Layer], synth: Sequence[Sequence[Any]], context: Sequence[Sequence[Any]]
) -> tuple[list[list[Layer]], list[list[Layer]]]:
    """Return layers in the order of `_by_role` as the networks that they are of."""
    owned: tuple[list[list[Layer]], list[list[Layer]]] = ([[] for _ in synth], [[] for _ in context])
    given = iter(layers)
    for nets, mine in zip((synth, context), owned, strict=True):
        for place in range(max(map(len, nets))):
            for net, own in zip(nets, mine, strict=True):
                if place < len(net):
                    own.append(next(given))
    return owned


def _code(values: npt.NDArray[np.int64]) -> tuple[int, list[npt.NDArray[np.int64]]]:
    """Return how many zero bits all values end with, and the rest: one part, or 12 bits each where it is long."""
    union = int(np.bitwise_or.reduce(values, initial=0))
    zeros = (union & -union).bit_length() - 1 if union else 0
    rest = values >> zeros
    if not rest.size or np.abs(rest).max() <= LARGEST_CODE:
        return zeros, [rest]
    low = (1 << _PART_BITS) - 1
    return zeros, [rest & low, rest >> _PART_BITS & low, rest >> 2 * _PART_BITS]


def _values(parts: Sequence[Array], zeros: int) -> npt.NDArray[np.int64]:
    """Return the values that `_code` took apart."""
    found = np.zeros(len(parts[0]), np.int64)
    for number, part in enumerate(parts):
        found += part.astype(np.int64) << number * _PART_BITS
    return found << zeros


def _as(values: npt.NDArray[np.int64], dtype: type[np.signedinteger[Any]]) -> npt.NDArray[Any]:
    """Return values as a narrower type; raise `DamagedError` where they do not fit."""
    limits = np.iinfo(dtype)
    if values.size and not limits.min <= values.min() <= values.max() <= limits.max:
        raise DamagedError(f"networks of a pyramid: a number beyond {limits.dtype.name}")
    return values.astype(dtype)


def _add(writer: CodeWriter, groups: Sequence[Any]) -> None:
    """Add groups of whole numbers."""
    arrays = [np.asarray(group, np.int64) for group in groups]
    writer.add(np.concatenate(arrays), _starts([len(one) for one in arrays]))


def _take(reader: CodeReader, lengths: Sequence[int], *, most: int = LARGEST_CODE) -> list[npt.NDArray[np.int16]]:
    """Return the groups that were added."""
    starts = _starts(lengths)
    return np.split(reader.take(starts, count=sum(lengths), most=most), starts[1:])


def _starts(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:number]) for number in range(len(lengths))]
