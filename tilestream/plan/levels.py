"""The resolution that a plan works at: a stored level, or a virtual one between two."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from tilestream.errors import ConfigError
from tilestream.types import ImageInfo, Level, PlanLevel, Shape, StageContract

TOLERANCE = 0.05
"""A stored level this close to what was asked for is used as it is: resampling would blur more than it corrects."""
DENOMINATOR = 64
"""Largest denominator of a ratio; the effective mpp differs from the target by less than 0.8 % and is recorded."""
ENLARGE = Fraction(1, 2)
"""Smallest ratio: stored pixels are enlarged at most twofold; beyond that an image has no such detail."""


@dataclass(frozen=True, kw_only=True)
class LevelChoice:
    """The level of a plan with what it means."""

    level: PlanLevel
    """The resolution."""
    mpp_yx: tuple[float, float] | None
    """Micrometres per plan pixel, as they really are; None when the image states none."""
    notes: tuple[str, ...] = ()
    """What a user should know of the choice."""


def target_mpp(contract: StageContract, info: ImageInfo) -> float | None:
    """Return the resolution that a stage wants on an image: its own on slides, native (None) on scenes.

    Parameters
    ----------
    contract : StageContract
        What the stage expects.
    info : ImageInfo
        The image.

    Returns
    -------
    float or None
        Micrometres per pixel; None = level 0.
    """
    is_scene = info.modality == "scene" or info.crs is not None
    return None if is_scene and not contract.needs_mpp else contract.mpp


def choose_level(
    info: ImageInfo,
    *,
    mpp: float | None = None,
    source_mpp: float | None = None,
    needs_mpp: bool = False,
    tolerance: float = TOLERANCE,
) -> LevelChoice:
    """Return the level to read for a resolution: the coarsest stored one that is fine enough, reduced if need be.

    Parameters
    ----------
    info : ImageInfo
        The image.
    mpp : float, optional
        Wanted micrometres per pixel; None = level 0 as it is.
    source_mpp : float, optional
        Micrometres per pixel of level 0 that the user states; goes before what the file says.
    needs_mpp : bool
        Whether an image of unknown or too coarse resolution is refused instead of read at level 0.
    tolerance : float
        Relative difference up to which a stored level counts as the wanted one.

    Returns
    -------
    LevelChoice
        Level, effective micrometres per pixel and notes.

    Raises
    ------
    ConfigError
        When the resolution is needed but unknown, cannot be met, or is not a positive number.
    """
    for name, value in (("mpp", mpp), ("source_mpp", source_mpp)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError.of(f"`{name}`", got=value, expected="micrometres above 0", do="Correct the number.")
    base_yx = info.mpp_yx if source_mpp is None else (source_mpp, source_mpp)
    if base_yx is None:
        return _without_mpp(info, mpp, needs_mpp)
    if mpp is None:
        return _stored(info.levels[0], base_yx)
    fine = [level for level in info.levels if max(_mpp_of(level, base_yx)) <= mpp * (1 + tolerance)]
    level = fine[-1] if fine else info.levels[0]
    own_yx = _mpp_of(level, base_yx)
    if all(abs(own / mpp - 1) <= tolerance for own in own_yx):
        return _stored(level, base_yx)
    ratio_yx = _ratio(mpp, own_yx[0]), _ratio(mpp, own_yx[1])
    if min(ratio_yx) < ENLARGE:
        return _too_coarse(info.levels[0], base_yx, mpp, needs_mpp)
    notes = () if fine else (f"enlarged from {max(own_yx):.4g} to {mpp:g} um/px: the image stores nothing finer",)
    return virtual_level(level, base_yx, ratio_yx, notes)


def virtual_level(
    level: Level, base_yx: tuple[float, float] | None, ratio_yx: tuple[Fraction, Fraction], notes: tuple[str, ...] = ()
) -> LevelChoice:
    """Return the level that a stored one becomes when `ratio_yx` of its pixels make one.

    Parameters
    ----------
    level : Level
        What is stored.
    base_yx : tuple of float or None
        Micrometres per pixel of level 0.
    ratio_yx : tuple of Fraction
        Stored pixels per plan pixel.
    notes : tuple of str
        What a user should know.

    Returns
    -------
    LevelChoice
        The virtual level; its last pixels may be covered in part.
    """
    scale_yx = float(ratio_yx[0]) * level.scale_yx[0], float(ratio_yx[1]) * level.scale_yx[1]
    shape = Shape(y=-(-level.shape.y // ratio_yx[0]), x=-(-level.shape.x // ratio_yx[1]))
    mpp_yx = None if base_yx is None else (base_yx[0] * scale_yx[0], base_yx[1] * scale_yx[1])
    plan = PlanLevel(stored=level.index, ratio_yx=ratio_yx, shape=shape, scale_yx=scale_yx)
    return LevelChoice(level=plan, mpp_yx=mpp_yx, notes=notes)


def _stored(level: Level, base_yx: tuple[float, float] | None, *notes: str) -> LevelChoice:
    return virtual_level(level, base_yx, (Fraction(1), Fraction(1)), notes)


def _mpp_of(level: Level, base_yx: tuple[float, float]) -> tuple[float, float]:
    return base_yx[0] * level.scale_yx[0], base_yx[1] * level.scale_yx[1]


def _ratio(target: float, own: float) -> Fraction:
    return Fraction(target / own).limit_denominator(DENOMINATOR)


def _without_mpp(info: ImageInfo, mpp: float | None, needs_mpp: bool) -> LevelChoice:
    if needs_mpp:
        raise ConfigError.of(
            "resolution of the image",
            got="none in its metadata",
            expected="micrometres per pixel, which the encoder needs" + (f" (it works at {mpp:g})" if mpp else ""),
            do="State it in the column `mpp` of a manifest (`--manifest`).",
        )
    notes = () if mpp is None else (f"resolution unknown: read at native resolution instead of {mpp:g} um/px",)
    return _stored(info.levels[0], None, *notes)


def _too_coarse(level: Level, base_yx: tuple[float, float], mpp: float, needs_mpp: bool) -> LevelChoice:
    finest = f"{max(base_yx):.4g} um/px at its finest"
    if needs_mpp:
        raise ConfigError.of(
            "resolution of the image",
            got=finest,
            expected=f"at most {mpp / float(ENLARGE):.4g} um/px, so that {mpp:g} can be had",
            do="Use a finer scan, or correct a wrong value in the column `mpp` of a manifest (`--manifest`).",
        )
    return _stored(level, base_yx, f"{finest}, too coarse for {mpp:g} um/px: read at native resolution")
