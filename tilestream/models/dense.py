"""What a stage that gives maps states, and what its maps have to be."""

from __future__ import annotations

import math

import numpy as np

from tilestream.errors import ConfigError, StageError
from tilestream.types import Array, StageContract

STORED = ("float32", "uint8", "uint16")
"""Types that a contract may ask to be stored."""
KEPT = ("float32", "uint8", "int8", "uint16", "int16", "uint32", "int32")
"""Types of maps that are taken as they are."""
MOST_CLASSES = 2**16 - 1
"""The number after the last one means that there is none."""


def check_dense(contract: StageContract) -> None:
    """Raise `ConfigError` where a contract contradicts itself in what it says of maps.

    Parameters
    ----------
    contract : StageContract
        Of any stage; one of vectors must say nothing of maps.
    """
    name = contract.name
    if contract.output not in ("vector", "dense"):
        raise _refused(name, "output", contract.output, "`vector` or `dense`")
    if contract.output == "vector":
        told = [
            key
            for key in ("stride", "halo_px", "void_px", "stored", "value_range", "keeps_place", "classes")
            if _told(contract, key)
        ]
        if told:
            raise _refused(
                name, told[0], getattr(contract, told[0]), "`output` to be `dense`, the only one that has it"
            )
        return
    _check_edges(contract)
    if contract.stored not in (None, *STORED):
        raise _refused(name, "stored", contract.stored, f"one of {', '.join(STORED)}")
    limits: tuple[float, ...] | None = contract.value_range
    if limits is not None and not (len(limits) == 2 and all(map(math.isfinite, limits)) and limits[0] < limits[1]):
        raise _refused(name, "value_range", limits, "two finite numbers in rising order")
    if contract.classes and (limits is not None or contract.stored == "float32"):
        raise _refused(name, "classes", f"{len(contract.classes)} beside a range or float32", "classes by themselves")
    if len(contract.classes) > MOST_CLASSES or (contract.stored == "uint8" and len(contract.classes) > 255):
        raise _refused(name, "classes", f"{len(contract.classes)} classes", "at most 255 in uint8, 65,535 in uint16")


def _check_edges(contract: StageContract) -> None:
    name = contract.name
    if contract.stride < 1 or contract.px % contract.stride:
        raise _refused(name, "stride", contract.stride, f"a divisor of `px`, {contract.px}")
    if not 0 <= contract.void_px <= contract.halo_px < contract.px / 2:
        got = f"halo_px={contract.halo_px}, void_px={contract.void_px}"
        raise _refused(name, "halo_px", got, f"0 <= void_px <= halo_px, and a halo below half of `px`, {contract.px}")


def checked_map(found: Array, given: tuple[int, ...], contract: StageContract) -> Array:
    """Return the maps of a batch in a type that can be stored, after a look at their shape.

    Parameters
    ----------
    found : ndarray
        What the stage gave.
    given : tuple of int
        Shape of the tiles, `(n, c, h, w)`.
    contract : StageContract
        What the stage states.

    Returns
    -------
    ndarray
        `(n, k, h / stride, w / stride)`: floats as float32, bool as uint8, whole numbers of 64 bits as int32.

    Raises
    ------
    StageError
        When the shape is another one, or the values are no real numbers or do not fit.
    """
    n, _, height, width = given
    stride, k = contract.stride, "k" if contract.dim is None else contract.dim
    wanted = (n, *(found.shape[1:2] if contract.dim is None else (contract.dim,)), height // stride, width // stride)
    if found.shape != wanted or not found.shape[1] or found.dtype.kind not in "fiub":
        raise StageError.of(
            f"output of `{contract.name}`",
            got=f"{found.dtype} of shape {found.shape}",
            expected=f"real numbers of shape ({n}, {k}, {height // stride}, {width // stride})",
            do="Return one map a tile, and state the `stride` in the contract where it is smaller than the tile.",
        )
    if contract.classes and found.shape[1] not in (1, len(contract.classes)):
        raise StageError.of(
            f"output of `{contract.name}`",
            got=f"{found.shape[1]} channels",
            expected=f"a score for each of {len(contract.classes)} classes, or one channel of class numbers",
            do="Correct `classes` of the contract.",
        )
    if contract.classes and found.shape[1] == 1 and found.dtype.kind == "f":  # torch hands over numbers as floats
        found = found.astype(np.int64)
    if found.dtype.name in KEPT:
        return found
    if found.dtype.kind == "f":
        return found.astype(np.float32)
    if found.dtype.kind == "b":
        return found.view(np.uint8)
    if found.size and not -(2**31) <= int(found.min()) <= int(found.max()) < 2**31:
        raise StageError.of(
            f"output of `{contract.name}`",
            got=f"{found.dtype} values from {found.min()} to {found.max()}",
            expected="whole numbers of at most 32 bits",
            do="Return a smaller type.",
        )
    return found.astype(np.int32)


def _told(contract: StageContract, key: str) -> bool:
    default = StageContract.__dataclass_fields__[key].default
    return bool(getattr(contract, key) != default)


def _refused(name: str, key: str, got: object, expected: str) -> ConfigError:
    return ConfigError.of(
        f"`{key}` in the contract of `{name}`", got=got, expected=expected, do="Correct the contract."
    )
