"""Small pictures of every type of sample, smooth with an edge in them, for tests of fields."""

import numpy as np


def picture(height, width, *, channels=3, dtype="uint8", seed=0):
    """Return `(c, y, x)` over most of the range of a type."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    noise = np.random.default_rng(seed)
    planes = [
        np.sin(x / (5 + channel) + seed) * np.cos(y / (7 + channel)) + (x + 2 * y > width) * 0.5
        for channel in range(channels)
    ]
    unit = (np.stack(planes) + 1.5) / 3.5 + noise.normal(0, 0.01, (channels, height, width))
    if dtype == "float32":
        return (unit * 700 - 200).astype(np.float32)
    limits = np.iinfo(dtype)
    return np.rint(limits.min + np.clip(unit, 0, 1) * 0.9 * (limits.max - limits.min)).astype(dtype)
