"""Channels of a contract among those of an image, and whether its scaling belongs to them."""

from __future__ import annotations

from tilestream.errors import ConfigError, StageError
from tilestream.types import ImageInfo, StageContract

BIT_TOLERANCE = 1e-3
"""Relative difference up to which a scale is that of 8 bits."""


def find_channels(contract: StageContract, image: ImageInfo) -> tuple[int, ...]:
    """Return the positions of a contract's channels among those of an image.

    Parameters
    ----------
    contract : StageContract
        Names, a number, or None for all.
    image : ImageInfo
        The image.

    Returns
    -------
    tuple of int
        In the order of the contract.

    Raises
    ------
    StageError
        When the image has another number of channels, or lacks one that is named.
    """
    names = [channel.name for channel in image.channels]
    if contract.channels is None:
        return tuple(range(len(names)))
    if isinstance(contract.channels, int):
        if contract.channels != len(names):
            raise channel_error(contract.name, f"{len(names)} channels {names}", f"{contract.channels}")
        return tuple(range(len(names)))
    folded = [name.casefold() for name in names]
    found = []
    for wanted in contract.channels:
        exact = names.index(wanted) if wanted in names else None
        if exact is None and folded.count(wanted.casefold()) != 1:
            raise channel_error(contract.name, f"channels {names}", f"one called `{wanted}`")
        found.append(folded.index(wanted.casefold()) if exact is None else exact)
    return tuple(found)


def check_scaling(contract: StageContract, channels: int | None) -> None:
    """Refuse a mean or std of another length than the channels, and a std of 0."""
    if channels is None:
        channels = contract.channels if isinstance(contract.channels, int) else len(contract.channels or ()) or None
    for key, values in (("mean", contract.mean), ("std", contract.std)):
        if values and len(values) not in (1, channels or len(values)):
            raise channel_error(contract.name, f"`{key}` of {len(values)} values", f"1 or {channels}")
    if 0.0 in contract.std:
        raise ConfigError.of(
            f"`std` of `{contract.name}`",
            got=contract.std,
            expected="values other than 0",
            do="Correct the contract.",
        )


def check_units(contract: StageContract, image: ImageInfo) -> None:
    """Refuse a mean and std for samples in 0 to 1 when samples come as whole numbers and nothing scales them there."""
    small = contract.mean and contract.std and max(map(abs, (*contract.mean, *contract.std))) <= 1
    if small and contract.scale == 1 and image.dtype.kind in "ui":
        raise StageError.of(
            f"contract of `{contract.name}`",
            got=f"mean {contract.mean} and std {contract.std} without `scale`, on {image.dtype} samples",
            expected="samples in the units of mean and std",
            do='Add "scale": 1 / 255 for 8-bit samples.',
        )
    is_wide = image.dtype.kind in "ui" and image.dtype.itemsize > 1
    if small and is_wide and abs(contract.scale * 255 - 1) < BIT_TOLERANCE:
        raise StageError.of(
            f"contract of `{contract.name}`",
            got=f"`scale` of 1 / 255 on {image.dtype} samples",
            expected="8-bit samples, which it brings to 0 to 1",
            do="State the scale of these samples, such as 1 / 65535: in the contract of a callable, or in a copy of "
            "the encoder's record (`tilestream encoders NAME`).",
        )


def channel_error(name: str, got: str, expected: str) -> StageError:
    """Return the error of channels that a contract does not take."""
    return StageError.of(
        f"channels of `{name}`",
        got=got,
        expected=expected,
        do="Choose channels in the column `bands` of a manifest, or name them in the contract.",
    )
