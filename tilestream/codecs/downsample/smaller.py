"""The next level of an image by a learned step, without torch: the same bits however the image is cut.

    out[y, x] = round(mean of its four pixels + 255 · step(window_px² pixels around it / 255 − ½))

The window is centred where the mean is. Pixels beyond an edge are those of the edge; where a window holds a pixel that
is not valid, the mean of the valid ones of the four stands alone. The step is a perceptron, whose rows do not depend on
which others there are (`tilestream.kernels.mlp`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from tilestream.codecs.downsample.record import DownsamplerFile
from tilestream.errors import ConfigError
from tilestream.kernels.mip import mip_levels
from tilestream.kernels.mlp import mlp
from tilestream.kernels.mlp_layers import MlpLayers

ROWS_VALUES = 1 << 21
"""About how many inputs of the perceptron are made at once: 8 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Downsampler:
    """The steps of a file, ready to be taken."""

    file: DownsamplerFile
    """What was read."""

    @cached_property
    def layers(self) -> MlpLayers:
        """Return the sizes of the perceptron of a step."""
        record = self.file.record
        inputs = record.channels * record.window_px**2
        return MlpLayers(widths=(inputs, record.width, record.width, record.channels), biases=True)

    def weights(self, step: int) -> npt.NDArray[np.float32]:
        """Return the run of weights of a step, as `tilestream.kernels.mlp` takes it."""
        names = [f"down.{step}.{layer}.{part}" for layer in range(3) for part in ("weight", "bias")]
        return np.concatenate([self.file.parameters[name].reshape(-1) for name in names])

    def require(self, dtype: npt.DTypeLike, channels: int, *, what: str) -> None:
        """Raise unless an image is of the kind that it was trained on.

        Parameters
        ----------
        dtype : dtype
            Of its samples.
        channels : int
            How many it has.
        what : str
            Name of the image.

        Raises
        ------
        ConfigError
            When it is not.
        """
        wanted = self.file.record.channels
        if np.dtype(dtype) != np.uint8 or channels != wanted:
            raise ConfigError.of(
                f"`filter` (`--filter`) for `{what}`",
                got=f"{channels} channels of {np.dtype(dtype)}",
                expected=f"{wanted} of uint8, as the downsampler was trained on",
                do="Use lanczos, or train one on such images.",
            )

    def __call__(
        self, pixels: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_] | None, *, level: int, threads: int | None = 1
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_] | None]:
        """Return a level of half the size.

        Parameters
        ----------
        pixels : ndarray of uint8
            `(c, y, x)`, any strides.
        valid : ndarray of bool, optional
            `(y, x)`.
        level : int
            Which level this makes, from 1; it chooses the step.
        threads : int, optional
            Most CPU threads; None for all cores.

        Returns
        -------
        tuple of ndarray
            `(c, ceil(y/2), ceil(x/2))` uint8, and its validity where `valid` is given.
        """
        _, height, width = pixels.shape
        rows, columns = -(-height // 2), -(-width // 2)
        edge = self.file.record.window_px
        near = self.file.record.radius - 1
        pad = [(near, 2 * rows - height + near), (near, 2 * columns - width + near)]
        wide = np.pad(pixels, [(0, 0), *pad], mode="edge")
        out = np.empty((len(pixels), rows, columns), np.uint8)
        weights = self.weights(min(level, self.file.record.levels) - 1)
        step = max(1, ROWS_VALUES // (self.layers.widths[0] * columns))
        for top in range(0, rows, step):
            stop = min(top + step, rows)
            strip = wide[:, 2 * top : 2 * stop + 2 * near]
            inputs = _windows(strip, edge)
            inputs /= np.float32(255)
            inputs -= np.float32(0.5)
            more = mlp(inputs, weights, layers=self.layers, backend="cpu", threads=threads)
            four = strip[:, near : near + 2 * (stop - top), near : near + 2 * columns].astype(np.float32)
            sums = four[:, ::2, ::2] + four[:, 1::2, ::2] + four[:, ::2, 1::2] + four[:, 1::2, 1::2]
            found = sums * np.float32(0.25) + np.float32(255) * more.T.reshape(-1, stop - top, columns)
            out[:, top:stop] = np.clip(np.rint(found), 0, 255)
        return out, None if valid is None else self._masked(pixels, valid, out, pad)

    def _masked(self, pixels: Any, valid: Any, out: Any, pad: Any) -> npt.NDArray[np.bool_]:
        """Put means where a window holds what is not valid; return what is valid of the level."""
        edge = self.file.record.window_px
        spoiled = np.pad(~valid, pad, mode="edge")
        across = sliding_window_view(spoiled, edge, axis=1)[:, ::2].any(axis=-1)
        near_invalid = sliding_window_view(across, edge, axis=0)[::2].any(axis=-1)
        (mean,) = mip_levels(pixels, valid, levels=1, threads=1)
        np.copyto(out, mean.pixels, where=near_invalid)
        seen: npt.NDArray[np.bool_] = mean.valid
        return seen


def _windows(strip: npt.NDArray[np.uint8], edge: int) -> npt.NDArray[np.float32]:
    """Return every second window of both axes as a row `(rows · columns, c · edge²)`."""
    found = sliding_window_view(strip, (edge, edge), axis=(1, 2))[:, ::2, ::2]
    channels, rows, columns = found.shape[:3]
    return found.transpose(1, 2, 0, 3, 4).astype(np.float32).reshape(rows * columns, channels * edge * edge)
