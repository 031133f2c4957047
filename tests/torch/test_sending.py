"""Pinned buffers that go round: none is filled again before the device has read it. On a device of fakes."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tilestream.torch import sending
from tilestream.torch.sending import RING, CudaSender, HostSender


class Clock:
    """Writes down what is asked of a device, in order."""

    def __init__(self):
        self.done = []
        self.events = 0

    def event(self):
        number, self.events = self.events, self.events + 1
        return SimpleNamespace(
            number=number,
            record=lambda stream: self.done.append(f"recorded {number}"),
            synchronize=lambda: self.done.append(f"synchronized {number}"),
        )


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    waiting = SimpleNamespace(wait_event=lambda event: clock.done.append(f"waited for {event.number}"))
    cuda = SimpleNamespace(
        Stream=lambda device: "copies",
        Event=clock.event,
        stream=lambda stream: nullcontext(),
        current_stream=lambda device: waiting,
    )
    empty = torch.empty
    fake = SimpleNamespace(
        cuda=cuda,
        uint8=torch.uint8,
        from_numpy=torch.from_numpy,
        empty=lambda size, dtype, pin_memory=False: empty(size, dtype=dtype),
    )
    monkeypatch.setattr(sending, "torch", fake)
    return clock


def test_a_buffer_is_filled_again_only_when_it_was_read(clock):
    sender = CudaSender(torch.device("cpu"))
    buffers = []
    for turn in range(2 * RING):
        clock.done.clear()
        pixels = sender.buffer((2, 4, 4, 3), np.dtype(np.uint16))
        assert clock.done == ([f"synchronized {turn - RING}"] if turn >= RING else [])
        pixels[...] = turn
        sent = sender.send(pixels[:1], np.array([turn]))
        assert clock.done[-1] == f"recorded {turn}"
        assert sent.pixels.shape == (1, 3, 4, 4)
        assert (sent.pixels == turn).all()
        assert [values.tolist() for values in sent.others] == [[turn]]
        buffers.append(pixels.ctypes.data)
    assert buffers[:RING] == buffers[RING:]
    assert len(set(buffers)) == RING


def test_memory_grows_with_the_batch(clock):
    sender = CudaSender(torch.device("cpu"))
    for edge in (4, 8, 2):
        for _ in range(RING):
            pixels = sender.buffer((2, edge, edge, 3), np.dtype(np.uint8))
            assert pixels.shape == (2, edge, edge, 3)
            sender.send(pixels)


def test_on_the_host_each_batch_has_memory_of_its_own():
    sender = HostSender()
    one, other = (sender.buffer((2, 4, 4, 3), np.dtype(np.uint8)) for _ in range(2))
    assert not np.shares_memory(one, other)
    tensor = sender.send(one).pixels
    one[...] = 7
    assert (tensor == 7).all()
    assert tensor.is_contiguous(memory_format=torch.channels_last)
