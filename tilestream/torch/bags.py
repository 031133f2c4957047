"""Bags of vectors on their way to a training: read one ahead, kept in memory as far as they fit."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from tilestream.errors import StageError
from tilestream.types import Array

TOGETHER_BYTES = 1 << 24
"""Largest batch of several bags, filled up."""


class Bags(Protocol):
    """The vectors of many slides, a slide at a time."""

    @property
    def dim(self) -> int:
        """Return the length of a vector."""

    @property
    def count(self) -> int:
        """Return the number of slides."""

    def name(self, number: int) -> str:
        """Return what a user calls the slide."""

    def size(self, number: int) -> int:
        """Return the number of vectors of a slide, all of them finite."""

    def read(self, number: int, chosen: npt.NDArray[np.int64] | None = None) -> Array:
        """Return vectors of a slide, `(n, d)` float32: all, or those at ascending places among them."""

    def moments(self, number: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return mean and standard deviation of the vectors of a slide, `(d,)` each."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Which vectors of a bag an epoch shows: some by chance, the same whenever it is asked."""

    most: int
    """Vectors of a bag."""
    seed: tuple[int, ...]
    """What the choice follows from, beside the slide."""

    def of(self, number: int, size: int) -> npt.NDArray[np.int64] | None:
        """Return ascending places in a bag, None where it is not larger."""
        if size <= self.most:
            return None
        rng = np.random.default_rng([*self.seed, number])
        return np.sort(rng.choice(size, self.most, replace=False)).astype(np.int64)


class BagBatch(NamedTuple):
    """Some bags, filled up with zeros to the size of the largest."""

    x: torch.Tensor
    """`[b, n, d]` float32."""
    mask: torch.Tensor | None
    """`[b, n]` bool, True where there is a vector; None where all are of one size."""


def batches_of(numbers: Sequence[int], bags: Bags, *, most: int, sample: Sample | None = None) -> list[list[int]]:
    """Return slides in their order, as many together as are worth it: small bags leave most of a processor idle.

    Parameters
    ----------
    numbers : sequence of int
        Slides.
    bags : Bags
        Knows how large they are.
    most : int
        Slides in a batch.
    sample : Sample, optional
        How many vectors of each are shown.

    Returns
    -------
    list of list of int
        A bag that is larger than `TOGETHER_BYTES` is alone.
    """
    found: list[list[int]] = []
    largest = 0
    for number in numbers:
        size = bags.size(number) if sample is None else min(sample.most, bags.size(number))
        grown = max(largest, size)
        if found and len(found[-1]) < most and (len(found[-1]) + 1) * grown * bags.dim * 4 <= TOGETHER_BYTES:
            found[-1].append(number)
            largest = grown
        else:
            found.append([number])
            largest = size
    return found


class BagFeed:
    """Reads bags in an order, the next one while the caller works on the one before.

    Parameters
    ----------
    bags : Bags
        The slides.
    device : str
        Where bags are wanted.
    keep_bytes : int
        Memory for bags that are kept from epoch to epoch; those that do not fit are read again each time.
    """

    def __init__(self, bags: Bags, *, device: str, keep_bytes: int) -> None:
        self._bags = bags
        self._device = torch.device(device)
        self._left_bytes = keep_bytes
        self._kept: dict[int, Array] = {}

    def show(self, batches: Sequence[Sequence[int]], sample: Sample | None = None) -> Generator[BagBatch, None, None]:
        """Yield bags that are computed together, the next ones being read meanwhile.

        Parameters
        ----------
        batches : sequence of sequence of int
            Slides of each batch; one may come several times.
        sample : Sample, optional
            Which vectors of each; all by default.

        Yields
        ------
        BagBatch
            On the device.

        Raises
        ------
        StageError
            When a vector is not finite.
        """
        # a pool of its own, so that a reader ends with whoever stops looking
        with ThreadPoolExecutor(1, thread_name_prefix="bags") as pool:
            coming = [pool.submit(self._batch, numbers, sample) for numbers in batches[:1]]
            for place in range(len(batches)):
                x, mask = coming.pop().result()
                if place + 1 < len(batches):
                    coming.append(pool.submit(self._batch, batches[place + 1], sample))
                yield BagBatch(x.to(self._device), None if mask is None else mask.to(self._device))

    def _batch(self, numbers: Sequence[int], sample: Sample | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        bags = [self._read(number, sample) for number in numbers]
        if len(bags) == 1:
            return bags[0][None], None
        sizes = torch.tensor([len(bag) for bag in bags])
        mask = torch.arange(int(sizes.max())) < sizes[:, None]
        return torch.nn.utils.rnn.pad_sequence(bags, batch_first=True), mask

    def _read(self, number: int, sample: Sample | None) -> torch.Tensor:
        chosen = None if sample is None else sample.of(number, self._bags.size(number))
        bag = self._kept.get(number)
        if bag is None:
            nbytes = 4 * self._bags.dim * self._bags.size(number)
            is_kept = nbytes <= self._left_bytes
            bag = self._bags.read(number, None if is_kept else chosen)
            require_finite(bag, self._bags.name(number))
            if not is_kept:
                return torch.from_numpy(bag)
            self._kept[number] = bag
            self._left_bytes -= nbytes
        return torch.from_numpy(bag if chosen is None else bag[chosen])


def require_finite(vectors: Array, name: str) -> None:
    """Raise for values that would turn all parameters into NaN; tiles without a result have been left out before.

    Parameters
    ----------
    vectors : ndarray of float32
        `(n, d)`.
    name : str
        What a user calls the slide.

    Raises
    ------
    StageError
        When one is not finite.
    """
    if np.isfinite(vectors.sum(dtype=np.float64)):  # a few times as fast as a look at each
        return
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    raise StageError.of(
        f"features of `{name}`",
        got=f"NaN or infinity in {len(bad)} of {len(vectors)} vectors, the first at place {bad[0]}",
        expected="finite values wherever a tile counts as ok",
        do="Make them again: remove that store and run `tilestream embed` with the same options.",
    )
