"""Shared networks of the pyramid codec for the panel: no picture is coded by networks that saw anything of its slide.

The tissue lies on two sides; what is of one side is coded by networks that were trained on the other, at its own
resolution and at half of it. Networks are kept in a folder, since to train them takes minutes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.bench.rd_pictures import CROPS, FEW, MANY, OS1, OS2, OVERVIEW, SMALL, SVS, TILES, data_folder
from tilestream.codecs.pyramid.shared import SharedPyramid
from tilestream.kernels.mip import mip
from tilestream.pyramid import open_pyramid
from tilestream.types import Array

SIDES = (
    (SVS, OVERVIEW),
    (OS1, OS2, MANY, FEW, f"{TILES}/medium-nuclei-score-level1.png", f"{TILES}/low-nuclei-score-level0.png"),
)
"""Files of the two sides."""
GROUPS = ("tissue", "tissue/2", SMALL)
"""Of the pictures that are coded."""
LMBDAS = (5.6e-3, 1.9e-3, 6.4e-4, 2.3e-4)
"""What a bit a pixel costs, most first: one set of networks for each."""
FIRST = 1
"""Which is trained from the beginning; the others go on from the one beside it."""
FIRST_STEPS, FURTHER_STEPS = 2500, 800
FURTHER_LR = 1.5e-3


@dataclass(frozen=True, kw_only=True)
class Side:
    """Some of the pictures, and what their networks learn from."""

    number: int
    """In `SIDES`."""

    @property
    def pictures(self) -> tuple[str, ...]:
        """Return the names of the pictures that are of this side."""
        return tuple(one.name for one in CROPS if one.path in SIDES[self.number] and one.group in GROUPS)

    @property
    def learned(self) -> tuple[str, ...]:
        """Return the files that their networks learn from."""
        return SIDES[1 - self.number]


def networks_of(side: Side, folder: Path, *, code: str) -> dict[float, SharedPyramid]:
    """Return the networks of a side by λ, from the folder, or trained and kept there.

    Parameters
    ----------
    side : Side
        Which pictures they are for.
    folder : Path
        Made where it is not there.
    code : str
        What else they depend on: the version of the code that trains.

    Returns
    -------
    dict
        In the order of `LMBDAS`.
    """
    found: dict[int, SharedPyramid] = {}
    images: list[Array] = []
    order = sorted(range(len(LMBDAS)), key=lambda number: (abs(number - FIRST), number))
    for number in order:
        beside = None if number == FIRST else number + (1 if number < FIRST else -1)
        key = repr((code, side.learned, LMBDAS, FIRST, FIRST_STEPS, FURTHER_STEPS, FURTHER_LR, number))
        path = folder / f"{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}.shared"
        if not path.exists():
            images = images or images_of(side.learned)
            trained = _trained(images, LMBDAS[number], None if beside is None else found[beside])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(trained.to_bytes())
        found[number] = SharedPyramid.from_bytes(path.read_bytes())
    return {lmbda: found[number] for number, lmbda in enumerate(LMBDAS)}


def images_of(paths: Sequence[str]) -> list[Array]:
    """Return images `(3, y, x)`, each at its own resolution and at half of it."""
    data = data_folder()
    if data is None:
        raise FileNotFoundError("real images: set TILESTREAM_DATA")
    found = []
    for path in paths:
        pyramid = open_pyramid(str(data / path))
        pixels = np.ascontiguousarray(pyramid.read(pyramid.levels[0].box)[:3])
        found += [pixels, *mip(pixels, levels=1, threads=1)]
    return found


def _trained(images: Sequence[Array], lmbda: float, start: SharedPyramid | None) -> SharedPyramid:
    from tilestream.codecs.pyramid.sharedmodel import PyramidShape
    from tilestream.codecs.pyramid.sharedtraining import PyramidStep, PyramidTraining, train_shared

    def hear(step: PyramidStep) -> None:
        print(f"shared networks, λ {lmbda:g}: {step}", flush=True)

    steps, lr = (FIRST_STEPS, 3e-3) if start is None else (FURTHER_STEPS, FURTHER_LR)
    settings = PyramidTraining(shape=PyramidShape(levels=1), lmbda=lmbda, steps=steps, lr=lr)
    return train_shared(images, settings, start=start, hear=hear, every=250)
