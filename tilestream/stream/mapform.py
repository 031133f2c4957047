"""How the values of a map are stored: type, range, classes, and what says that there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilestream.errors import ConfigError, StageError
from tilestream.types import Array, Channel, Kind, StageContract

LIMIT = 2.0**16
"""Largest magnitude of floats that are blended where the contract states no range: they are summed to 2**-22."""


@dataclass(frozen=True, kw_only=True)
class MapForm:
    """What a stage gives on one image, and how that is stored."""

    name: str
    """Of the stage."""
    planes: int
    """Channels that the stage gives."""
    given: np.dtype[Any]
    """Type that the stage gives."""
    stored: np.dtype[Any]
    """Type of the samples in the store."""
    channels: tuple[Channel, ...]
    """Channels of the store, with factor and offset to the values."""
    value_range: tuple[float, float] | None = None
    """Values are clipped to it."""
    classes: tuple[str, ...] = ()
    """Names of the classes of a map of labels."""
    void: float | None = None
    """What stands where there is no value; None where a mask says it."""

    @property
    def kind(self) -> Kind:
        """Return `labels` for class numbers, else `intensity`."""
        return "labels" if self.classes else "intensity"

    @property
    def limit(self) -> float | None:
        """Return the largest magnitude that is blended, None for whole numbers."""
        if self.given.kind != "f":
            return None
        return LIMIT if self.value_range is None else max(map(abs, self.value_range))

    def clipped(self, values: Array) -> Array:
        """Return values inside the range, in their own type."""
        if self.value_range is None:
            return values
        found = np.clip(values, *self.value_range)  # of whole numbers and a range of floats NumPy makes floats
        return found if found.dtype == values.dtype else np.rint(found).astype(values.dtype)

    def encoded(self, values: Array) -> Array:
        """Return the values of a part of the map as they are stored.

        Parameters
        ----------
        values : ndarray
            `(k, y, x)` as the stage gives them; those that are not finite come out as anything.

        Returns
        -------
        ndarray
            `(y, x, c)`.

        Raises
        ------
        StageError
            When a number is that of no class.
        """
        if self.classes:
            return self._labels(values)
        values = self.clipped(values).transpose(1, 2, 0)
        if self.value_range is not None and self.stored.kind == "u" and self.given.kind == "f":
            scale, offset = self.channels[0].scale, self.channels[0].offset
            values = np.rint((np.nan_to_num(values, nan=offset) - np.float32(offset)) / np.float32(scale))
        return values.astype(self.stored, copy=False)

    def _labels(self, values: Array) -> Array:
        if len(values) > 1:
            return np.asarray(values.argmax(axis=0)[..., None], self.stored)
        if values.size and not (values.min() >= 0 and values.max() < len(self.classes)):
            raise StageError.of(
                f"output of `{self.name}`",
                got=f"class numbers from {values.min()} to {values.max()}",
                expected=f"0 to {len(self.classes) - 1}, one of its {len(self.classes)} classes",
                do="Correct `classes` of the contract.",
            )
        return values[0, ..., None].astype(self.stored)


def map_form(contract: StageContract, names: tuple[str, ...], sample: Array, *, is_blended: bool = False) -> MapForm:
    """Return how the maps of a stage are stored.

    Parameters
    ----------
    contract : StageContract
        What the stage states.
    names : tuple of str
        Of its channels.
    sample : ndarray
        `(n, k, y, x)` what it has given for some tile.
    is_blended : bool
        Whether neighbours will be feathered over each other.

    Returns
    -------
    MapForm
        The same for every tile.

    Raises
    ------
    ConfigError
        When the values cannot be had in the type that the contract wants to be stored, or class numbers are to be
        blended.
    StageError
        When there are other channels than names.
    """
    planes = sample.shape[1]
    if contract.classes:
        if is_blended and planes == 1:
            raise ConfigError.of(
                "`blend` (`--blend`)",
                got=f"class numbers of `{contract.name}`",
                expected="a score for each class: numbers have no mean",
                do="Return the scores, or give no --blend.",
            )
        return _labels(contract, planes, sample.dtype)
    if len(names) != planes:
        raise StageError.of(
            f"output of `{contract.name}`",
            got=f"{planes} channels",
            expected=f"{len(names)}, as `output_names` says: {', '.join(names)}",
            do="Correct one of the two.",
        )
    stored = sample.dtype if contract.stored is None else np.dtype(contract.stored)
    void = math.nan if stored.kind == "f" else None
    scale, offset = 1.0, 0.0
    if stored.kind == "u" and sample.dtype.kind == "f" and contract.value_range is not None:
        void = float(np.iinfo(stored).max)
        low, high = contract.value_range
        scale, offset = (high - low) / (void - 1), low
    elif not np.can_cast(sample.dtype, stored, "safe"):
        raise ConfigError.of(
            f"`stored` in the contract of `{contract.name}`",
            got=f"{stored} for values of {sample.dtype}",
            expected="a type that holds them, or floats with a `value_range` by which they are scaled",
            do="State the `value_range`, or leave `stored` out.",
        )
    return MapForm(
        name=contract.name,
        planes=planes,
        given=sample.dtype,
        stored=stored,
        channels=tuple(Channel(name=name, scale=scale, offset=offset) for name in names),
        value_range=contract.value_range,
        void=void,
    )


def _labels(contract: StageContract, planes: int, given: np.dtype[Any]) -> MapForm:
    small = len(contract.classes) < np.iinfo(np.uint8).max + 1
    stored = np.dtype(contract.stored or ("uint8" if small else "uint16"))
    return MapForm(
        name=contract.name,
        planes=planes,
        given=given,
        stored=stored,
        channels=(Channel(name=contract.name),),
        classes=contract.classes,
        void=float(np.iinfo(stored).max),
    )
