"""Tiles that lie on a device already: a second pass over them does without their way over the bus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias

from tilestream.cache.tally import DEVICE
from tilestream.cache.tier import Tier
from tilestream.types import Batch

MEMORY_PART = 8
"""A device keeps tiles in this part of the memory that is free when the first are sent."""


@dataclass(frozen=True)
class OnDevice:
    """Samples as they were sent."""

    samples: Any
    """Array of the device's library; whoever computes with it must not write into it."""
    ready: Any
    """What a stream waits for before it reads them."""


DeviceKey: TypeAlias = tuple[object, ...]
"""What tells the pixels of a batch from all others."""
DeviceTiles: TypeAlias = Tier[DeviceKey, OnDevice]
"""The tier of one device."""


def key_of(batch: Batch, channels: tuple[int, ...] | None) -> DeviceKey | None:
    """Return the key of a batch, None where nobody may keep it.

    Parameters
    ----------
    batch : Batch
        Any part of a unit; corners go into the key, so that a half of a batch is not taken for the other half.
    channels : tuple of int, optional
        Those that are sent; None = all.

    Returns
    -------
    tuple or None
        The key.
    """
    if not batch.source:
        return None
    return batch.source, batch.tile_yx.tobytes(), batch.halo_px, batch.pixels.shape, batch.pixels.dtype.str, channels


def device_tiles(device: str, free_bytes: Callable[[], int]) -> DeviceTiles:
    """Return the tier of a device of this process, made when it is first asked for.

    Parameters
    ----------
    device : str
        Name of the device, such as `cuda:0`.
    free_bytes : callable
        Returns its free memory, of which a part becomes the budget.

    Returns
    -------
    Tier
        The same object for the same device.
    """
    with _lock:
        if device not in _tiers:
            _tiers[device] = Tier(free_bytes() // MEMORY_PART, _nbytes, DEVICE)
        return _tiers[device]


def send_once(tiles: DeviceTiles | None, key: DeviceKey | None, send: Callable[[], OnDevice]) -> tuple[OnDevice, bool]:
    """Return tiles on the device, sent there unless they are there.

    Parameters
    ----------
    tiles : Tier, optional
        The device's tier; None where there is none.
    key : tuple, optional
        As `key_of` gives it.
    send : callable
        Sends them.

    Returns
    -------
    OnDevice and bool
        The tiles, and whether others will use them too, so that nobody may write into them.
    """
    if tiles is None or key is None:
        return send(), False
    held = tiles.find(key)
    if held is not None:
        return held[0], True
    sent = send()
    if not tiles.has_room(_nbytes(sent)):
        return sent, False
    tiles.keep_later(key, sent)
    return sent, True


def make_room(device: str) -> bool:
    """Drop all tiles of a device that has no memory left, and keep none from now on; return whether there were any."""
    with _lock:
        tiles = _tiers.get(device)
    if tiles is None or not tiles.held_bytes:
        return False
    tiles.resize(0)
    return True


def _nbytes(tiles: OnDevice) -> int:
    return int(tiles.samples.nbytes)


_lock = Lock()
_tiers: dict[str, DeviceTiles] = {}
