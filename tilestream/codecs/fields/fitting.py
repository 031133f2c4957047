"""The loop that fits every field: Adam over batches of pixels until a number of steps, a PSNR or a time is reached.

Adam is that of Instant-NGP's images: β 0.9 and 0.99, ε 1e-15. Where the end is known by steps or seconds, rates stay
for the first half and fall along a cosine to a hundredth after it; where it is not, they are Instant-NGP's own, ×0.33
every 10,000 steps after 20,000. With `steps` alone a fit gives the same parameters in every run on one machine.

Source: Müller et al., doi:10.1145/3528223.3530127; `configs/image/base.json` of NVlabs/instant-ngp.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tilestream.codecs.fields.field import BATCH_PX, FitReport, Stop
from tilestream.codecs.fields.sampler import PixelSampler, Samples
from tilestream.errors import ConfigError

BETAS = (0.9, 0.99)
EPSILON = 1e-15
LAST_SHARE = 0.01
"""Of a rate, at the end of a fit whose end is known."""
STEADY_SHARE = 0.5
"""Of a fit, before rates fall."""
CHECKS = 20
"""Of a fit: how often its state is compared with the best so far."""
WORSE = 1.02
"""Times the least loss: a fit that ends above it goes back to there; below it the difference may be that of batches."""
CHECK_STEPS = 100
"""Between two checks where the number of steps is not known."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Parameters that learn at one rate."""

    tensors: tuple[torch.Tensor, ...]
    """Leaves that require gradients; changed in place."""
    rate: float
    """Of Adam, at the start."""


def rate_share(step: int, elapsed_s: float, stop: Stop) -> float:
    """Return the share of its first rate that a parameter learns at.

    Parameters
    ----------
    step : int
        Steps done.
    elapsed_s : float
        Since the start.
    stop : Stop
        When the fit ends.

    Returns
    -------
    float
        1 to `LAST_SHARE`, or by Instant-NGP's rule where neither steps nor seconds are known.
    """
    if stop.steps is not None:
        done = step / stop.steps
    elif stop.seconds is not None:
        done = elapsed_s / stop.seconds
    else:
        return float(0.33 ** max(0, (step - 10_000) // 10_000))
    if done <= STEADY_SHARE:
        return 1.0
    fall = min(1.0, (done - STEADY_SHARE) / (1 - STEADY_SHARE))
    return LAST_SHARE + (1 - LAST_SHARE) * 0.5 * (1 + math.cos(math.pi * fall))


class _Best:
    """The parameters at the check before which the loss was least."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.tensors = tensors
        self.loss, self.last = math.inf, math.inf
        self.kept: list[torch.Tensor] = []
        self._sum, self._steps = torch.zeros(()), 0

    def add(self, loss: torch.Tensor) -> None:
        self._sum = self._sum.to(loss.device) + loss
        self._steps += 1

    def check(self) -> None:
        """Keep the parameters if the mean loss since the last check is the least so far; raise where it is no number.

        Raises
        ------
        ConfigError
            When the loss is not finite: nothing comes back from that.
        """
        loss = float(self._sum) / max(1, self._steps)
        self._sum, self._steps = torch.zeros(()), 0
        if not math.isfinite(loss):
            raise ConfigError.of(
                "a fit",
                got=f"a loss of {loss}",
                expected="a finite one",
                do="Choose lower rates, and look for outliers in the pixels.",
            )
        self.last = loss
        if loss < self.loss:
            self.loss = loss
            self.kept = [tensor.detach().clone() for tensor in self.tensors]

    def forget(self) -> None:
        """Begin anew: losses of before do not compare with those to come."""
        self.loss = math.inf

    def restore(self) -> None:
        """Go back to them where the last loss is clearly above theirs."""
        if self.last <= self.loss * WORSE:
            return
        with torch.no_grad():
            for tensor, kept in zip(self.tensors, self.kept, strict=True):
                tensor.copy_(kept)


def fit_loop(  # noqa: PLR0913 - what is fitted, to what, until when, and how it is judged
    learned: Sequence[Learned],
    sampler: PixelSampler,
    loss_of: Callable[[Samples, float], torch.Tensor],
    *,
    stop: Stop,
    measure: Callable[[int], float],
    batch_px: int = BATCH_PX,
    settled_share: float = 0.0,
) -> FitReport:
    """Fit parameters to the pixels of a sampler and return what was done.

    Parameters
    ----------
    learned : sequence of Learned
        What is fitted, in place; where the loss has grown at the end, left at the check before which it was least.
    sampler : PixelSampler
        Where pixels come from.
    loss_of : callable
        `(samples, share) -> scalar tensor`, differentiable: of a batch, at 0 to 1 of a fit whose length in steps or
        seconds is known (else 0).
    stop : Stop
        When it ends; at least one step is made.
    measure : callable
        `level -> dB` of the parameters as they stand.
    batch_px : int
        Pixels of a step.
    settled_share : float
        Of a fit, from where on losses compare with each other: a loss that rounds parameters is another from then on.

    Returns
    -------
    FitReport
        Steps, seconds, and dB of every level of the sampler.

    Raises
    ------
    ConfigError
        When the loss is not finite.
    """
    start, step, share = time.perf_counter(), 0, 0.0
    optimiser = torch.optim.Adam(
        [{"params": list(group.tensors), "lr": group.rate} for group in learned], betas=BETAS, eps=EPSILON, fused=True
    )
    best = _Best([tensor for group in learned for tensor in group.tensors])
    interval = CHECK_STEPS if stop.steps is None else max(1, math.ceil(stop.steps / CHECKS))
    is_over = False
    while not is_over:
        for group, given in zip(optimiser.param_groups, learned, strict=True):
            group["lr"] = given.rate * rate_share(step, time.perf_counter() - start, stop)
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(sampler.draw(batch_px), share)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        step += 1
        best.add(loss.detach())
        is_over, share = _progress(step, time.perf_counter() - start, stop)
        if is_over or step % interval == 0:
            if share < settled_share:
                best.forget()
            best.check()
            if stop.target_psnr is not None and not is_over:
                is_over = measure(0) >= stop.target_psnr
    best.restore()
    levels = range(len(sampler.levels.pixels))
    seconds = time.perf_counter() - start
    return FitReport(steps=step, seconds=seconds, psnr=tuple(measure(level) for level in levels))


def _progress(step: int, elapsed_s: float, stop: Stop) -> tuple[bool, float]:
    """Return whether a fit is over, and how much of it is done."""
    shares = [
        done / most for done, most in ((step, stop.steps), (elapsed_s, stop.seconds)) if most is not None
    ]  # fmt: skip
    return max(shares, default=0.0) >= 1, shares[0] if shares else 0.0
