"""The protocol of all fields, what a fit is asked for, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

from tilestream.codecs.fields.picture import Levels, Picture
from tilestream.errors import ConfigError
from tilestream.types import Array, Box

BATCH_PX = 1 << 15
"""Pixels of one step, unless the caller says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When a fit ends: at whichever comes first."""

    steps: int | None = None
    """Steps of the optimiser."""
    target_psnr: float | None = None
    """dB of level 0, looked at now and then."""
    seconds: float | None = None
    """Wall time."""

    def __post_init__(self) -> None:
        given = [self.steps, self.target_psnr, self.seconds]
        if all(one is None for one in given) or any(one is not None and not one > 0 for one in given):
            raise ConfigError.of(
                "`steps`, `target_psnr` and `seconds` of a fit",
                got=tuple(given),
                expected="at least one of them, each above 0",
                do="Say when the fit is to end.",
            )


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What a fit has done."""

    steps: int
    """Steps of the optimiser."""
    seconds: float
    """Wall time."""
    psnr: tuple[float, ...]
    """dB of each level that was fitted, over valid pixels, measured after rounding to samples; inf where exact."""


class Field(Protocol):
    """An image as a function of position and level, with parameters that are fitted to its pixels."""

    name: ClassVar[str]
    """What `--codec` calls it."""
    picture: Picture | None
    """What it stands for; None until it was fitted."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return how many parameters each part has (`table`, `network` …), four bytes each in memory."""

    def fit(
        self,
        source: Array | Sequence[Array] | Levels,
        *,
        steps: int | None = None,
        target_psnr: float | None = None,
        seconds: float | None = None,
        level_weights: Mapping[int, float] | None = None,
    ) -> FitReport:
        """Fit it to all levels of a picture at once, from where it stands; ends at whichever comes first."""

    def decode(
        self,
        box: Box | None = None,
        *,
        level: float | None = None,
        out: Array | None = None,
        backend: str | None = None,
        threads: int | None = None,
    ) -> Array:
        """Return samples `(c, y, x)` of a box, in pixels of `level` (by default that of the box, or all of level 0)."""

    def quantize(self, bits: int | None = None) -> Self:
        """Return a copy of whole numbers times a scale each level or layer; by default the bits fitted for, else 8."""

    def to_bytes(self) -> bytes:
        """Return it as a container of the kind `name`: parameters as they stand, float16 where never quantised."""

    @classmethod
    def of_quality(cls, quality: float, picture: Picture) -> Self:
        """Return a field with the settings for a quality of 1 to 100 and a picture; not fitted yet."""

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the field that bytes hold; raise `DamagedError` where they are not whole."""
