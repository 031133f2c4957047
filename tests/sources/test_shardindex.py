"""Kept indexes: their budget under many threads, after a fork, and what a process must make again."""

from __future__ import annotations

import os
import pickle
import signal
import threading

import numpy as np
import psutil
import pytest
import zarr

from tests.sources.assembled import whole_level
from tilestream.metrics import collect
from tilestream.sources import shardindex
from tilestream.sources.files import File, FileVersion
from tilestream.sources.opening import open_source
from tilestream.sources.shardindex import ENTRY_BYTES, ShardIndex, ShardIndexes

CHILD_S = 20


@pytest.fixture
def store(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (512, 512)).astype("uint8")
    zarr.create_array(tmp_path / "a.zarr", data=values, chunks=(32, 32), shards=(64, 64))
    return tmp_path / "a.zarr", values


def index(entries):
    table = np.zeros((entries, 2), np.uint64)
    return ShardIndex(file=File(url="none"), version=FileVersion(size_bytes=0, marks=()), table=table)


def test_the_budget_holds_under_32_threads():
    kept = ShardIndexes(lambda: 20 * ENTRY_BYTES)
    seen = []

    def use(seed):
        numbers = np.random.default_rng(seed).integers(0, 200, 400)
        for number in numbers.tolist():
            found = kept.get(("store", str(number)), lambda number=number: index(number % 40 + 1))
            assert found is not None
            assert len(found.table) == number % 40 + 1
            seen.append(kept.held_bytes)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 32 * 400
    assert max(seen) <= 20 * ENTRY_BYTES + 32 * (ENTRY_BYTES + 40 * 16)  # what is just being put in
    assert kept.held_bytes <= kept.budget_bytes


def test_an_index_that_is_larger_than_its_share_is_not_kept():
    kept = ShardIndexes(lambda: 4 * ENTRY_BYTES)
    assert kept.get(("store", "0"), lambda: index(1000)) is not None
    assert kept.held_bytes == 0
    assert kept.get(("store", "1"), lambda: None) is None
    assert kept.held_bytes == 0


def test_an_index_is_read_once(store):
    path, values = store
    source = open_source(str(path))
    with collect() as meter:
        np.testing.assert_array_equal(whole_level(source)[0][..., 0], values)
    first = meter.counts["bytes_read"]
    with collect() as meter:
        whole_level(source)
    index_bytes = 64 * (4 * 16 + 4)  # shards, and in each four entries and a checksum
    assert meter.counts["bytes_read"] == first - index_bytes
    again = pickle.loads(pickle.dumps(source))
    with collect() as meter:
        whole_level(again)
    assert meter.counts["bytes_read"] == first - index_bytes


def test_records_are_small_and_no_handle_is_left(store, no_file_leaks):
    path, values = store
    source = open_source(str(path))
    whole_level(source)
    assert len(pickle.dumps(source)) < 3000
    before = psutil.Process().num_fds()
    for _ in range(3):
        np.testing.assert_array_equal(whole_level(pickle.loads(pickle.dumps(source)))[0][..., 0], values)
    assert psutil.Process().num_fds() <= before
    from tilestream.sources.files import _handles

    _handles.reset()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_reads_while_the_parents_lock_is_held(store):
    """As torch's DataLoader forks in the middle of things; zarrs-python deadlocks there."""
    path, values = store
    source = open_source(str(path))
    whole_level(source)
    with shardindex.indexes._kept.lock:
        child = os.fork()
        if not child:
            signal.alarm(CHILD_S)
            good = bool((whole_level(source)[0][..., 0] == values).all())
            os._exit(0 if good else 1)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    np.testing.assert_array_equal(whole_level(source)[0][..., 0], values)


def test_many_threads_read_one_source(store, no_thread_leaks):
    path, values = store
    source = open_source(str(path))
    failed = []

    def read():
        if not (whole_level(source)[0][..., 0] == values).all():
            failed.append(1)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
