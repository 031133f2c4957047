"""How much each part of an image matters, seen from a coarse level."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.types.geometry import Shape

_WHOLE = 1e-6
"""Share of a cell that is rounding of its edge, not a cell more."""


def cells_of(shape: Shape, cell_yx: tuple[float, float]) -> Shape:
    """Return how many cells cover an image.

    Parameters
    ----------
    shape : Shape
        Size of the image at level 0.
    cell_yx : tuple of float
        Edges of a cell in pixels of level 0.

    Returns
    -------
    Shape
        Rows and columns of the grid, at least 1 each; the last cells may reach out of the image.
    """
    y, x = (max(1, ceil(edge / cell - _WHOLE)) for edge, cell in zip(shape.yx, cell_yx, strict=True))
    return Shape(y=y, x=x)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreMap:
    """A number for each cell of a regular grid over an image; the larger, the more there is to see."""

    name: str
    """What it is the score of: `entropy`, `query`."""
    values: npt.NDArray[np.float32]
    """`(y, x)`, finite; 0 where `valid` is False."""
    valid: npt.NDArray[np.bool_]
    """`(y, x)`; False where nothing was measured, or nothing is known since a block is damaged."""
    cell_yx: tuple[float, float]
    """Edges of a cell in pixels of level 0; the first one begins in the image's corner."""
    shape: Shape
    """Size of the image at level 0; the last cells may reach out of it."""
    notes: tuple[str, ...] = ()
    """What a user should know."""
    floor: float | None = None
    """Value up to which there is nothing to see, such as the noise of glass; None where no such value is known."""
    absolute: bool = False
    """Whether values lie in 0 to 1 and mean the same on every image, so that nobody has to normalise them."""

    def __post_init__(self) -> None:
        grid = cells_of(self.shape, self.cell_yx).yx
        if self.values.shape != grid or self.valid.shape != grid:
            raise ConfigError.of(
                f"score map `{self.name}`",
                got=f"values {self.values.shape}, validity {self.valid.shape}",
                expected=f"one of {grid} cells for an image of {self.shape.y} x {self.shape.x} px in cells of "
                f"{self.cell_yx[0]:g} x {self.cell_yx[1]:g} px",
                do="Return a number for each cell.",
            )
        if self.floor is not None and not isfinite(self.floor):
            raise ConfigError.of(
                f"`floor` of score map `{self.name}`", got=self.floor, expected="a finite number, or None",
                do="Leave it out where there is none.",
            )  # fmt: skip
        bad = int(np.count_nonzero(~np.isfinite(self.values)))
        if bad:
            raise ConfigError.of(
                f"score map `{self.name}`",
                got=f"{bad:,} of {self.values.size:,} values that are not finite",
                expected="finite numbers",
                do="Say False in `valid` where there is none, and 0 here.",
            )
