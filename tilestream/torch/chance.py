"""Chance that follows from numbers alone, and that of whoever calls a training, which is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def mixed_seed(seed: tuple[int, ...]) -> int:
    """Return one seed for torch, of 63 bits, of several numbers."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def own_chance() -> Iterator[None]:
    """Leave torch's global generators as they were: they belong to whoever calls this."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        yield
