"""One tile of the pyramid codec as a file: a container of kind `pyramid`.

    header      size and samples of the picture; `n`, the digest of networks that are elsewhere
    sections    networks, where `n` is left out; each grid, the coarsest first; one more where the error is bounded

Grids come coarse to fine, so that the front of a file is the picture with less detail: it is read with `cut`, and what
has not arrived counts as zero. A file has some 45 bytes beside its sections, and seven more for each front below.

Where the file is to answer several levels, each front that has all grids of a coarser level with a network carries a
checksum (`tilestream.codecs.fronts`): the shortest is of the coarsest such level, the longest of level 1. A file of
bounded error has none, since each of its levels is a mean of the bounded one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tilestream.codecs.container import Packed, pack, unpack
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.fields.pictureheader import picture_header, picture_of
from tilestream.codecs.fronts import unpack_front, with_fronts
from tilestream.codecs.pyramid.latents import Grid, decode_grids, encode_grids
from tilestream.codecs.pyramid.netbytes import read_nets, write_nets
from tilestream.codecs.pyramid.nets import PyramidNets, grid_shapes
from tilestream.codecs.pyramid.samples import range_fault
from tilestream.codecs.pyramid.sharednets import find_nets
from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Array, Shape

KIND = "pyramid"
VERSION = 1
MOST_PX = 1 << 26
"""Pixels of a tile."""
_DIGEST = "n"
_DIGEST_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class PyramidFile:
    """A tile: networks and coded grids."""

    picture: Picture
    """Size and samples."""
    nets: PyramidNets
    """What decodes the grids."""
    shared: bool = False
    """Whether the file names the networks and does not hold them."""
    sections: tuple[bytes, ...]
    """Coded grids, the coarsest first; of a file that was cut those that are there."""
    residual: bytes | None = None
    """What bounds the error; None where it is not bounded, or was cut off."""

    @classmethod
    def of(cls, picture: Picture, nets: PyramidNets, grids: Sequence[Array], *, shared: bool = False) -> PyramidFile:
        """Return the file of grids.

        Parameters
        ----------
        picture : Picture
            What they are of.
        nets : PyramidNets
            What they were made for.
        grids : sequence of ndarray of integers
            Finest first, within ±255; sizes as of `grid_shapes`.
        shared : bool
            Whether a reader knows the networks.

        Returns
        -------
        PyramidFile
            Its `grids()` are what a reader will have: `encode_grids` may have to change some numbers.

        Raises
        ------
        ConfigError
            When grids, networks and picture do not fit together.
        """
        shapes = grid_shapes(picture.shape, nets.scales)
        if [grid.shape for grid in grids] != [shape.yx for shape in shapes] or nets.channels != picture.channels:
            raise ConfigError.of(
                "`grids` of a pyramid",
                got=f"{[grid.shape for grid in grids]} for {nets.channels} channels",
                expected=f"{[shape.yx for shape in shapes]} for {picture.channels}",
                do="Make them for this picture.",
            )
        wrong = _fault(picture)
        if wrong:
            raise ConfigError.of("picture of a pyramid", got=wrong, expected="another", do="Cut it, or convert it.")
        sections, _ = encode_grids(grids, nets)
        return cls(picture=picture, nets=nets, shared=shared, sections=tuple(sections))

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Return the sizes of the grids, finest first."""
        return grid_shapes(self.picture.shape, self.nets.scales)

    def stages_of(self, level: int) -> int:
        """Return how many of the coarsest grids a level is made of; those beyond the last network are means of it."""
        return self.nets.scales - min(level, len(self.nets.synth) - 1)

    def grids(self, stages: int | None = None, *, known: Sequence[Grid] = ()) -> tuple[Grid, ...]:
        """Return the grids.

        Parameters
        ----------
        stages : int, optional
            How many of the coarsest ones; by default all that are there.
        known : sequence of ndarray of int16
            Coarsest grids that were decoded before, finest first.

        Returns
        -------
        tuple of ndarray of int16
            Finest first; zeros where a grid was not asked for, or was cut off.

        Raises
        ------
        DamagedError
            When the sections hold no grids.
        """
        stages = len(self.sections) if stages is None else min(stages, len(self.sections))
        return decode_grids(self.sections, self.shapes, self.nets, stages, known=known)

    def to_bytes(self) -> bytes:
        """Return it as a container."""
        header: dict[str, Any] = picture_header(self.picture)
        sections = [*self.sections]
        if self.shared:
            header[_DIGEST] = self.nets.digest
        else:
            sections.insert(0, write_nets(self.nets))
        if self.residual is not None:
            sections.append(self.residual)
        elif (levels := min(self.picture.levels, len(self.nets.synth))) > 1:
            beside = len(sections) - self.nets.scales
            counts = [beside + self.stages_of(level) for level in reversed(range(1, levels))]
            header = with_fronts(KIND, version=VERSION, header=header, sections=sections, counts=counts)
        return pack(KIND, version=VERSION, header=header, sections=sections)

    @classmethod
    def from_bytes(cls, data: bytes, *, cut: bool = False) -> PyramidFile:
        """Return what bytes hold; grids are decoded when they are asked for.

        Parameters
        ----------
        data : bytes
            What `to_bytes` gave.
        cut : bool
            Also take the front of that, as far as it has the networks. No checksum covers it.

        Returns
        -------
        PyramidFile
            With the sections that are whole.

        Raises
        ------
        DamagedError
            When the bytes are not whole.
        SourceError
            When they are of a version that is not known here, or name networks that are not.
        """
        return cls._of_packed(unpack(data, kinds={KIND: VERSION}, cut=cut), cut=cut)

    @classmethod
    def from_front(cls, data: bytes) -> PyramidFile:
        """Return what the beginning of a file holds, as far as a checksum covers it; errors as of `from_bytes`."""
        return cls._of_packed(unpack_front(data, kinds={KIND: VERSION}), cut=True)

    @classmethod
    def _of_packed(cls, packed: Packed, *, cut: bool) -> PyramidFile:
        picture, digest, sections = picture_of(packed), packed.header.get(_DIGEST), list(packed.sections)
        if digest is not None and (type(digest) is not bytes or len(digest) != _DIGEST_BYTES):
            raise _damaged(f"a digest of {str(digest)[:40]!r}")
        if digest is None and not sections:
            raise _damaged("no networks")
        nets = read_nets(sections.pop(0)) if digest is None else find_nets(digest)
        bounded = len(sections) == nets.scales + 1
        if not (bounded or len(sections) == nets.scales or (cut and len(sections) < nets.scales)):
            raise _damaged(f"{len(sections)} sections for {nets.scales} grids")
        wrong = _fault(picture) or (nets.channels != picture.channels and f"networks of {nets.channels} channels")
        if wrong:
            raise _damaged(wrong)
        return cls(
            picture=picture,
            nets=nets,
            shared=digest is not None,
            sections=tuple(sections[: nets.scales]),
            residual=sections[-1] if bounded else None,
        )


def _fault(picture: Picture) -> str | None:
    """Return what no tile of this codec can be, None where a picture can."""
    shape = picture.shape
    if shape.y * shape.x > MOST_PX:
        return f"{shape.y:,} x {shape.x:,} px, more than {MOST_PX:,}"
    return range_fault(picture)


def _damaged(what: str) -> DamagedError:
    return DamagedError(f"a container of kind `{KIND}`: {what}")
