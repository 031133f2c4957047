"""Training what a cohort shares: one decoder, on many pictures at once, with an encoder that is thrown away.

Latents of a training picture come from the encoder, so that each step trains on crops that were never seen before; with
latents of their own (auto-decoding) a picture's latents move only when its turn comes. Fitting starts from zero either
way (`sharedfit`). λ is led to the bytes that a picture may have: by an estimate while the networks are trained, then by
the coded bytes of fitted crops, which spend more at the same λ than those of the encoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt
import torch

from tilestream.codecs.fields.latentcoder import LARGEST
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.fields.shareddecoder import LEAST_LMBDA, MOST_LMBDA, SharedDecoder, SharedShape
from tilestream.codecs.fields.sharednet import Encoder, SharedNetwork, noisy, rounded
from tilestream.errors import ConfigError
from tilestream.types import Array, Shape

FRAME_BYTES = 52
"""Of a picture, besides its latents."""
WARMUP = 0.05
"""Share of a training in which rates rise."""
LED_FROM = 0.1
"""Share from which on λ is led."""
PULL = 0.02
"""On the logarithm of λ, for a rate of twice the aim."""
ENCODED_SHARE = 0.5
"""Bits of the encoder's latents against those of fitted ones at one λ: a decoder is trained where it is used."""
LEVELS = 4
"""That a crop is compared on, with weights of 2^-l."""
COUNTED = 24
"""Crops that the models of the prior are counted on."""
SETTLING_ROUNDS, SETTLING_STEPS, SETTLING_RATE = 6, 20, 0.1
"""Of their fit: λ is led once a round."""
SETTLING_PULL = 1.5
"""Exponent of the bytes of fitted crops, against those wanted, in what λ is multiplied by."""
MOST_LED = 4.0
"""That it is multiplied by in a round, or divided."""
FLAT = 0.02
"""Deviation of a crop of 0 to 1 below which it is passed over half the time: glass teaches little."""


@dataclass(frozen=True, kw_only=True)
class SharedTraining:
    """How a decoder is trained."""

    shape: SharedShape = field(default_factory=SharedShape)
    """Sizes of the decoder."""
    bytes_a_picture: int = 1000
    """What a picture is to have on average, all counted."""
    picture_px: int = 256
    """Edge of a picture."""
    crop_px: int = 128
    """Edge of what is trained on, a multiple of the decoder's stride."""
    batch: int = 8
    """Crops of a step."""
    steps: int = 4000
    """Steps of Adam."""
    lr: float = 2e-3
    """Its largest rate; a cosine after a short rise."""
    lmbda: float = 0.01
    """λ at the start, see `SharedDecoder.lmbda`."""
    seed: int = 0
    """What all chance follows from."""

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if part.name not in ("shape", "seed") and not 0 < value < math.inf:
                raise ConfigError.of(
                    f"`{part.name}` of a training", got=value, expected="above 0", do="Choose another."
                )
        if self.crop_px % self.shape.stride_px:
            raise ConfigError.of(
                "`crop_px` of a training",
                got=self.crop_px,
                expected=f"a multiple of {self.shape.stride_px}, the stride of the decoder",
                do="Choose another.",
            )
        if self.bytes_a_picture <= FRAME_BYTES:
            raise ConfigError.of(
                "`bytes_a_picture` of a training",
                got=self.bytes_a_picture,
                expected=f"more than {FRAME_BYTES}, which a picture has besides its latents",
                do="Allow more.",
            )

    @property
    def wanted_bpp(self) -> float:
        """Return the bits a pixel that latents may have."""
        return 8 * (self.bytes_a_picture - FRAME_BYTES) / self.picture_px**2


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """What is told of a training now and then: means since it was told last."""

    step: int
    """Steps done."""
    psnr: float
    """dB of crops, latents with noise."""
    bpp: float
    """Estimated bits a pixel of latents."""
    lmbda: float
    """λ now."""


def train_shared(
    pictures: Sequence[Array],
    settings: SharedTraining | None = None,
    *,
    hear: Callable[[TrainingStep], None] = lambda _: None,
    every: int = 100,
) -> SharedDecoder:
    """Return a decoder trained on pictures of a cohort.

    Parameters
    ----------
    pictures : sequence of ndarray
        `(c, y, x)` of one type and as many channels as the decoder, each at least a crop large; the larger, the more
        often. Types other than 8 bits are taken over the range of each.
    settings : SharedTraining, optional
        How.
    hear : callable
        Told of it; may raise to stop.
    every : int
        Steps between.

    Returns
    -------
    SharedDecoder
        With 8-bit weights. The same settings and pictures give the same on one machine.

    Raises
    ------
    ConfigError
        When pictures do not fit the settings, or the training diverges.
    """
    settings = settings or SharedTraining()
    chance = np.random.default_rng(settings.seed)
    crops = _Crops(pictures, settings, chance)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network, encoder = SharedNetwork(settings.shape), Encoder(settings.shape)
    state = _Training(settings, network, encoder)
    for step in range(settings.steps):
        state.step(step, torch.from_numpy(crops.draw(settings.batch)))
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            hear(state.told(step + 1))
    pixels = torch.from_numpy(crops.draw(COUNTED))
    with torch.no_grad():
        codes = encoder(pixels).round().clamp(-LARGEST, LARGEST)
    decoder = network.decoder(lmbda=state.mean_lmbda, pictures=_whole(codes))
    return _priced(decoder, codes, pixels, state)


def _priced(decoder: SharedDecoder, codes: torch.Tensor, pixels: torch.Tensor, state: _Training) -> SharedDecoder:
    """Return the decoder with the λ at which fitted crops have the bytes wanted, and models that expect their codes."""
    latents = codes.clone().requires_grad_()
    wanted = state.settings.wanted_bpp / 8 * len(pixels) * state.settings.crop_px**2
    for _ in range(SETTLING_ROUNDS):
        network, optimiser = SharedNetwork.of(decoder), torch.optim.Adam([latents], SETTLING_RATE)
        for _ in range(SETTLING_STEPS):
            loss, _, _ = state.loss_of(network, rounded(latents), pixels, decoder.lmbda)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        found = _whole(latents.detach().round().clamp(-LARGEST, LARGEST))
        prior = decoder.prior.with_models(found)
        factor = (sum(len(prior.encode(one)) for one in found) / wanted) ** SETTLING_PULL
        lmbda = decoder.lmbda * min(max(factor, 1 / MOST_LED), MOST_LED)
        decoder = replace(decoder, prior=prior, lmbda=min(max(lmbda, LEAST_LMBDA), MOST_LMBDA))
    return decoder


def _whole(codes: torch.Tensor) -> list[npt.NDArray[np.int64]]:
    return list(codes.numpy().astype(np.int64))


class _Crops:
    """Squares of pictures in 0 to 1, turned and mirrored by chance."""

    def __init__(self, pictures: Sequence[Array], settings: SharedTraining, chance: np.random.Generator) -> None:
        px = settings.crop_px
        self._pictures = [picture for picture in pictures if min(picture.shape[1:]) >= px]
        if not self._pictures or len({(len(one), one.dtype.name) for one in self._pictures}) != 1:
            raise ConfigError.of(
                "pictures to train on",
                got=f"{len(self._pictures)} of at least {px} px among {len(pictures)}, or several types",
                expected="at least one, all of one type and as many channels",
                do="Give larger pictures, or a smaller `crop_px`.",
            )
        if len(self._pictures[0]) != settings.shape.channels:
            raise ConfigError.of(
                "pictures to train on",
                got=f"{len(self._pictures[0])} channels",
                expected=f"{settings.shape.channels}, as the decoder has",
                do="Choose channels, or another `shape`.",
            )
        self._px, self._chance = px, chance
        self._ranges = [Picture.of(picture) for picture in self._pictures]
        areas = np.array([np.prod(picture.shape[1:]) for picture in self._pictures], np.float64)
        self._shares = np.sqrt(areas) / np.sqrt(areas).sum()

    def draw(self, count: int) -> npt.NDArray[np.float32]:
        """Return `(count, c, px, px)`."""
        return np.stack([self._one() for _ in range(count)])

    def _one(self) -> npt.NDArray[np.float32]:
        px, chance = self._px, self._chance
        while True:
            number = int(chance.choice(len(self._pictures), p=self._shares))
            picture = self._pictures[number]
            y, x = (int(chance.integers(size - px + 1)) for size in picture.shape[1:])
            crop = self._ranges[number].to_unit(picture[:, y : y + px, x : x + px])
            turns, is_mirrored, is_kept = int(chance.integers(4)), chance.random() < 0.5, chance.random() < 0.5
            if is_kept or crop.std() > FLAT:
                break
        crop = np.rot90(crop, turns, axes=(1, 2))
        return np.ascontiguousarray(crop[:, :, ::-1] if is_mirrored else crop)


class _Training:
    """Networks, the optimiser, and λ."""

    def __init__(self, settings: SharedTraining, network: SharedNetwork, encoder: Encoder) -> None:
        self.settings, self.network, self.encoder = settings, network, encoder
        self._parameters = [*network.parameters(), *encoder.parameters()]
        self._optimiser = torch.optim.Adam(self._parameters, settings.lr)
        self._chance = torch.Generator().manual_seed(settings.seed)
        px = settings.crop_px
        self._picture = Picture(
            shape=Shape(y=px, x=px),
            channels=settings.shape.channels,
            dtype="uint8",
            low=(0.0,) * settings.shape.channels,
            high=(255.0,) * settings.shape.channels,
        )
        self._log_lmbda = math.log(settings.lmbda)
        self._kept: list[float] = []
        self._sums, self._count = np.zeros(2), 0

    @property
    def mean_lmbda(self) -> float:
        """Return λ over the last quarter of the steps."""
        last = self._kept[-max(1, len(self._kept) // 4) :]
        return math.exp(sum(last) / len(last))

    def step(self, step: int, pixels: torch.Tensor) -> None:
        """Make one step on a batch."""
        share = step / self.settings.steps
        rise = min(1.0, (step + 1) / max(1.0, WARMUP * self.settings.steps))
        fall = 0.01 + 0.495 * (1 + math.cos(math.pi * share))
        self._optimiser.param_groups[0]["lr"] = self.settings.lr * rise * fall
        latents = noisy(self.encoder(pixels), self._chance)
        loss, error, bpp = self.loss_of(self.network, latents, pixels, math.exp(self._log_lmbda))
        if not math.isfinite(float(loss.detach())):
            raise ConfigError.of("a training", got="a loss that is not finite", expected="a number", do="Lower `lr`.")
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        rate = float(bpp.detach())
        self._sums += [float(error.detach()), rate]
        self._count += 1
        if share >= LED_FROM:
            surplus = math.log(max(rate, 1e-9) / (ENCODED_SHARE * self.settings.wanted_bpp))
            self._log_lmbda += PULL * max(-1.0, min(1.0, surplus))
        self._kept.append(self._log_lmbda)

    def loss_of(
        self, network: SharedNetwork, latents: torch.Tensor, pixels: torch.Tensor, lmbda: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the loss of latents of crops, the error of level 0 in it, and their bits a pixel."""
        features, wanted, errors = network.features(latents), pixels, []
        for level in range(LEVELS):
            found = network.pixels(features, self._picture, level).permute(0, 3, 1, 2)
            errors.append(2.0**-level * ((found - wanted) ** 2).mean())
            wanted = torch.nn.functional.avg_pool2d(wanted, 2)
        bpp = network.prior.bits(latents) / (len(pixels) * self.settings.crop_px**2)
        error = torch.stack(errors).sum() / sum(2.0**-level for level in range(LEVELS))
        return error + lmbda * bpp, errors[0], bpp

    def told(self, step: int) -> TrainingStep:
        """Return means since the last time."""
        error, bpp = (self._sums / self._count).tolist()
        self._sums, self._count = np.zeros(2), 0
        psnr = -10 * math.log10(max(error, 1e-12))
        return TrainingStep(step=step, psnr=psnr, bpp=bpp, lmbda=math.exp(self._log_lmbda))
