"""The level for a resolution that a user names."""

from __future__ import annotations

import math
from dataclasses import replace

from tilestream.errors import ConfigError
from tilestream.plan.levels import choose_level
from tilestream.pyramid import Pyramid
from tilestream.sources.grids import gsd_of
from tilestream.types import PlanLevel
from tilestream.xr.tree import stored_level

UM_PER_M = 1e6


def level_at(
    pyr: Pyramid, *, level: int | None = None, mpp: float | None = None, gsd_m: float | None = None
) -> PlanLevel:
    """Return a stored level, or the one for a resolution: the coarsest stored that is fine enough, reduced if need be.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    level : int, optional
        Number of a stored level.
    mpp : float, optional
        Micrometres per pixel.
    gsd_m : float, optional
        Metres per pixel.

    Returns
    -------
    PlanLevel
        Level 0 when nothing is named.

    Raises
    ------
    ConfigError
        When more than one is named, the level does not exist, or the resolution is unknown or cannot be met.
    """
    named = {name: value for name, value in (("level", level), ("mpp", mpp), ("gsd_m", gsd_m)) if value is not None}
    if len(named) > 1:
        raise ConfigError.of(
            "`level`, `mpp` and `gsd_m`", got=named, expected="one of them", do="Leave out the others."
        )
    if not named or level is not None:
        count = len(pyr.levels)
        if not 0 <= (level or 0) < count:
            raise ConfigError.of("`level`", got=level, expected=f"0 to {count - 1}", do="Choose a stored level.")
        return stored_level(pyr, level or 0)
    info, wanted, unit = pyr.info, mpp, "µm"
    if gsd_m is not None:
        gsd_yx = gsd_of(info.crs, info.affine)
        info = replace(info, mpp_yx=gsd_yx and (gsd_yx[0] * UM_PER_M, gsd_yx[1] * UM_PER_M))
        wanted, unit = gsd_m * UM_PER_M, "m"
    if info.mpp_yx is None:
        name = "mpp" if gsd_m is None else "gsd_m"
        raise ConfigError.of(
            f"`{name}={named[name]}`",
            got="an image that does not state its pixel size in that unit",
            expected=f"an image of known {unit} per pixel",
            do=_advice(pyr, name),
        )
    found = choose_level(info, mpp=wanted)
    if any("too coarse" in note for note in found.notes):
        finest = math.sqrt(info.mpp_yx[0] * info.mpp_yx[1]) / (1.0 if gsd_m is None else UM_PER_M)
        raise ConfigError.of(
            "resolution",
            got=named,
            expected=f"at least {finest / 2:.4g} {unit} per pixel: the finest level has {finest:.4g}",
            do="Ask for a coarser one, or take level 0.",
        )
    return found.level


def _advice(pyr: Pyramid, name: str) -> str:
    if name == "mpp" and pyr.gsd_m is not None:
        return f"Give `gsd_m`: the scene has {pyr.gsd_m:g} m per pixel."
    if name == "gsd_m" and pyr.mpp is not None:
        return f"Give `mpp`: the image has {pyr.mpp:g} µm per pixel."
    return "Take a stored `level`, or state the resolution: `ts.open_pyramid(url).choose(mpp=…)`."
