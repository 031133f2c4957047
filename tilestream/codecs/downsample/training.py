"""Trains a stack of steps down and up together, on patches of images.

    loss = Σ_l  share^(l−1) mse(large from small_l, image) + weight · max(0, mse(small_l, mean_l) − floor_l)

over a batch of patches. The first part asks every level for the image itself. The guide is a floor and no pull: small
images that are nearer to their means than `guide_db` cost nothing, so that all of what is allowed goes into restoring.
8-bit rounding is part of the training. With one seed a training gives the same parameters in every run on one machine.

Source: the guide of Xiao et al., "Invertible image rescaling", ECCV 2020, arXiv:2005.05650, as a hinge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tilestream.codecs.downsample.network import DownsamplerNetwork
from tilestream.codecs.downsample.record import DownsamplerRecord
from tilestream.errors import ConfigError, StageError

BETAS = (0.9, 0.99)
MARGIN_DB = 2.2
"""How much nearer to the means than asked small images are kept in training: held-out tissue was up to 1.7 dB worse."""
FLAT = 20.0
"""Standard deviation in grey levels below which a patch teaches next to nothing."""
TRIES = 8
"""Places that are looked at for a patch that is not flat."""
TOLD = 50
"""Steps between two reports."""
WARM_SHARE = 0.1
"""Of a training, while rates rise; then they fall along a cosine (Smith & Topin 2017, arXiv:1708.07120)."""


@dataclass(frozen=True, kw_only=True)
class DownsampleSettings:
    """How a downsampler is trained."""

    levels: int = 1
    """Steps of its stack."""
    window_px: int = 8
    """As in `DownsamplerRecord`."""
    width: int = 32
    """As in `DownsamplerRecord`."""
    up_width: int = 32
    """As in `DownsamplerRecord`."""
    up_layers: int = 3
    """As in `DownsamplerRecord`."""
    steps: int = 2400
    """Of Adam."""
    batch: int = 8
    """Patches a step."""
    patch_px: int = 64
    """Edge of a patch; a multiple of 2^levels."""
    lr: float = 5e-3
    """Highest rate of Adam."""
    guide_db: float = 34.0
    """PSNR that the first small image keeps against the mean; each further level may have 4 dB less."""
    guide_weight: float = 5.0
    """Of what a small image is further away than that."""
    level_share: float = 0.35
    """Weight of a level beside the one before: the coarser, the larger the errors."""
    seed: int = 0
    """Of parameters and patches. Trainings differ by it: the same 1,200 steps have gained 1.0 dB or 1.9 dB."""

    def __post_init__(self) -> None:
        fits = self.steps >= 1 and self.batch >= 1 and self.patch_px >= 2 << self.levels
        if not fits or self.patch_px % (1 << self.levels):
            raise ConfigError.of(
                "settings of a downsampler",
                got=f"{self.steps} steps of {self.batch} patches of {self.patch_px} px, {self.levels} levels",
                expected=f"at least one of each, and patches of a multiple of {1 << self.levels} px",
                do="Change one of them.",
            )

    def record(self, channels: int) -> DownsamplerRecord:
        """Return the sizes of what is trained on images of so many channels."""
        return DownsamplerRecord(
            levels=self.levels,
            channels=channels,
            window_px=self.window_px,
            width=self.width,
            up_width=self.up_width,
            up_layers=self.up_layers,
        )

    def floor_db(self, level: int) -> float:
        """Return the PSNR that the small image of a level keeps against the mean."""
        return self.guide_db - 4.0 * (level - 1)


@dataclass(frozen=True, kw_only=True)
class DownsampleStep:
    """What is told of a training now and then."""

    step: int
    """Steps done."""
    loss: float
    """Mean of the last of them."""


def train_downsampler(
    images: Sequence[Sequence[npt.NDArray[np.uint8]]],
    settings: DownsampleSettings,
    *,
    hear: Callable[[DownsampleStep], None] = lambda _: None,
) -> DownsamplerNetwork:
    """Return a trained stack, in evaluation mode.

    Parameters
    ----------
    images : sequence of sequence of ndarray of uint8
        Tiles `(c, y, x)` of each image, of one number of channels, at least `patch_px` on both edges; images count
        alike, however many tiles they have.
    settings : DownsampleSettings
        How.
    hear : callable
        Told every 50 steps; may raise to stop.

    Returns
    -------
    DownsamplerNetwork
        Its steps down and up.

    Raises
    ------
    ConfigError
        When there are no images, or they are not of such a kind.
    StageError
        When the loss is no number any more.
    """
    channels = _channels_of(images, settings)
    patches = _patches(images, settings)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = DownsamplerNetwork(settings.record(channels))
        adam = torch.optim.Adam(network.parameters(), lr=settings.lr, betas=BETAS)
        losses: list[float] = []
        for step in range(settings.steps):
            for group in adam.param_groups:
                group["lr"] = settings.lr * _rate_share(step / settings.steps)
            loss = loss_of(network, next(patches), settings)
            adam.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            losses.append(float(loss.detach()))
            if (step + 1) % TOLD == 0 or step + 1 == settings.steps:
                _tell(step + 1, losses, hear)
                losses.clear()
    return network.eval()


def _tell(step: int, losses: Sequence[float], hear: Callable[[DownsampleStep], None]) -> None:
    mean = sum(losses) / len(losses)
    if not math.isfinite(mean):
        raise StageError.of(
            "training of a downsampler",
            got=f"a loss of {mean} after {step} steps",
            expected="a number",
            do="Take a smaller rate, --lr.",
        )
    hear(DownsampleStep(step=step, loss=mean))


def loss_of(network: DownsamplerNetwork, x: Tensor, settings: DownsampleSettings) -> Tensor:
    """Return the loss on `(n, c, y, x)` patches of samples 0 to 1."""
    total, mean = x.new_zeros(()), x
    for level, small in enumerate(network.smaller(x), 1):
        mean = functional.avg_pool2d(mean, 2)
        floor = 10 ** (-(settings.floor_db(level) + MARGIN_DB) / 10)
        away = functional.mse_loss(small, mean)
        total = total + settings.guide_weight * functional.relu(away - floor)
        share = settings.level_share ** (level - 1)
        total = total + share * functional.mse_loss(network.larger(small, level), x)
    return total


def _rate_share(done: float) -> float:
    if done < WARM_SHARE:
        return 0.04 + 0.96 * done / WARM_SHARE
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_SHARE) / (1 - WARM_SHARE)))


def _channels_of(images: Sequence[Sequence[npt.NDArray[np.uint8]]], settings: DownsampleSettings) -> int:
    tiles = [tile for image in images for tile in image]
    kinds = {(tile.dtype.name, len(tile)) for tile in tiles}
    least = min((min(tile.shape[1:]) for tile in tiles), default=0)
    if len(kinds) != 1 or least < settings.patch_px or tiles[0].dtype != np.uint8 or not all(map(len, images)):
        named = ", ".join(f"{name} with {c} channels" for name, c in sorted(kinds)) or "nothing"
        raise ConfigError.of(
            "tiles to train a downsampler on",
            got=f"{len(tiles)} tiles of {named}, the smallest of {least} px",
            expected=f"uint8, alike in their channels, of at least {settings.patch_px} px",
            do="Leave the others out, or take a smaller --patch.",
        )
    return len(tiles[0])


def _patches(images: Sequence[Sequence[npt.NDArray[np.uint8]]], settings: DownsampleSettings) -> Iterator[Tensor]:
    """Yield batches of patches, mirrored and turned at random."""
    generator, edge = np.random.default_rng(settings.seed), settings.patch_px

    def one() -> npt.NDArray[np.uint8]:
        for _ in range(TRIES):
            tiles = images[int(generator.integers(len(images)))]
            tile = tiles[int(generator.integers(len(tiles)))]
            y, x = (int(generator.integers(n - edge + 1)) for n in tile.shape[1:])
            patch = tile[:, y : y + edge, x : x + edge]
            if patch.std() >= FLAT:
                break
        turned = np.rot90(patch, int(generator.integers(4)), axes=(1, 2))
        return turned[:, ::-1] if generator.random() < 0.5 else turned

    while True:
        stacked = np.stack([one() for _ in range(settings.batch)])
        yield torch.from_numpy(stacked.astype(np.float32) / np.float32(255))


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: how sums are cut decides their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
