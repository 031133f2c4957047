"""Crops of pictures to train shared networks on: anywhere, turned and mirrored by chance, some of them halved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tilestream.codecs.fields.picture import Picture
from tilestream.errors import ConfigError
from tilestream.types import Array

HALVED = 0.2
"""Share of crops that are means of two by two pixels: tiles of coarser levels, and pixels no lossy codec has shaped."""
FLAT = 0.02
"""Deviation of a crop of 0 to 1 below which it is passed over most times: glass teaches little."""
FLAT_KEPT = 0.2


class Crops:
    """Squares of pictures in 0 to 1.

    Parameters
    ----------
    pictures : sequence of ndarray
        `(c, y, x)`, all of one type and as many channels.
    px : int
        Edge of a crop.
    seed : int
        What chance follows from.
    """

    def __init__(self, pictures: Sequence[Array], *, px: int, seed: int) -> None:
        self._pictures = [picture for picture in pictures if min(picture.shape[1:]) >= px]
        if not self._pictures or len({(len(one), one.dtype.name) for one in self._pictures}) != 1:
            raise ConfigError.of(
                "pictures to train on",
                got=f"{len(self._pictures)} of at least {px} px among {len(pictures)}, or several types",
                expected="at least one, all of one type and as many channels",
                do="Give larger pictures, or a smaller `crop_px`.",
            )
        self.channels = len(self._pictures[0])
        self._px, self._chance = px, np.random.default_rng(seed)
        self._ranges = [Picture.of(picture) for picture in self._pictures]
        shares = np.sqrt([float(np.prod(picture.shape[1:])) for picture in self._pictures])
        self._shares = shares / shares.sum()

    def draw(self, count: int) -> npt.NDArray[np.float32]:
        """Return `(count, c, px, px)`."""
        return np.stack([self._one() for _ in range(count)])

    def _one(self) -> npt.NDArray[np.float32]:
        chance = self._chance
        while True:
            number = int(chance.choice(len(self._pictures), p=self._shares))
            crop = self._cut(number)
            if crop.std(axis=(1, 2)).max() > FLAT or chance.random() < FLAT_KEPT:
                break
        crop = np.rot90(crop, int(chance.integers(4)), axes=(1, 2))
        return np.ascontiguousarray(crop[:, :, ::-1] if chance.random() < 0.5 else crop)

    def _cut(self, number: int) -> npt.NDArray[np.float32]:
        picture, px = self._pictures[number], self._px
        is_halved = bool(self._chance.random() < HALVED) and min(picture.shape[1:]) >= 2 * px
        edge = px * (1 + is_halved)
        y, x = (int(self._chance.integers(size - edge + 1)) for size in picture.shape[1:])
        crop = self._ranges[number].to_unit(picture[:, y : y + edge, x : x + edge])
        if is_halved:
            crop = crop.reshape(-1, px, 2, px, 2).mean(axis=(2, 4), dtype=np.float32)
        return crop
