"""The small networks of the pyramid codec, as whole numbers: what a decoder computes is the same bits everywhere.

After Cool-chic (Ladune et al. 2023, arXiv 2212.05458) and C3 (Kim et al. 2023, arXiv 2312.02753): a tile is a pyramid
of grids of whole numbers, raised to one size by learned filters and turned into pixels by a small network; another
network foretells each number from those that are decoded before it. All of it is int32 arithmetic with int16 weights.
Values between layers are *features*, in 1/64: a latent of 1 is 64. Pixels are 0 to 16,320, from the
lowest to the highest value of a picture.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import DamagedError
from tilestream.kernels.pyramid_numbers import CONTEXT_OUT as CONTEXT_OUT
from tilestream.kernels.pyramid_numbers import FEATURE_BITS as FEATURE_BITS
from tilestream.kernels.pyramid_numbers import FEATURE_MOST as FEATURE_MOST
from tilestream.kernels.pyramid_numbers import FILTER_BITS as FILTER_BITS
from tilestream.kernels.pyramid_numbers import MOST_SCALES as MOST_SCALES
from tilestream.kernels.pyramid_numbers import MOST_WIDTH as MOST_WIDTH
from tilestream.kernels.pyramid_numbers import NEIGHBOURS as NEIGHBOURS
from tilestream.kernels.pyramid_numbers import PASSES as PASSES
from tilestream.kernels.pyramid_numbers import PIXEL_MOST as PIXEL_MOST
from tilestream.kernels.pyramid_numbers import TAPS as TAPS
from tilestream.types import Shape

LATENT_MOST = 255
"""Largest magnitude of a latent."""
MOST_CHANNELS, MOST_SHIFT, MOST_CONVS = MOST_WIDTH, 14, 3
_SUM_MOST = 2**31 - 1
_DIGEST_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Weights, a bias and a shift: `(W·a + bias + 2^(shift−1)) >> shift`."""

    weights: npt.NDArray[np.int16]
    """`(out, in)`; of a convolution `(out, in·9)`, the rows of its 3×3 window innermost."""
    bias: npt.NDArray[np.int32]
    """`(out,)`."""
    shift: int
    """1 to 14."""

    def check(self, shape: tuple[int, int], *, what: str) -> None:
        """Raise `DamagedError` where it has another shape, or sums in it may exceed 32 bits.

        Parameters
        ----------
        shape : tuple of int
            Outputs and inputs.
        what : str
            Its name in an error.
        """
        _require(self.weights.shape == shape and self.bias.shape == shape[:1], what, f"weights {self.weights.shape}")
        _require(self.weights.dtype == np.int16 and self.bias.dtype == np.int32, what, f"{self.weights.dtype}")
        _require(1 <= self.shift <= MOST_SHIFT, what, f"a shift of {self.shift}")
        sums = np.abs(self.weights.astype(np.int64)).sum(axis=1) * FEATURE_MOST + np.abs(self.bias.astype(np.int64))
        _require(int(sums.max()) + (1 << MOST_SHIFT - 1) <= _SUM_MOST, what, "sums of more than 32 bits")


@dataclass(frozen=True, kw_only=True)
class SynthNet:
    """Turns raised grids into the pixels of one level."""

    first: Layer
    """Grids to hidden features; negative ones become 0."""
    second: Layer
    """Hidden features, then the grids once more, to channels."""
    convs: tuple[Layer, ...] = ()
    """3×3 over the channels, each added to what it takes; between them negative values become 0."""

    @property
    def hidden(self) -> int:
        """Return how many hidden features there are."""
        return len(self.first.bias)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Return all layers in order."""
        return (self.first, self.second, *self.convs)


@dataclass(frozen=True, kw_only=True)
class PyramidNets:
    """All that decodes the grids of a tile, or of all tiles of a slide."""

    filters: npt.NDArray[np.int16]
    """`(scales − 1, 4)`: filter `l` raises grids to the size of grid `l`; bilinear is 0, 768, 256, 0 of 1,024."""
    synth: tuple[SynthNet, ...]
    """One for each of the finest levels, finest first; coarser levels are means of the last."""
    context: tuple[tuple[Layer, Layer, Layer], ...]
    """Networks from 9 neighbours to middle and scale."""
    table: npt.NDArray[np.int8]
    """`(scales, 3)`: which of `context` serves a grid and pass."""

    @property
    def scales(self) -> int:
        """Return how many grids there are."""
        return len(self.filters) + 1

    @property
    def channels(self) -> int:
        """Return how many channels come out."""
        return len(self.synth[0].second.bias)

    @property
    def layers(self) -> Iterator[Layer]:
        """Yield all layers: of the synthesis by level, then of the contexts."""
        for net in self.synth:
            yield from net.layers
        for layers in self.context:
            yield from layers

    @property
    def parameters(self) -> int:
        """Return how many numbers they are."""
        return self.filters.size + self.table.size + sum(one.weights.size + one.bias.size for one in self.layers)

    @cached_property
    def digest(self) -> bytes:
        """Return 8 bytes that name these networks."""
        found = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for part in self._parts():
            found.update(repr((part.dtype.name, part.shape)).encode() + np.ascontiguousarray(part).tobytes())
        return found.digest()

    def _parts(self) -> Iterator[npt.NDArray[Any]]:
        yield from (self.filters, self.table)
        yield np.array([len(net.convs) for net in self.synth], np.int16)
        for layer in self.layers:
            yield from (layer.weights, layer.bias, np.array(layer.shift, np.int16))

    def check(self) -> PyramidNets:
        """Return the same networks, once they are known to fit together and to stay within 32 bits.

        Returns
        -------
        PyramidNets
            Self.

        Raises
        ------
        DamagedError
            When a shape, shift, or sum is not what the decoder relies on.
        """
        scales, channels = self.scales, self.channels
        _require(1 <= scales <= MOST_SCALES and self.filters.shape == (scales - 1, TAPS), "filters", f"{scales} grids")
        _require(self.filters.dtype == np.int16, "filters", str(self.filters.dtype))
        taps = np.abs(self.filters.astype(np.int64)).sum(axis=1)
        _require(not taps.size or int(taps.max()) * FEATURE_MOST < _SUM_MOST // 2, "filters", "sums of over 32 bits")
        _require(1 <= len(self.synth) <= scales, "synthesis", f"{len(self.synth)} levels of {scales} grids")
        _require(1 <= channels <= MOST_CHANNELS, "synthesis", f"{channels} channels")
        for level, net in enumerate(self.synth):
            what, grids = f"synthesis of level {level}", scales - level
            _require(1 <= net.hidden <= MOST_WIDTH and len(net.convs) <= MOST_CONVS, what, f"{net.hidden} features")
            net.first.check((net.hidden, grids), what=what)
            net.second.check((channels, net.hidden + grids), what=what)
            for conv in net.convs:
                conv.check((channels, channels * 9), what=what)
        _require(self.table.shape == (scales, PASSES) and self.table.dtype == np.int8, "table", str(self.table.shape))
        count = len(self.context)
        _require(1 <= count <= scales * PASSES, "context", f"{count} networks")
        _require(int(self.table.min()) >= 0 and int(self.table.max()) < count, "table", f"{count} networks")
        for first, second, last in self.context:
            width = len(first.bias)
            _require(1 <= width <= MOST_WIDTH, "context", f"{width} features")
            first.check((width, NEIGHBOURS), what="context")
            second.check((width, width), what="context")
            last.check((CONTEXT_OUT, width), what="context")
        return self


def grid_shapes(shape: Shape, scales: int) -> tuple[Shape, ...]:
    """Return the sizes of the grids of a tile, finest first: each half of the one before, rounded up."""
    return tuple(Shape(y=math.ceil(shape.y / 2**n), x=math.ceil(shape.x / 2**n)) for n in range(scales))


def _require(good: bool, what: str, got: str) -> None:
    if not good:
        raise DamagedError(f"networks of a pyramid: {what} of {got}, which no decoder takes")
