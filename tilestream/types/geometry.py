"""Sizes and boxes: which pixels, of which level."""

from __future__ import annotations

from dataclasses import dataclass

from tilestream.errors import ConfigError


@dataclass(frozen=True, kw_only=True, order=True)
class Shape:
    """A height and a width in pixels or cells."""

    y: int
    """Rows."""
    x: int
    """Columns."""

    @property
    def yx(self) -> tuple[int, int]:
        """Return `(y, x)`."""
        return self.y, self.x

    @property
    def xy(self) -> tuple[int, int]:
        """Return `(x, y)`."""
        return self.x, self.y

    @property
    def area(self) -> int:
        """Return the number of pixels or cells."""
        return self.y * self.x


@dataclass(frozen=True, kw_only=True, order=True)
class Box:
    """A half-open rectangle of one level, in that level's pixels; it may reach outside the image."""

    level: int = 0
    """Level that the coordinates belong to; 0 is the finest."""
    y: int
    """First row."""
    x: int
    """First column."""
    height: int
    """Rows; at least 0."""
    width: int
    """Columns; at least 0."""

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0 or self.level < 0:
            raise ConfigError.of(
                "`Box`",
                got=f"level={self.level}, height={self.height}, width={self.width}",
                expected="numbers of at least 0",
                do="Order the corners before making a box.",
            )

    @property
    def y_stop(self) -> int:
        """Return the row after the last."""
        return self.y + self.height

    @property
    def x_stop(self) -> int:
        """Return the column after the last."""
        return self.x + self.width

    @property
    def shape(self) -> Shape:
        """Return height and width."""
        return Shape(y=self.height, x=self.width)

    @property
    def slices_yx(self) -> tuple[slice, slice]:
        """Return the row and column slices."""
        return slice(self.y, self.y_stop), slice(self.x, self.x_stop)

    def intersect(self, other: Box) -> Box:
        """Return the common part, of size 0 where there is none; both must be of one level."""
        if self.level != other.level:
            raise ConfigError.of(
                "`Box.intersect`",
                got=f"levels {self.level} and {other.level}",
                expected="boxes of one level",
                do="Convert one of them first.",
            )
        y, x = max(self.y, other.y), max(self.x, other.x)
        y_stop, x_stop = min(self.y_stop, other.y_stop), min(self.x_stop, other.x_stop)
        if (y, x, y_stop, x_stop) == (self.y, self.x, self.y_stop, self.x_stop):
            return self
        return Box(level=self.level, y=y, x=x, height=max(0, y_stop - y), width=max(0, x_stop - x))

    def grow(self, halo_px: int) -> Box:
        """Return the box with `halo_px` more pixels on every side."""
        return Box(
            level=self.level,
            y=self.y - halo_px,
            x=self.x - halo_px,
            height=self.height + 2 * halo_px,
            width=self.width + 2 * halo_px,
        )
