"""A tile of the pyramid codec, ready to be asked at any level, with as many of its grids as have arrived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np

from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.pyramid.file import KIND, PyramidFile
from tilestream.codecs.pyramid.latents import Grid
from tilestream.codecs.pyramid.residual import decode_residual
from tilestream.codecs.pyramid.samples import sample_table
from tilestream.codecs.pyramid.synthesis import write_samples
from tilestream.errors import ConfigError
from tilestream.kernels.mip import mip
from tilestream.kernels.resample import resample
from tilestream.types import Array, Box

_UNUSED: Grid = np.zeros((1, 1), np.int16)
_LARGEST_TERM = 1 << 12
"""Of the fraction that stands for the size of a level between two whole ones."""
MOST_KEPT_BYTES = 1 << 26
"""Of a picture of bounded error that is kept for further boxes: to decode it takes 0.3 s for 512 × 512 pixels."""


class PyramidTile:
    """What a `PyramidFile` stands for.

    Parameters
    ----------
    file : PyramidFile
        Whose grids are decoded when a level first needs them, and kept.
    front : bytes
        What it was unpacked from, where that is not all of the file.
    """

    kind = KIND

    def __init__(self, file: PyramidFile, *, front: bytes = b"") -> None:
        self.file = file
        self.front = front
        self._known: tuple[Grid, ...] = ()  # the coarsest grids, finest first; replaced as a whole, by any thread
        self._bounded: Array | None = None

    @classmethod
    def from_bytes(cls, data: bytes, *, cut: bool = False) -> PyramidTile:
        """Return the tile that bytes hold; parameters and errors as of `PyramidFile.from_bytes`."""
        return cls(PyramidFile.from_bytes(data, cut=cut))

    @classmethod
    def from_front(cls, data: bytes) -> PyramidTile:
        """Return the tile that the beginning of a file holds; parameters and errors as of `PyramidFile.from_front`."""
        file = PyramidFile.from_front(data)
        is_whole = len(file.sections) == file.nets.scales
        return cls(file, front=b"" if is_whole else data)

    @property
    def picture(self) -> Picture:
        """Return size and samples of what it stands for."""
        return self.file.picture

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return how many numbers each part has."""
        return {"grids": sum(shape.y * shape.x for shape in self.file.shapes), "networks": self.file.nets.parameters}

    @property
    def nbytes(self) -> int:
        """Return the memory that it takes once all is decoded that is kept, its bytes included."""
        coded = sum(map(len, self.file.sections)) + len(self.file.residual or b"") + len(self.front)
        kept = 0 if self.file.residual is None or self._picture_bytes > MOST_KEPT_BYTES else self._picture_bytes
        return 2 * self.sizes["grids"] + 4 * self.sizes["networks"] * (not self.file.shared) + coded + kept

    @property
    def stages(self) -> int:
        """Return how many grids have arrived, the coarsest first."""
        return len(self.file.sections)

    def answers(self, level: int) -> bool:
        """Return whether all grids of a level have arrived."""
        return self.stages >= self.file.stages_of(level)

    def decode(
        self,
        box: Box | None = None,
        *,
        level: float = 0.0,
        out: Array | None = None,
        backend: str | None = None,
        stages: int | None = None,
    ) -> Array:
        """Return samples of a box; grids finer than the level are not decoded.

        Parameters
        ----------
        box : Box, optional
            In pixels of the level; by default all of it.
        level : float
            At least 0. Coarser levels than there are networks for are means of the last one; those between two whole
            ones are area-weighted means of the finer. Where the error of level 0 is bounded, all are means of that.
        out : ndarray, optional
            Memory of the result, of the type of the samples.
        backend : {"cpu", "cuda", "torch"}, optional
            Where pixels are made of grids; the samples are the same bits. By default the CPU, on this thread alone.
        stages : int, optional
            How many of the coarsest grids to use; by default all. Fewer give less detail at the same size, and no
            bound of the error.

        Returns
        -------
        ndarray
            `(c, y, x)`.

        Raises
        ------
        ConfigError
            When the box is not inside of the level, or `stages` is no whole number of at least 1.
        DamagedError
            When the sections hold no grids.
        """
        if stages is not None and stages < 1:
            raise ConfigError.of("`stages` of a tile", got=stages, expected="1 or more", do="Choose another.")
        whole = self.picture.box_at(level)
        box = whole if box is None else box
        if min(box.y, box.x) < 0 or box.y_stop > whole.y_stop or box.x_stop > whole.x_stop:
            raise ConfigError.of("`box` of a tile", got=box, expected=f"inside of {whole}", do="Cut it.")
        if out is None:
            out = np.empty((self.picture.channels, *box.shape.yx), self.picture.dtype)
        coarser = level - int(level)
        if stages is None and self.file.residual is not None:
            finest = self._of_bounded_error(self.file.residual, backend)
            finer = mip(finest, levels=int(level), threads=1)[-1] if level >= 1 else finest
            if coarser:
                _between(finer, Fraction(2**coarser), box, out)
            else:
                out[...] = finer[:, *box.slices_yx]
        elif coarser:
            _between(self._whole(int(level), backend, stages), Fraction(2**coarser), box, out)
        else:
            self._level(int(level), box, out, backend, stages)
        return out

    @property
    def _picture_bytes(self) -> int:
        area = self.picture.shape.y * self.picture.shape.x
        return area * self.picture.channels * np.dtype(self.picture.dtype).itemsize

    def _of_bounded_error(self, residual: bytes, backend: str | None) -> Array:
        """Return level 0, decoded once as far as it is small enough to be kept; not to be written to."""
        found = self._bounded
        if found is None:
            found = decode_residual(residual, self._whole(0, backend, None))
            if self._picture_bytes <= MOST_KEPT_BYTES:
                self._bounded = found
        return found

    def _level(self, level: int, box: Box, out: Array, backend: str | None, stages: int | None) -> None:
        """Write a box of a whole level."""
        last = len(self.file.nets.synth) - 1
        if level <= last:
            self._synthesis(level, box, out, backend, stages)
            return
        further, whole = level - last, self.picture.box_at(last)
        y, x, height, width = (edge << further for edge in (box.y, box.x, box.height, box.width))
        under = Box(level=last, y=y, x=x, height=height, width=width).intersect(whole)
        finer = np.empty((len(out), *under.shape.yx), out.dtype)
        self._synthesis(last, under, finer, backend, stages)
        out[...] = mip(finer, levels=further, threads=1)[-1]

    def _synthesis(self, level: int, box: Box, out: Array, backend: str | None, stages: int | None) -> None:
        """Write a box of a level that there is a network for."""
        nets, samples = self.file.nets, sample_table(self.picture)
        grids = self._grids(level, nets.scales if stages is None else stages)
        write_samples(grids, nets, box=replace(box, level=level), samples=samples, out=out, backend=backend)

    def _grids(self, level: int, stages: int) -> list[Grid]:
        """Return the grids that a level is made of, finest first, behind as many places as there are finer ones."""
        shapes, known = self.file.shapes, self._known
        count = min(stages, self.stages, len(shapes) - level)
        if len(known) < count:
            known = self.file.grids(count, known=known)[len(shapes) - count :]
            self._known = known
        missing = [np.zeros(shape.yx, np.int16) for shape in shapes[level : len(shapes) - count]]
        return [_UNUSED] * level + missing + list(known[len(known) - count :])

    def _whole(self, level: int, backend: str | None, stages: int | None) -> Array:
        box = self.picture.box_at(level)
        whole = np.empty((self.picture.channels, *box.shape.yx), self.picture.dtype)
        self._level(level, box, whole, backend, stages)
        return whole


def _between(finer: Array, ratio: Fraction, box: Box, out: Array) -> None:
    """Write area-weighted means of a finer level into a box."""
    ratio = ratio.limit_denominator(_LARGEST_TERM)
    resample(
        finer.transpose(1, 2, 0),
        None,
        ratio_yx=(ratio, ratio),
        src_yx=(0, 0),
        dst_yx=(box.y, box.x),
        out=out.transpose(1, 2, 0),
        out_valid=np.empty(box.shape.yx, bool),
        threads=1,
    )
