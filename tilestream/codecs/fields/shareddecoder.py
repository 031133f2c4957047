"""What a cohort of pictures shares: the network that turns a small grid of latents into pixels, and their prior.

    latents (C, h/s, w/s)/4 -> 3×3, ReLU, 1×1 -> 3×3, ReLU, 1×1, two cells a cell along both axes: features
    pixel of level l = head(mean of the interpolated features over its footprint, l/4) + ½

s is `stride_px`. The head is a perceptron at every pixel, with the mean of `footprints`, so that any box of any level,
also a fractional one, costs its own pixels; convolutions are perceptrons over neighbourhoods, edges repeated. Products
are those of `tilestream.kernels.mlp`: the same bits whatever the box and the number of threads.

Weights are stored with 8 bits and a scale a row, biases with 16; files are named by a hash of that.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.container import pack, unpack
from tilestream.codecs.fields.footprints import seen, taps_of
from tilestream.codecs.fields.latentcoder import LatentPrior
from tilestream.codecs.fields.picture import MOST_CHANNELS, Picture
from tilestream.codecs.quantise import Quantised, quantise
from tilestream.errors import ConfigError, DamagedError
from tilestream.kernels.mlp import mlp
from tilestream.kernels.mlp_layers import MlpLayers
from tilestream.types import Box

KIND = "shared-decoder"
VERSION = 1
DIGEST_BYTES = 8
LATENT_SCALE = 0.25
"""Of latents on their way into the network."""
LEVEL_SCALE = 0.25
MIDDLE = 0.5
"""What outputs are counted from."""
WEIGHT_BITS, BIAS_BITS = 8, 16
LEAST_LMBDA, MOST_LMBDA = 1e-12, 1e12
MOST_PIXELS = 1 << 16
"""Whose features are in memory at once."""
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class SharedShape:
    """Sizes of a shared decoder."""

    channels: int = 3
    """Of its pictures."""
    latents: int = 6
    """Numbers of a cell."""
    stride_px: int = 8
    """Level-0 pixels of a cell along each axis, even; 16 makes a quarter of the bytes."""
    hidden: int = 64
    """Features within both convolutions."""
    width: int = 32
    """Features between them."""
    features: int = 16
    """Features that the head sees."""
    head: int = 32
    """Features within it."""

    def __post_init__(self) -> None:
        most = {"channels": MOST_CHANNELS, "latents": 64, "stride_px": 256}
        for part in fields(self):
            value, limit = getattr(self, part.name), most.get(part.name, 512)
            if type(value) is not int or not 1 <= value <= limit or (part.name == "stride_px" and value % 2):
                even = ", even" if part.name == "stride_px" else ""
                raise ConfigError.of(
                    f"`{part.name}` of a shared decoder",
                    got=value,
                    expected=f"a whole number of 1 to {limit}{even}",
                    do="Choose another.",
                )

    @property
    def layers(self) -> tuple[MlpLayers, MlpLayers, MlpLayers]:
        """Return both convolutions and the head as perceptrons."""
        return (
            MlpLayers(widths=(9 * self.latents, self.hidden, self.width), biases=True),
            MlpLayers(widths=(9 * self.width, self.hidden, 4 * self.features), biases=True),
            MlpLayers(widths=(self.features + 1, self.head, self.channels), biases=True),
        )

    def cells(self, picture: Picture) -> tuple[int, int]:
        """Return how many cells the latents of a picture have along y and x."""
        y, x = (-(-size // self.stride_px) for size in picture.shape.yx)
        return y, x


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedDecoder:
    """A network and a prior that stand for no picture, but for what pictures of a cohort have in common."""

    shape: SharedShape
    """Sizes."""
    lmbda: float
    """What a bit a pixel costs against the mean squared error, of samples of 0 to 1: the balance it was trained for."""
    matrices: Quantised
    """All weights but biases, a group a row."""
    biases: Quantised
    """All biases, a group a layer."""
    prior: LatentPrior
    """Of latents."""

    @classmethod
    def of(cls, runs: tuple[Floats, Floats, Floats], shape: SharedShape, *, lmbda: float, prior: LatentPrior) -> Any:
        """Return the decoder of trained weights, quantised.

        Parameters
        ----------
        runs : tuple of ndarray of float32
            Weights of the three perceptrons, in the order of `tilestream.kernels.mlp_layers`.
        shape : SharedShape
            Their sizes.
        lmbda : float
            What they were trained for.
        prior : LatentPrior
            Of latents.

        Returns
        -------
        SharedDecoder
            Of these weights, rounded.
        """
        parts = [part for run, layers in zip(runs, shape.layers, strict=True) for part in _parts(run, layers)]
        rows, ends = _starts(shape)
        matrices = np.concatenate([matrix.reshape(-1) for matrix, _ in parts]).astype(np.float32)
        biases = np.concatenate([bias for _, bias in parts]).astype(np.float32)
        return cls(
            shape=shape,
            lmbda=lmbda,
            matrices=quantise(matrices, rows, bits=WEIGHT_BITS),
            biases=quantise(biases, ends, bits=BIAS_BITS),
            prior=prior,
        )

    @cached_property
    def runs(self) -> tuple[Floats, Floats, Floats]:
        """Return the weights of the three perceptrons as runs of float32."""
        matrices, biases = self.matrices.values(), self.biases.values()
        found, first, first_bias = [], 0, 0
        for layers in self.shape.layers:
            run = []
            for inputs, outputs in itertools.pairwise(layers.widths):
                run += [matrices[first : first + inputs * outputs], biases[first_bias : first_bias + outputs]]
                first, first_bias = first + inputs * outputs, first_bias + outputs
            found.append(np.concatenate(run))
        one, two, three = found
        return one, two, three

    @cached_property
    def parameters(self) -> int:
        """Return how many weights and biases there are."""
        return sum(layers.parameters for layers in self.shape.layers)

    def features(self, codes: npt.NDArray[Any], *, threads: int | None = None) -> Floats:
        """Return the features of latents, which all pixels are made of.

        Parameters
        ----------
        codes : ndarray
            `(latents, y, x)` whole numbers.
        threads : int, optional
            Most threads.

        Returns
        -------
        ndarray of float32
            `(2 y, 2 x, features)`.
        """
        first, second, _ = self.shape.layers
        run, other, _ = self.runs
        values = codes.transpose(1, 2, 0).astype(np.float32) * np.float32(LATENT_SCALE)
        middle = mlp(_neighbourhoods(values), run, layers=first, threads=threads).reshape(*values.shape[:2], -1)
        found = mlp(_neighbourhoods(middle), other, layers=second, threads=threads)
        y, x = values.shape[:2]  # features of the four cells of a cell stand as (feature, y, x)
        parts = found.reshape(y, x, self.shape.features, 2, 2).transpose(0, 3, 1, 4, 2)
        return np.ascontiguousarray(parts.reshape(2 * y, 2 * x, self.shape.features))

    def values(
        self, features: Floats, picture: Picture, box: Box, *, level: float, threads: int | None = None
    ) -> Floats:
        """Return what stands for the pixels of a box.

        Parameters
        ----------
        features : ndarray of float32
            Those of the picture.
        picture : Picture
            Whose sizes count.
        box : Box
            In pixels of `level`, within it.
        level : float
            At least 0.
        threads : int, optional
            Most threads.

        Returns
        -------
        ndarray of float32
            `(channels, y, x)`, 0 to 1 within the range of the samples, and a little beyond.
        """
        size, stride = picture.shape, self.shape.stride_px // 2
        x = taps_of(box.x, box.width, level=level, size_px=size.x, stride_px=stride, cells=features.shape[1])
        found = np.empty((self.shape.channels, box.height, box.width), np.float32)
        rows = max(1, MOST_PIXELS // box.width)
        for first in range(0, box.height, rows):
            count = min(rows, box.height - first)
            y = taps_of(box.y + first, count, level=level, size_px=size.y, stride_px=stride, cells=features.shape[0])
            inputs = np.empty((count, box.width, self.shape.features + 1), np.float32)
            inputs[..., :-1] = seen(features, y, x)
            inputs[..., -1] = level * LEVEL_SCALE
            flat = inputs.reshape(count * box.width, -1)
            part = mlp(flat, self.runs[2], layers=self.shape.layers[2], threads=threads)
            found[:, first : first + count] = part.reshape(count, box.width, -1).transpose(2, 0, 1)
        found += np.float32(MIDDLE)
        return found

    @cached_property
    def digest(self) -> bytes:
        """Return the bytes by which pictures name it."""
        return hashlib.blake2b(self.to_bytes(), digest_size=DIGEST_BYTES).digest()

    @property
    def name(self) -> str:
        """Return the same as a word, for files and messages."""
        return self.digest.hex()

    def to_bytes(self) -> bytes:
        """Return it as a container; coded once, since most ask for it several times."""
        return self._packed

    @cached_property
    def _packed(self) -> bytes:
        sizes = [getattr(self.shape, part.name) for part in fields(self.shape)]
        sections = (self.matrices.to_bytes(), self.biases.to_bytes(), self.prior.to_bytes())
        return pack(KIND, version=VERSION, header={"s": sizes, "l": float(self.lmbda)}, sections=sections)

    @classmethod
    def from_bytes(cls, data: bytes) -> SharedDecoder:
        """Return the decoder that bytes hold.

        Parameters
        ----------
        data : bytes
            Result of `to_bytes`.

        Returns
        -------
        SharedDecoder
            With the same digest.

        Raises
        ------
        DamagedError
            When the bytes are not whole, or are no decoder.
        SourceError
            When they are of a newer version.
        """
        packed = unpack(data, kinds={KIND: VERSION})
        sizes = packed.numbers("s", least=1, most=512, count=len(fields(SharedShape)))
        lmbda = packed.number("l", least=LEAST_LMBDA, most=MOST_LMBDA)
        try:
            shape = SharedShape(
                **{part.name: size for part, size in zip(fields(SharedShape), sizes, strict=True)}  # type: ignore[arg-type]
            )
        except ConfigError as error:
            raise DamagedError(f"shared decoder: {error}") from error
        rows, ends = _starts(shape)
        matrices, biases, prior = packed.section_bytes(3)
        counts = [sum(i * o for layers in shape.layers for i, o in itertools.pairwise(layers.widths))]
        counts.append(sum(sum(layers.widths[1:]) for layers in shape.layers))
        return cls(
            shape=shape,
            lmbda=lmbda,
            matrices=Quantised.from_bytes(matrices, starts=rows, count=counts[0]),
            biases=Quantised.from_bytes(biases, starts=ends, count=counts[1]),
            prior=LatentPrior.from_bytes(prior, channels=shape.latents),
        )


def _parts(run: Floats, layers: MlpLayers) -> list[tuple[Floats, Floats]]:
    """Return matrix and bias of each layer of a run."""
    found = []
    for (inputs, outputs), start in zip(itertools.pairwise(layers.widths), layers.weight_starts, strict=False):
        middle = start + inputs * outputs
        found.append((run[start:middle].reshape(outputs, inputs), run[middle : middle + outputs]))
    return found


def _starts(shape: SharedShape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return where each row of all matrices begins, and each bias vector."""
    pairs = [pair for layers in shape.layers for pair in itertools.pairwise(layers.widths)]
    rows = [inputs for inputs, outputs in pairs for _ in range(outputs)]
    return (
        (0, *itertools.accumulate(rows[:-1])),
        (0, *itertools.accumulate([outputs for _, outputs in pairs][:-1])),
    )


def _neighbourhoods(values: Floats) -> Floats:
    """Return `(cells, 9 · channels)` of `(y, x, channels)`: a channel after the other, rows of three from the top."""
    framed = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(framed, (3, 3), axis=(0, 1))
    return np.ascontiguousarray(windows.reshape(values.shape[0] * values.shape[1], -1))
