"""A made-up gaze: fixations, saccades and pursuits as eyes do them, with the noise of a tracker."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

HZ = 60
PX_PER_DEGREE = 40.0
NOISE_PX = 1.5
BORDER_PX = 40.0

Path = npt.NDArray[np.float64]


def gaze_trace(edge_px: int, *, seconds: float, seed: int = 0) -> Iterator[tuple[float, tuple[float, float]]]:
    """Yield `(t_s, (y, x))` of a gaze over a square image."""
    noise = np.random.default_rng(seed)
    at, path = np.full(2, edge_px / 2), [np.full((1, 2), edge_px / 2)]
    while sum(map(len, path)) < seconds * HZ:
        path.append(np.repeat(at[None], int(noise.uniform(0.2, 0.5) * HZ), axis=0))
        path.append(saccade(at, _within(noise, at, edge_px)))
        if noise.random() < 0.6:
            path.append(pursuit(noise, path[-1][-1], edge_px))
        at = path[-1][-1]
    found = np.concatenate(path)[: int(seconds * HZ)]
    found = np.clip(found + noise.normal(0, NOISE_PX, found.shape), 0, edge_px)
    for step, (y, x) in enumerate(found.tolist()):
        yield step / HZ, (y, x)


def saccade(start: Path, stop: Path) -> Path:
    """Return the samples of a jump: 2.2 ms a degree and 21 ms (Bahill et al. 1975), of minimum jerk."""
    duration_s = (2.2 * np.hypot(*(stop - start)) / PX_PER_DEGREE + 21) / 1000
    part = np.minimum(np.arange(1, np.ceil(duration_s * HZ) + 1) / HZ / duration_s, 1)[:, None]
    return start + (10 * part**3 - 15 * part**4 + 6 * part**5) * (stop - start)


def pursuit(noise: np.random.Generator, start: Path, edge_px: int) -> Path:
    """Return the samples of following something at 5 to 25 degrees a second, which turns round at the borders."""
    angle, speed_px = noise.uniform(0, 2 * np.pi), noise.uniform(5, 25) * PX_PER_DEGREE / HZ
    steps = np.arange(1, int(noise.uniform(0.3, 1) * HZ) + 1)[:, None]
    straight = start - BORDER_PX + steps * speed_px * np.array([np.sin(angle), np.cos(angle)])
    inside = edge_px - 2 * BORDER_PX
    return BORDER_PX + inside - np.abs(inside - straight % (2 * inside))


def _within(noise: np.random.Generator, at: Path, edge_px: int) -> Path:
    """Return a place 2 to 12 degrees away, inside."""
    while True:
        angle, far_px = noise.uniform(0, 2 * np.pi), noise.uniform(2, 12) * PX_PER_DEGREE
        found = at + far_px * np.array([np.sin(angle), np.cos(angle)])
        if (found >= BORDER_PX).all() and (found <= edge_px - BORDER_PX).all():
            return found
