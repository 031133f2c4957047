"""The shared decoder as networks of torch: what it is trained as, and what latents are fitted through.

Rates are those of a Laplace distribution around the prediction of `latentcoder`, whose spread grows with what stands
around: the coder's classes are cells of that spread. Fitting sees latents with noise of ±½ in their place, and rounded
ones with the gradient passed through at the end (Ballé et al., arXiv:1611.01704).
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from tilestream.codecs.fields.footprints import taps_of
from tilestream.codecs.fields.latentcoder import EDGES, LARGEST, NEIGHBOURS_YX, ONE, LatentPrior
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.fields.shareddecoder import LATENT_SCALE, LEVEL_SCALE, MIDDLE, SharedDecoder, SharedShape

ENCODER_GAIN = 8.0
"""So that latents span several whole numbers from the start: below that noise drowns them, and none comes to use."""
LEAST_SHARE = 1e-6
"""Probability below which a code costs no more: far off, gradients would vanish."""


class SharedNetwork(nn.Module):
    """Latents to features, features to pixels, and what latents cost.

    Parameters
    ----------
    shape : SharedShape
        Sizes.
    """

    def __init__(self, shape: SharedShape) -> None:
        super().__init__()
        self.shape = shape
        self.first = _convolution(shape.latents, shape.hidden, shape.width)
        self.second = _convolution(shape.width, shape.hidden, 4 * shape.features)
        self.head = nn.Sequential(
            nn.Linear(shape.features + 1, shape.head), nn.ReLU(), nn.Linear(shape.head, shape.channels)
        )
        self.prior = Prior(shape.latents)

    def features(self, latents: torch.Tensor) -> torch.Tensor:
        """Return `(n, 2 y, 2 x, features)` of `(n, latents, y, x)`."""
        found = functional.pixel_shuffle(self.second(self.first(latents * LATENT_SCALE)), 2)
        return found.permute(0, 2, 3, 1)

    def pixels(self, features: torch.Tensor, picture: Picture, level: int) -> torch.Tensor:
        """Return `(n, y, x, channels)` of a whole level."""
        y, x = (
            _matrix(size, count, level, self.shape.stride_px // 2).to(features)
            for size, count in zip(picture.shape.yx, features.shape[1:3], strict=True)
        )
        seen = torch.einsum("yi,nijf,xj->nyxf", y, features, x)
        levels = seen.new_full((*seen.shape[:3], 1), level * LEVEL_SCALE)
        found: torch.Tensor = self.head(torch.cat([seen, levels], dim=3)) + MIDDLE
        return found

    def decoder(self, *, lmbda: float, pictures: list[npt.NDArray[np.int64]]) -> SharedDecoder:
        """Return it as what files hold.

        Parameters
        ----------
        lmbda : float
            What it was trained for.
        pictures : list of ndarray of int64
            `(latents, y, x)` each: codes that the models of the prior are counted on.

        Returns
        -------
        SharedDecoder
            With 8-bit weights.
        """
        runs = (_run(self.first), _run(self.second), _run(self.head))
        prior = self.prior.record().with_models(pictures)
        decoder: SharedDecoder = SharedDecoder.of(runs, self.shape, lmbda=lmbda, prior=prior)
        return decoder

    @classmethod
    def of(cls, decoder: SharedDecoder) -> SharedNetwork:
        """Return the network of a decoder, which does not learn."""
        network = cls(decoder.shape)
        for part, run in zip((network.first, network.second, network.head), decoder.runs, strict=True):
            flat, at = torch.from_numpy(run.copy()), 0
            for parameter in part.parameters():
                parameter.data = flat[at : at + parameter.numel()].reshape(parameter.shape)
                at += parameter.numel()
        network.prior.load(decoder.prior)
        return network.requires_grad_(False)


class Prior(nn.Module):
    """What latents cost, in bits.

    Parameters
    ----------
    channels : int
        Numbers of a cell.
    """

    mask: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        known = torch.ones(channels, 5 * channels)
        known[:, 4 * channels :] = torch.tril(torch.ones(channels, channels), -1)
        self.register_buffer("mask", known)
        self.means = nn.Parameter(torch.zeros(channels, 5 * channels))
        self.spreads = nn.Parameter(torch.full((channels, 5 * channels), 0.02))
        self.least = nn.Parameter(torch.ones(channels))

    def bits(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the bits of all of `(n, channels, y, x)`."""
        height, width = latents.shape[2:]
        framed = functional.pad(latents, (1, 1, 1, 0))
        parts = [framed[:, :, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in NEIGHBOURS_YX]
        around = torch.cat([*parts, latents], dim=1)
        means = functional.conv2d(around, (self.means * self.mask)[:, :, None, None])
        spreads = (self.spreads.clamp_min(0) * self.mask)[:, :, None, None]
        least = self.least.clamp_min(float(EDGES[0]) / ONE / 2)
        spread = functional.conv2d(around.abs(), spreads) + least[:, None, None]
        gaps = latents - means
        share = _below((gaps + 0.5) / spread) - _below((gaps - 0.5) / spread)
        return -share.clamp_min(LEAST_SHARE).log2().sum()

    def record(self) -> LatentPrior:
        """Return it in whole numbers, without models."""
        with torch.no_grad():
            numbers = [self.means * self.mask, self.spreads.clamp_min(0) * self.mask, self.least.clamp_min(0)]
            means, spreads, least = (
                (number * ONE).round().clamp(-32767, 32767).numpy().astype(np.int16) for number in numbers
            )
        return LatentPrior(means=means, spreads=spreads, least=least, models=())

    def load(self, prior: LatentPrior) -> None:
        """Take the numbers of a record."""
        for parameter, numbers in zip(
            (self.means, self.spreads, self.least), (prior.means, prior.spreads, prior.least), strict=True
        ):
            parameter.data = torch.from_numpy(numbers.astype(np.float32) / ONE)


class Encoder(nn.Module):
    """Pixels to latents: what makes a training of decoders short; no file holds it.

    Parameters
    ----------
    shape : SharedShape
        Sizes of the decoder.
    width : int
        Features within.
    """

    def __init__(self, shape: SharedShape, width: int = 64) -> None:
        super().__init__()
        block = shape.stride_px // 2
        self.net = nn.Sequential(
            nn.PixelUnshuffle(block),
            nn.Conv2d(shape.channels * block**2, width, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            nn.Conv2d(width, shape.latents, 1),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return `(n, latents, y / s, x / s)` of `(n, channels, y, x)` in 0 to 1."""
        found: torch.Tensor = self.net(pixels - MIDDLE) * ENCODER_GAIN
        return found


def noisy(latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return latents with noise in the place of rounding."""
    return latents + torch.rand(latents.shape, generator=generator) - 0.5


def rounded(latents: torch.Tensor) -> torch.Tensor:
    """Return rounded latents, whose gradient is that of latents."""
    return latents + (latents.detach().round().clamp(-LARGEST, LARGEST) - latents.detach())


def _convolution(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    around = nn.Conv2d(inputs, hidden, 3, padding=1, padding_mode="replicate")
    return nn.Sequential(around, nn.ReLU(), nn.Conv2d(hidden, outputs, 1))


def _below(t: torch.Tensor) -> torch.Tensor:
    """Return the share of a Laplace distribution of scale 1 below t."""
    return 0.5 - 0.5 * torch.sign(t) * torch.expm1(-t.abs())


@functools.lru_cache(maxsize=64)
def _matrix(size_px: int, cells: int, level: int, stride_px: int) -> torch.Tensor:
    count = -(-size_px // 2**level)
    taps = taps_of(0, count, level=level, size_px=size_px, stride_px=stride_px, cells=cells)
    return torch.from_numpy(taps.matrix(cells))


def _run(part: nn.Module) -> npt.NDArray[np.float32]:
    """Return the weights of layers one after another, each followed by its biases."""
    numbers = itertools.chain(parameter.detach().reshape(-1) for parameter in part.parameters())
    found: npt.NDArray[np.float32] = torch.cat(list(numbers)).numpy()
    return found
