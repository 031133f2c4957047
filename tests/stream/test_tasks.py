"""What a task has given is fetched, however long that takes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from distributed import Client, wait

from tilestream.cluster.client import open_client
from tilestream.stream import tasks
from tilestream.stream.tasks import result_of


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with open_client("threads:1") as opened:
        yield opened


@contextmanager
def slow(client: Client) -> Iterator[None]:
    """Let the client begin with no fetch, as one whose machine has more to do."""
    turns = client._gather_semaphore

    async def take() -> None:
        for _ in range(5):
            await turns.acquire()

    async def give() -> None:
        for _ in range(5):
            turns.release()
        await asyncio.sleep(0)

    client.sync(take)
    try:
        yield
    finally:
        client.sync(give)


def test_what_comes_late_is_asked_for_again(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask's own `result(timeout)` spoils the client here: each later call raises UnboundLocalError."""
    monkeypatch.setattr(tasks, "RESULT_S", 0.05)
    first, second = client.map(abs, [-7, -8], pure=False)
    wait([first, second])
    with slow(client):
        assert result_of(first) is None
        assert result_of(second) is None
        assert result_of(first) is None
    monkeypatch.setattr(tasks, "RESULT_S", 30.0)
    assert [result_of(first), result_of(second)] == [(7,), (8,)]
    assert first not in tasks._FETCHES  # those of other tests, whose clients are lost, may never come
    assert second not in tasks._FETCHES


def test_what_cannot_be_fetched_is_lost(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    future = client.submit(abs, -9, pure=False)
    wait(future)

    async def gather(*_: object, **__: object) -> object:
        raise OSError("gone")

    monkeypatch.setattr(client, "gather", gather)
    (lost,) = result_of(future) or (None,)
    assert lost == tasks.Lost("the result was lost")
    assert future not in tasks._FETCHES
