"""The order of an epoch: every tile is somebody's, nobody has more than another, and all of it follows from numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tilestream.torch.order import EpochOrder, Share, UnitTable


def table(sizes):
    n = len(sizes)
    return UnitTable(image=np.arange(n) // 3, place_yx=np.stack([np.arange(n), np.arange(n)], 1), tiles=np.array(sizes))


def order_of(sizes, *, share=None, batch=4, window=10, ends="drop", seed=7, epoch=0):
    return EpochOrder(
        units=table(sizes), share=share or Share(), batch=batch, window=window, ends=ends, seed=seed, epoch=epoch
    )


def tiles_of(order, most=5):
    """Unit and tile of all that a share reads, in the order in which it shows them."""
    found = []
    for number in range(order.windows):
        pieces = order.pieces(number, most)
        assert all(len(piece.tiles) <= most for piece in pieces)
        line = [(piece.iy, tile) for piece in pieces for tile in piece.tiles]
        shown = order.shuffled(number)
        assert sorted(shown.tolist()) == list(range(len(line)))
        assert len(line) <= order.window
        found += [line[place] for place in shown]
    return found


SIZES = st.lists(st.integers(1, 23), min_size=1, max_size=12)
SHARES = st.tuples(st.integers(1, 4), st.integers(1, 3))


@given(sizes=SIZES, shares=SHARES, ends=st.sampled_from(["drop", "pad", "keep"]), seed=st.sampled_from([None, 0, 5]))
def test_ranks_and_workers_share_all_tiles(sizes, shares, ends, seed):
    ranks, workers = shares
    total = sum(sizes)
    if total < ranks:
        return
    everything = {(unit, tile) for unit, size in enumerate(sizes) for tile in range(size)}
    seen, batches = Counter(), []
    for rank in range(ranks):
        whole = order_of(sizes, share=Share(rank=rank, ranks=ranks), ends=ends, seed=seed)
        parts = [
            order_of(sizes, share=Share(rank=rank, ranks=ranks, worker=w, workers=workers), ends=ends, seed=seed)
            for w in range(workers)
        ]
        assert sum(part.batches for part in parts) == whole.batches
        own = Counter(tile for part in parts for tile in tiles_of(part))
        assert own == Counter(tiles_of(whole))
        seen.update(own)
        batches.append(whole.batches)
    assert set(seen) <= everything
    if ends == "keep":
        assert seen == Counter(everything)
        assert max(batches) - min(batches) <= 1
    else:
        assert len(set(batches)) == 1
    if ends == "pad":
        assert set(seen) == everything
        assert sum(seen.values()) - total < ranks
        assert batches[0] * 4 >= -(-total // ranks)
    if ends == "drop":
        assert max(seen.values(), default=0) <= 1
        assert total - sum(seen.values()) < ranks
        assert batches[0] == total // ranks // 4


@given(sizes=SIZES, seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_an_order_is_a_function_of_seed_and_epoch(sizes, seed, epoch):
    one, other = (order_of(sizes, seed=seed, epoch=epoch) for _ in range(2))
    assert tiles_of(one) == tiles_of(other, most=9)


def test_each_epoch_and_seed_has_an_order_of_its_own():
    orders = [tiles_of(order_of([9] * 20, seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9
    # ranks get other super-tiles each epoch, not only another order of the same
    share = Share(rank=0, ranks=2)
    first, second = ({unit for unit, _ in tiles_of(order_of([9] * 20, share=share, epoch=epoch))} for epoch in (0, 1))
    assert first != second


def test_without_shuffling_tiles_come_as_they_lie():
    sizes = [3, 5, 2, 20]
    everything = [(unit, tile) for unit, size in enumerate(sizes) for tile in range(size)]
    assert tiles_of(order_of(sizes, seed=None)) == everything


def test_tiles_near_each_other_come_from_several_super_tiles():
    shown = tiles_of(order_of([16] * 64, window=128, seed=1))
    mixed = [len({unit for unit, _ in shown[first : first + 16]}) for first in range(0, len(shown), 16)]
    assert np.mean(mixed) > 5  # eight super-tiles a window


def test_seeds_of_batches_differ():
    seeds = [
        order_of([9] * 20, share=Share(rank=rank, ranks=2), epoch=epoch).seed_of(batch)
        for rank in range(2)
        for epoch in range(3)
        for batch in range(20)
    ]
    assert len(set(seeds)) == 120
    assert all(0 <= seed < 2**63 for seed in seeds)
