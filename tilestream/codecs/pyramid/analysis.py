"""The network that foretells the grids of a tile, as what a file holds: it is needed to encode, never to decode."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.codecs.container import Packed, pack
from tilestream.codecs.fields.picture import MOST_CHANNELS
from tilestream.codecs.pyramid.nets import MOST_SCALES
from tilestream.errors import DamagedError

KIND = "pyramid-analysis"
VERSION = 1
LEAST_SCALES = 2
MOST_WIDTH = 256
_TYPE = np.dtype("<f2")


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """Sizes and weights of an analysis network."""

    channels: int
    """Of its pictures."""
    scales: int
    """Grids that it foretells."""
    widths: tuple[int, ...]
    """Features of each size but the finest, which is reached from half its size: `scales − 1` of them."""
    weights: npt.NDArray[np.float16]
    """`(n,)`: all that was learned, in the order of the network's parts (`analysisnet`)."""

    def to_bytes(self) -> bytes:
        """Return it as a container."""
        header = {"c": self.channels, "w": list(self.widths)}
        return pack(KIND, version=VERSION, header=header, sections=(self.weights.astype(_TYPE).tobytes(),))

    @classmethod
    def of_packed(cls, packed: Packed) -> Analysis:
        """Return the network of an opened container.

        Parameters
        ----------
        packed : Packed
            Of `KIND`.

        Returns
        -------
        Analysis
            Equal to what was written.

        Raises
        ------
        DamagedError
            When its sizes are none, its weights not as many, or not finite.
        """
        channels = packed.whole("c", least=1, most=MOST_CHANNELS)
        widths = tuple(int(width) for width in packed.numbers("w", least=1, most=MOST_WIDTH))
        scales, [data] = len(widths) + 1, packed.section_bytes(1)
        if not LEAST_SCALES <= scales <= MOST_SCALES:
            raise DamagedError(f"analysis of pyramids: {scales} grids, expected {LEAST_SCALES} to {MOST_SCALES}")
        count = parameters_of(channels, widths)
        if len(data) != count * _TYPE.itemsize:
            raise DamagedError(f"analysis of pyramids: {len(data):,} bytes for {count:,} weights")
        weights = np.frombuffer(data, _TYPE).astype(np.float16)
        if not np.isfinite(weights).all():
            raise DamagedError("analysis of pyramids: weights that are not finite")
        return cls(channels=channels, scales=scales, widths=widths, weights=weights)


def parameters_of(channels: int, widths: tuple[int, ...]) -> int:
    """Return how many weights the network of these sizes has.

    Parameters
    ----------
    channels : int
        Of its pictures.
    widths : tuple of int
        Features of each size but the finest, finest first.

    Returns
    -------
    int
        Of `analysisnet.AnalysisNet`.
    """
    scales, first = len(widths) + 1, widths[0]
    found = _conv(4 * channels, first, 9) + _conv(first, 4, 1) + 2 * channels + scales
    found += _conv(scales - 1, first, 9) + 2 * _block(first)
    found += sum(2 * _block(width) + _conv(width, 1, 1) for width in widths)
    for number, (finer, coarser) in enumerate(itertools.pairwise(widths)):
        found += _conv(4 * finer, coarser, 1) + _conv(coarser, finer, 1) + _conv(scales - 2 - number, finer, 9)
    return found


def _conv(inputs: int, outputs: int, taps: int) -> int:
    return inputs * outputs * taps + outputs


def _block(width: int) -> int:
    return _conv(width, width, 9) + _conv(width, width, 1)
