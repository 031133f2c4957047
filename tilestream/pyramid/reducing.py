"""How the levels of a store are made of each other: by means, a longer filter, or a learned step.

Means come from level 0 four levels at a time, with nothing rounded on the way. Everything else makes a level from the
one before as it is stored, so that a part of an image needs pixels around it: with them the levels are those of the
whole image in one piece, to the bit.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilestream.codecs.downsample.record import read_downsampler
from tilestream.errors import ConfigError
from tilestream.kernels.fir import FILTERS, LIGHTS, fir_of
from tilestream.types import Box, ImageInfo

if TYPE_CHECKING:
    from tilestream.codecs.downsample.smaller import Downsampler

LEARNED = "learned"
"""Name of the filter that is a file."""


@dataclass(frozen=True, kw_only=True)
class Reducer:
    """How levels of intensities are made; small and picklable. Those of labels are always modes."""

    filter: str = "box"
    """`box`, `binomial`, `kaiser` or `lanczos` (`tilestream.kernels.fir`), or `learned`."""
    light: str = "stored"
    """What a filter averages: `stored` samples, `linear` light or optical `density`."""
    file: str | None = None
    """Of a learned downsampler."""
    digest: str | None = None
    """Of that file, 32 hex digits."""

    @classmethod
    def of(cls, filter: str | None = None, *, light: str = "stored") -> Reducer:
        """Return what a user asks for.

        Parameters
        ----------
        filter : str, optional
            Name of a filter, or path of what `tilestream train downsample` has written; box by default.
        light : {"stored", "linear", "density"}
            What is averaged.

        Returns
        -------
        Reducer
            Its file read once, to know its digest.

        Raises
        ------
        ConfigError
            When there is no such filter or light.
        SourceError
            When the file is none of a downsampler.
        """
        filter = filter or "box"
        if light not in LIGHTS:
            raise ConfigError.of(
                "`light` (`--light`)", got=repr(light), expected=f"one of {', '.join(LIGHTS)}", do="Choose one."
            )
        if filter in FILTERS:
            return cls(filter=filter, light=light)
        if not os.path.lexists(filter):
            raise ConfigError.of(
                "`filter` (`--filter`)",
                got=f"`{filter}`, and no such file",
                expected=f"one of {', '.join(FILTERS)}, or a file by `tilestream train downsample`",
                do="Choose one, or check the path.",
            )
        if light != "stored":
            raise ConfigError.of(
                "`light` (`--light`)",
                got=f"{light} with a learned filter",
                expected="stored: it has learned from samples as they are stored",
                do="Leave --light out.",
            )
        path = str(Path(filter).absolute())
        return cls(filter=LEARNED, file=path, digest=read_downsampler(path).digest)

    @property
    def is_mean(self) -> bool:
        """Return whether levels are means of stored samples."""
        return self.filter == "box" and self.light == "stored"

    @property
    def downsampler(self) -> Downsampler:
        """Return the learned one; its file is read once a process, and must be the same everywhere."""
        if self.file is None or self.digest is None:
            raise TypeError(f"{self.filter} is not learned")
        return _loaded(self.file, self.digest)

    def halo_px(self, levels: int) -> int:
        """Return how many pixels around a part its first levels need, in whole pixels of the last of them."""
        if self.is_mean:
            return 0
        needed = self.downsampler.file.record.halo_px(levels) if self.file else fir_of(self.filter).halo_px(levels)
        edge = 1 << levels
        return -(-needed // edge) * edge

    @property
    def reach_px(self) -> int:
        """Return how far beyond a change four levels may change, in pixels of their base, where that may have too.

        A level sees `radius` pixels of the one before to either side, so that four see 15 radius, and a base that was
        made so itself has changed a sixteenth of that further.
        """
        if self.is_mean:
            return 0
        radius = self.downsampler.file.record.radius if self.file else fir_of(self.filter).radius
        return 16 * radius + 2

    def around(self, box: Box, levels: int) -> Box:
        """Return a box with what its levels depend on; it may reach over the edges of the image."""
        halo = self.halo_px(levels)
        y, x = max(box.y - halo, 0), max(box.x - halo, 0)
        return Box(level=box.level, y=y, x=x, height=box.y_stop + halo - y, width=box.x_stop + halo - x)

    def require(self, info: ImageInfo, *, what: str) -> None:
        """Raise `ConfigError` unless the levels of an image can be made so.

        Parameters
        ----------
        info : ImageInfo
            The image.
        what : str
            Its name.
        """
        if info.kind == "labels":
            if not self.is_mean:
                raise ConfigError.of(
                    f"`filter` (`--filter`) for `{what}`",
                    got=f"{self.filter} for labels",
                    expected="intensities: coarse labels are the most frequent ones",
                    do="Leave --filter and --light out.",
                )
        elif self.file is not None:
            self.downsampler.require(info.dtype, len(info.channels), what=what)
        elif self.light != "stored" and info.dtype != np.uint8:
            raise ConfigError.of(
                f"`light` (`--light`) for `{what}`",
                got=f"{self.light} of {info.dtype}",
                expected="8-bit samples",
                do="Leave --light out.",
            )

    def record(self) -> dict[str, Any]:
        """Return what a store says of how its levels were made; where its file lies is no part of it."""
        if self.file is None:
            return {"name": self.filter, "light": self.light}
        record = self.downsampler.file.record
        return {"name": self.filter, "digest": self.digest, "levels": record.levels, "window_px": record.window_px}


MEAN = Reducer()
"""What levels are by default."""


def recorded_reducer(record: Mapping[str, Any] | None, filter: str | None) -> Reducer:
    """Return how the levels of a store were made, so that more of them can be.

    Parameters
    ----------
    record : Mapping, optional
        What the store says; None of one whose levels are means.
    filter : str, optional
        File of its learned downsampler.

    Returns
    -------
    Reducer
        That of the store.

    Raises
    ------
    ConfigError
        When it was a learned one, and its file is not given, or another.
    """
    if record is None or record["name"] != LEARNED:
        return MEAN if record is None else Reducer(filter=record["name"], light=record["light"])
    given = None if filter is None else Reducer.of(filter)
    if given is None or given.digest != record["digest"]:
        raise ConfigError.of(
            "`filter` (`--filter`)",
            got="none" if given is None else f"`{filter}`, another one",
            expected=f"the downsampler that made the levels of this store, of digest {record['digest']}",
            do="Give its file.",
        )
    return given


@functools.lru_cache(maxsize=4)
def _loaded(path: str, digest: str) -> Downsampler:
    from tilestream.codecs.downsample.smaller import Downsampler

    file = read_downsampler(path)
    if file.digest != digest:
        raise ConfigError.of(
            f"`{path}`", got="a file that was changed during the run", expected="the one it began with", do="Run again."
        )
    return Downsampler(file=file)
