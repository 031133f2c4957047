"""Degrees of visual angle in pixels."""

from __future__ import annotations

from math import radians, tan
from typing import SupportsFloat

from tilestream.errors import ConfigError


def px_per_degree_of(*, distance_mm: float, pixel_mm: float, shown_at: float = 1.0) -> float:
    """Return how many level-0 pixels a degree of visual angle holds where one looks straight at a screen.

    Parameters
    ----------
    distance_mm : float
        From the eye to the screen.
    pixel_mm : float
        Pitch of the screen's pixels.
    shown_at : float
        Level-0 pixels of the image that one pixel of the screen shows; 4 where level 2 is on it.

    Returns
    -------
    float
        Level-0 pixels per degree.

    Raises
    ------
    ConfigError
        When a number is not above 0.
    """
    for name, value in (("distance_mm", distance_mm), ("pixel_mm", pixel_mm), ("shown_at", shown_at)):
        positive(name, value, "`px_per_degree_of`")
    return 2 * distance_mm * tan(radians(0.5)) / pixel_mm * shown_at


def positive(name: str, value: object, of: str) -> float:
    """Return a finite number above 0 as a float.

    Parameters
    ----------
    name : str
        What it is called.
    value : object
        The number.
    of : str
        Whose it is.

    Returns
    -------
    float
        The number.

    Raises
    ------
    ConfigError
        When it is none, not above 0 or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, SupportsFloat) or not 0 < float(value) < float("inf"):
        raise ConfigError.of(f"`{name}` of {of}", got=repr(value), expected="a finite number above 0", do="Correct it.")
    return float(value)
