"""Tiles on a device: sent once, known by what they show, and the first to go when its memory is short."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import tilestream as ts
from tilestream.cache import device as module
from tilestream.cache.device import MEMORY_PART, OnDevice, device_tiles, key_of, make_room, send_once
from tilestream.cache.tally import by_tier
from tilestream.cache.tier import ENTRY_BYTES
from tilestream.metrics import collect
from tilestream.stream.batches import stream_tiles
from tilestream.testing.slide import write_slide
from tilestream.types import Batch, Shape


@pytest.fixture(autouse=True)
def no_devices(monkeypatch):
    monkeypatch.setattr(module, "_tiers", {})


def batches(path, cache_bytes: int = 1 << 20, **choice) -> list[Batch]:
    pyramid = ts.open_pyramid(path, cache_bytes=cache_bytes).choose(**choice)
    plan = ts.plan_tiles(pyramid, tile_px=64, where="all", super_tile_px=128)
    return list(stream_tiles(pyramid, plan))


@pytest.fixture
def slide(tmp_path):
    return write_slide(tmp_path / "a.svs", Shape(y=256, x=256), tile_px=128)


class Device:
    """Memory of a device, which a test may look into; its arrays are NumPy's."""

    def __init__(self, free_bytes: int = 1 << 30) -> None:
        self.tiles = device_tiles("fake:0", lambda: free_bytes)
        self.sent = 0

    def send(self, batch: Batch, channels=None) -> np.ndarray:
        def send() -> OnDevice:
            self.sent += 1
            return OnDevice(np.array(batch.pixels), ready=None)

        return send_once(self.tiles, key_of(batch, channels), send)[0].samples


def test_a_second_pass_sends_nothing(slide):
    device = Device()
    for batch in batches(slide):
        device.send(batch)
    first, device.sent = device.sent, 0
    assert first == 4
    with collect() as meter:
        for batch in batches(slide):
            assert np.array_equal(device.send(batch), batch.pixels)
    assert device.sent == 0
    assert by_tier(meter.counts)["device"] == {"hits": 4, "misses": 0, "bytes": 256 * 256 * 3, "evictions": 0}


def test_parts_of_a_batch_and_other_channels_are_other_tiles(slide):
    device = Device()
    (batch, *_) = batches(slide)
    halves = [
        replace(batch, **{name: getattr(batch, name)[part] for name in ("pixels", "valid_share", "rows", "tile_yx")})
        for part in (slice(0, 2), slice(2, 4))
    ]
    for _ in range(2):
        for one in (*halves, batch):
            assert np.array_equal(device.send(one), one.pixels)
    assert device.sent == 3
    assert key_of(batch, (0, 2)) != key_of(batch, None)


def test_a_changed_slide_is_sent_again(slide):
    device = Device()
    before = [device.send(batch) for batch in batches(slide)]
    write_slide(slide, Shape(y=256, x=256), tile_px=128, seed=3)
    after = [device.send(batch) for batch in batches(slide)]
    assert device.sent == 8
    assert not np.array_equal(before, after)


def test_what_nobody_can_know_again_is_not_kept(slide):
    device = Device()
    array = np.zeros((3, 256, 256), np.uint8)
    for source in ((slide, 0), (array, 1 << 20)):
        for batch in batches(*source):
            assert key_of(batch, None) is None
            device.send(batch)
    assert device.sent == 8
    assert device.tiles.held_bytes == 0


def test_a_device_keeps_a_part_of_its_memory_and_gives_it_back_when_that_is_short(slide):
    nbytes = 128 * 128 * 3
    device = Device(free_bytes=MEMORY_PART * 2 * (nbytes + ENTRY_BYTES))
    for _ in range(2):
        for batch in batches(slide):
            assert np.array_equal(device.send(batch), batch.pixels)
    assert device.sent == 4 + 2
    assert device.tiles.held_bytes == device.tiles.budget_bytes
    assert make_room("fake:0")
    assert device.tiles.held_bytes == 0
    assert not make_room("fake:0")
    assert not make_room("fake:1")
