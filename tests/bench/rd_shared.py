"""Shared networks of the pyramid codec for the panel, trained once a slide.

Networks of the cohort, of all images of tissue, are trained first; those of a slide, or of tiles that belong together,
go on from them. Of two large slides the square that holds all of their pictures is left out; small images are learned
from with all of their pixels, as those of a store would be. All are learned from at their own resolution and at half.
Networks are kept in a folder: to train them takes minutes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.bench.rd_pictures import CROPS, FEW, MANY, OS1, OS2, OVERVIEW, SMALL, SVS, TILES, data_folder
from tilestream.codecs import Contestant
from tilestream.codecs.pyramid.netfile import pack_nets
from tilestream.codecs.pyramid.shared import SharedPyramid
from tilestream.kernels.mip import mip
from tilestream.pyramid import open_pyramid
from tilestream.types import Array, Box

SLIDES = (
    (SVS,),
    (OS1,),
    (OS2,),
    (OVERVIEW,),
    (MANY, FEW, f"{TILES}/medium-nuclei-score-level1.png", f"{TILES}/low-nuclei-score-level0.png"),
)
"""Files with networks of their own; the last are tiles of slides that are not there."""
LARGE = (SVS, OS2)
"""Slides with tissue enough beside their pictures, which are left out of what is learned."""
GROUPS = ("tissue", "tissue/2", SMALL)
"""Of the pictures that are coded."""
LMBDAS = (5.6e-3, 1.9e-3, 6.4e-4, 2.2e-4, 7e-5)
"""What a bit a pixel costs, most first: one set of networks for each."""
FIRST_LMBDA = 6.4e-4
"""Of networks of the cohort, and of those of a slide that the others of it go on from."""
FIRST_STEPS, FURTHER_STEPS = 2400, 500
"""Of a training from the beginning, and of one that goes on."""
SIZES = {"hidden": 32, "context": 24, "levels": 1}
"""Of networks for several stains."""
KINDS = {"pyramid-slide": 0, "pyramid-slide-refined": 100}
"""By name of the contestant: the steps of each tile's grids."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Pictures, and what the networks that code them learn from."""

    pictures: tuple[str, ...]
    """Names."""
    paths: tuple[str, ...]
    """Files that are learned from; of `LARGE` without the square around `pictures`."""

    @classmethod
    def of(cls, paths: Sequence[str]) -> Lesson:
        """Return that of files, with all pictures of them."""
        names = (crop.name for crop in CROPS if crop.path in paths and crop.group in GROUPS and not crop.is_extra)
        return cls(pictures=tuple(names), paths=tuple(paths))

    @classmethod
    def of_cohort(cls) -> Lesson:
        """Return that of all files."""
        return cls.of([path for paths in SLIDES for path in paths])

    @property
    def images(self) -> list[Array]:
        """Return what is learned from, `(3, y, x)` each."""
        data, found = data_folder(), []
        if data is None:
            raise FileNotFoundError("real images: set TILESTREAM_DATA")
        for path in self.paths:
            pyramid = open_pyramid(str(data / path))
            pixels = pyramid.read(pyramid.levels[0].box)[:3]
            for part in _outside(pixels, _around(path, self.pictures) if path in LARGE else None):
                found += [part, *mip(part, levels=1, threads=1)]
        return found


def contestants(names: Sequence[str], folder: Path, *, code: str) -> list[tuple[Contestant, tuple[str, ...]]]:
    """Return contestants of `KINDS` with the pictures of each, one for each lesson under the same name.

    Parameters
    ----------
    names : sequence of str
        Of `KINDS`.
    folder : Path
        Where networks are kept; those that are missing are trained.
    code : str
        Digest of the code that trains and encodes.

    Returns
    -------
    list of tuple
        In the order of `names`.
    """
    from tilestream.codecs.pyramid.pyramidcodec import PyramidCodec

    found = []
    for name in names:
        for lesson in map(Lesson.of, SLIDES):
            networks = networks_of(lesson, folder, code=code)
            codecs = {lmbda: PyramidCodec(shared=shared, steps=KINDS[name]) for lmbda, shared in networks.items()}
            sizes = ", ".join(f"{len(pack_nets(shared.nets)):,}" for shared in networks.values())
            told = f"{code}, {KINDS[name]} steps; shared networks of {sizes} bytes not counted"
            found.append((Contestant.of_tiles(name, codecs, version=told), lesson.pictures))
    return found


def networks_of(lesson: Lesson, folder: Path, *, code: str) -> dict[float, SharedPyramid]:
    """Return the networks of a lesson by λ, from the folder, or trained and kept there.

    Parameters
    ----------
    lesson : Lesson
        What is learned from.
    folder : Path
        Made where it is not there.
    code : str
        What else they depend on: the version of the code that trains.

    Returns
    -------
    dict
        In the order of `LMBDAS`.
    """

    def trained(lesson: Lesson, lmbda: float, start: SharedPyramid | None) -> SharedPyramid:
        steps = FIRST_STEPS if start is None else FURTHER_STEPS
        told = (code, lesson, tuple(SIZES.items()), steps, lmbda, start and start.name)
        path = folder / f"{hashlib.blake2b(repr(told).encode(), digest_size=8).hexdigest()}.shared"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_trained(lesson.images, lmbda, steps, start).to_bytes())
        return SharedPyramid.from_bytes(path.read_bytes())

    first = trained(lesson, FIRST_LMBDA, trained(Lesson.of_cohort(), FIRST_LMBDA, None))
    return {lmbda: first if lmbda == FIRST_LMBDA else trained(lesson, lmbda, first) for lmbda in LMBDAS}


def _trained(images: Sequence[Array], lmbda: float, steps: int, start: SharedPyramid | None) -> SharedPyramid:
    from tilestream.codecs.pyramid.sharedtraining import SHAPE, PyramidStep, PyramidTraining, train_shared

    def hear(step: PyramidStep) -> None:
        print(f"shared networks, λ {lmbda:g}: {step}", flush=True)

    settings = PyramidTraining(shape=replace(SHAPE, **SIZES), lmbda=lmbda, steps=steps)
    return train_shared(images, settings, start=start, hear=hear, every=100)


def _around(path: str, pictures: Sequence[str]) -> Box | None:
    """Return the square of an image that holds all of the pictures which are of it, None where none is."""
    boxes = [
        Box(y=crop.y, x=crop.x, height=crop.edge_px * (1 + crop.is_half), width=crop.edge_px * (1 + crop.is_half))
        for crop in CROPS
        if crop.path == path and crop.name in pictures
    ]
    if not boxes:
        return None
    y, x = min(box.y for box in boxes), min(box.x for box in boxes)
    return Box(y=y, x=x, height=max(b.y_stop for b in boxes) - y, width=max(b.x_stop for b in boxes) - x)


def _outside(pixels: Array, box: Box | None) -> list[Array]:
    """Return the parts of an image above, below, left and right of a box, as far as there are any."""
    if box is None:
        return [np.ascontiguousarray(pixels)]
    rows = slice(box.y, box.y_stop)
    parts = (pixels[:, : box.y], pixels[:, box.y_stop :], pixels[:, rows, : box.x], pixels[:, rows, box.x_stop :])
    return [np.ascontiguousarray(part) for part in parts if part.size]
