"""Fitting the latents of one picture under a decoder that stays as it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from tilestream.codecs.fields.field import Stop
from tilestream.codecs.fields.fitting import rate_share
from tilestream.codecs.fields.latentcoder import LARGEST
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.fields.shareddecoder import SharedDecoder
from tilestream.codecs.fields.sharednet import SharedNetwork, noisy, rounded
from tilestream.errors import ConfigError

RATE = 0.2
"""Of Adam, in units of a code."""
SOFT_SHARE = 0.6
"""Of a fit with noise in the place of rounding."""
CHECK_STEPS = 20
"""Between two looks at a target."""

Codes = npt.NDArray[np.int64]


class LatentFit:
    """Latents of a picture and what they are moved by.

    Parameters
    ----------
    decoder : SharedDecoder
        Of the cohort.
    levels : Levels
        The picture.
    codes : ndarray of int64
        `(latents, y, x)` to start from.
    level_weights : mapping of int to float, optional
        How much the error of each level counts; by default 2^-l.
    seed : int
        Of the noise.
    """

    def __init__(
        self,
        decoder: SharedDecoder,
        levels: Levels,
        codes: Codes,
        *,
        level_weights: Mapping[int, float] | None = None,
        seed: int = 0,
    ) -> None:
        self.steps = 0
        self._lmbda = decoder.lmbda
        self._network = SharedNetwork.of(decoder)
        self._picture = levels.picture
        self._targets = [_target(levels, level) for level in range(levels.picture.levels)]
        self._shares = _shares(level_weights, levels.picture.levels)
        self._latents = torch.from_numpy(codes[None].astype(np.float32)).requires_grad_()
        self._chance = torch.Generator().manual_seed(seed)

    def run(self, stop: Stop, *, price: float, measure: Callable[[Codes], float]) -> Codes:
        """Move the latents until a fit ends and return them rounded.

        Parameters
        ----------
        stop : Stop
            When; at least one step is made.
        price : float
            Times the decoder's λ.
        measure : callable
            `codes -> dB` of level 0.

        Returns
        -------
        ndarray of int64
            `(latents, y, x)`.

        Raises
        ------
        ConfigError
            When the error is not finite.
        """
        optimiser, started, step, share = torch.optim.Adam([self._latents], RATE), time.perf_counter(), 0, 0.0
        while True:
            elapsed_s = time.perf_counter() - started
            optimiser.param_groups[0]["lr"] = RATE * rate_share(step, elapsed_s, stop)
            optimiser.zero_grad(set_to_none=True)
            loss = self._loss(price * self._lmbda, is_soft=share < SOFT_SHARE)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
            shares = [(step, stop.steps), (time.perf_counter() - started, stop.seconds)]
            share = max((done / most for done, most in shares if most is not None), default=SOFT_SHARE)
            is_over = share >= 1 and (stop.steps is not None or stop.seconds is not None)
            if not is_over and stop.target_psnr is not None and step % CHECK_STEPS == 0:
                is_over = measure(self._codes()) >= stop.target_psnr
            if is_over:
                break
        self.steps += step
        if not bool(torch.isfinite(self._latents).all()):
            raise ConfigError.of("a fit", got="latents that are not finite", expected="numbers", do="Lower `price`.")
        return self._codes()

    def _codes(self) -> Codes:
        found: Codes = self._latents.detach()[0].round().clamp(-LARGEST, LARGEST).numpy().astype(np.int64)
        return found

    def _loss(self, lmbda: float, *, is_soft: bool) -> torch.Tensor:
        seen = noisy(self._latents, self._chance) if is_soft else rounded(self._latents)
        features = self._network.features(seen)
        error = seen.new_zeros(())
        for level, (share, (pixels, weights)) in enumerate(zip(self._shares, self._targets, strict=True)):
            if share:
                gaps = (self._network.pixels(features, self._picture, level)[0] - pixels) ** 2
                error = error + share * (gaps.mean() if weights is None else (gaps * weights).sum())
        area = self._picture.shape.y * self._picture.shape.x
        return error + lmbda * self._network.prior.bits(seen) / area


def _target(levels: Levels, level: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return `(y, x, c)` of a level in 0 to 1, and what each pixel counts where not all do."""
    valid = levels.valid[level]
    unit = levels.picture.to_unit(levels.pixels[level]).transpose(1, 2, 0)
    if valid is None:
        return torch.from_numpy(np.ascontiguousarray(unit)), None
    if not valid.any():
        raise ConfigError.of(
            "a picture", got="no valid pixel", expected="at least one", do="Leave it out: there is nothing to fit."
        )
    weights = (valid / (valid.sum() * unit.shape[2])).astype(np.float32)[..., None]
    return torch.from_numpy(np.where(valid[..., None], unit, np.float32(0))), torch.from_numpy(weights)


def _shares(level_weights: Mapping[int, float] | None, levels: int) -> list[float]:
    given = {level: 2.0**-level for level in range(levels)} if level_weights is None else dict(level_weights)
    total = sum(given.values())
    if not total > 0 or not all(0 <= level < levels and weight >= 0 for level, weight in given.items()):
        raise ConfigError.of(
            "`level_weights` of a fit",
            got=level_weights,
            expected=f"numbers from 0 on, one of them above, of levels 0 to {levels - 1}",
            do="Correct them.",
        )
    return [given.get(level, 0.0) / total for level in range(levels)]
