"""`ts.torch.TileDataset`: the right pixels under the right labels, resumed to the bit, and no process that hangs."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import tilestream as ts
from tests.pipelines.holed import holed
from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.torch import PlannedImage, TileBatch, TileDataset, dataset

TOTAL = 8 * 7 + 8 * 10
pytestmark = pytest.mark.usefixtures("no_thread_leaks")


def feed_of(images, **options):
    return TileDataset(images, **{"batch": 16, "window": 40, "threads": 2} | options)


def key_of(batch):
    return list(zip(batch.image.tolist(), batch.row.tolist(), strict=True))


def same(one, other):
    return len(one) == len(other) and all(
        a.seed == b.seed and all(x is y or torch.equal(x, y) for x, y in zip(a[:-1], b[:-1], strict=True))
        for a, b in zip(one, other, strict=True)
    )


def small_image(*, damaged=(), valid=None, seed=0, **options):
    """An image of 64 tiles of 32 px in blocks of 64 px."""
    pixels = np.random.default_rng(seed).integers(0, 256, (256, 256, 3), np.uint8)
    pyramid = holed(pixels, np.ones((256, 256), bool) if valid is None else valid, damaged=damaged, block_px=64)
    plan = ts.plan_tiles(pyramid, tile_px=32, where="all", super_tile_px=128)
    return PlannedImage(pyramid=pyramid, plan=plan, **options)


def test_tiles_are_those_of_the_images_with_their_labels(images):
    seen = []
    for batch in feed_of(images, ends="keep"):
        assert isinstance(batch, TileBatch)
        assert batch.pixels.dtype == torch.uint8
        assert batch.pixels.shape[1:] == (3, 64, 64)
        assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch.label, batch.image)
        seen += key_of(batch)
        for pixels, (image, row), (y, x) in zip(batch.pixels, key_of(batch), batch.yx.tolist(), strict=True):
            box = ts.Box(level=0, y=y, x=x, height=64, width=64)
            np.testing.assert_array_equal(pixels.numpy(), images[image].pyramid.read_region(box).pixels)
            unit = next(unit for unit in images[image].plan.start() if row in unit.rows)
            assert unit.tile_yx[row - unit.first_row].tolist() == [y, x]
    assert sorted(seen) == [(n, row) for n, image in enumerate(images) for row in range(len(image.plan))]
    assert len(seen) == TOTAL


@pytest.mark.parametrize(("ends", "batches"), [("drop", 2), ("pad", 3), ("keep", 3)])
def test_ranks_have_equal_numbers_of_full_batches(images, ends, batches):
    seen = []
    for rank in range(3):
        feed = feed_of(images, ends=ends, rank=rank, world_size=3)
        found = list(feed)
        assert len(found) == len(feed) == batches
        assert ends == "keep" or all(len(batch.pixels) == 16 for batch in found)
        seen += [key for batch in found for key in key_of(batch)]
    assert len(set(seen)) == (96 if ends == "drop" else TOTAL)
    assert ends == "pad" or len(set(seen)) == len(seen)


def test_epochs_differ_and_can_be_repeated(images):
    feed = feed_of(images)
    first = list(feed)
    assert same(first, list(feed))
    feed.set_epoch(1)
    second = list(feed)
    assert [key_of(batch) for batch in first] != [key_of(batch) for batch in second]
    feed.set_epoch(0)
    assert same(first, list(feed))
    assert same(first, list(feed_of(images, threads=1)))
    assert not same(first, list(feed_of(images, seed=1)))


@pytest.mark.parametrize("ends", ["drop", "pad", "keep"])
def test_resumed_after_any_batch_the_rest_is_the_same_to_the_bit(images, ends):
    feed = feed_of(images, ends=ends, transform=noisy)
    feed.set_epoch(3)
    whole, states = [], [feed.state_dict()]
    for batch in feed:
        whole.append(batch)
        states.append(feed.state_dict())
    for done in (0, 1, 3, len(states) - 1):
        again = feed_of(images, ends=ends, transform=noisy)
        again.load_state_dict(pickle.loads(pickle.dumps(states[done])))
        assert again.epoch == 3
        again.set_epoch(3)  # as a training loop does
        rest = list(again)
        assert len(rest) == len(whole) - done
        assert all(torch.equal(one, other) for one, other in zip(rest, whole[done:], strict=True))
    assert len(list(again)) == len(whole)  # and the next pass is a whole one


def noisy(batch):
    generator = torch.Generator().manual_seed(batch.seed)
    return batch.pixels.flatten(1).double().mean(1) + torch.rand(len(batch.pixels), generator=generator)


def test_a_state_of_something_else_is_refused(images):
    state = feed_of(images).state_dict()
    for other, name in (
        (feed_of(images, batch=8), "order"),
        (feed_of(images, seed=2), "order"),
        (feed_of(images[:1]), "order"),
        (feed_of(images, rank=1, world_size=2), "share"),
    ):
        with pytest.raises(ConfigError, match=f"state of a `TileDataset`: got {name} "):
            other.load_state_dict(state)
    with pytest.raises(ConfigError, match="got format None"):
        feed_of(images).load_state_dict({})


def test_damaged_and_empty_tiles_are_left_out_counted_and_replaced():
    valid = np.ones((256, 256), bool)
    valid[:32, :64] = False
    images = [small_image(damaged=((1, 1), (3, 2)), valid=valid), small_image(seed=1)]
    feed = TileDataset(images, batch=16, window=48, threads=2)
    found = list(feed)
    assert [len(batch.pixels) for batch in found] == [16] * 8
    assert feed.left_out["no valid pixel"] == 2
    assert sum(feed.left_out.values()) == 10
    assert feed.repeated == 10
    keys = {key for batch in found for key in key_of(batch)}
    assert len(keys) == 118
    plain = TileDataset(images, batch=16, window=48, threads=2, ends="keep")
    kept = [key for batch in plain for key in key_of(batch)]
    assert set(kept) == keys
    assert len(kept) == 118
    # a place in the repeated part is a place too
    whole, states = [], []
    for batch in feed:
        whole.append(batch)
        states.append(feed.state_dict())
    again = TileDataset(images, batch=16, window=48, threads=2)
    again.load_state_dict(states[-2])
    assert same(list(again), whole[-1:])
    assert again.left_out == feed.left_out
    assert again.repeated == feed.repeated


@pytest.mark.parametrize("ends", ["drop", "pad", "keep"])
def test_a_state_taken_after_the_last_batch_leaves_nothing_of_the_epoch(ends):
    """With `keep`, tiles that were left out make it end before its last batch."""
    images = [small_image(damaged=((0, 1), (2, 2))), small_image(seed=1, damaged=((0, 1), (2, 2)))]
    options = {"batch": 7, "window": 25, "threads": 2, "ends": ends, "rank": 0, "world_size": 3}
    feed = TileDataset(images, **options)
    whole = list(feed)
    assert ends != "keep" or len(whole) < len(feed)
    again = TileDataset(images, **options)
    again.load_state_dict(feed.state_dict())
    assert list(again) == []
    assert again.left_out == feed.left_out
    assert same(list(again), whole)


def test_partly_valid_tiles_say_so():
    valid = np.ones((256, 256), bool)
    valid[:8] = False
    (shares,) = (
        [batch.valid_share for batch in TileDataset([small_image(valid=valid)], batch=64, window=64, shuffle=False)],
    )
    assert sorted(shares[0].tolist()) == [0.75] * 8 + [1.0] * 56


def test_images_of_which_nothing_can_be_read_are_an_error():
    image = small_image(damaged=tuple((y, x) for y in range(4) for x in range(4)))
    with pytest.raises(DamagedError, match="none of the tiles that this process is to show can be read"):
        list(TileDataset([image], batch=16, window=32))
    assert list(TileDataset([image], batch=16, window=32, ends="keep")) == []


def test_an_image_that_changes_is_an_error(slides, tmp_path):
    path = tmp_path / "mine.svs"
    path.write_bytes(slides[0].read_bytes())
    pyramid = ts.open_pyramid(str(path))
    image = PlannedImage(pyramid=pyramid, plan=ts.plan_tiles(pyramid, tile_px=64, where="all", super_tile_px=256))
    feed = feed_of([image], batch=4, window=4)  # more than is read ahead
    batches = iter(feed)
    next(batches)
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceError, match="changed"):
        list(batches)
    path.unlink()
    with pytest.raises(SourceError):
        list(feed)


def test_labels_may_be_arrays_and_belong_to_tiles(images):
    many = np.arange(2 * len(images[1].plan), dtype=np.float64).reshape(-1, 2)
    labelled = [replace(images[0], label=[0.5, 0.25]), replace(images[1], tile_labels=many)]
    for batch in feed_of(labelled):
        assert batch.label.dtype == torch.float32
        for label, (image, row) in zip(batch.label.tolist(), key_of(batch), strict=True):
            assert label == ([0.5, 0.25] if image == 0 else many[row].tolist())
    unlabelled = [replace(image, label=None) for image in images]
    assert next(iter(feed_of(unlabelled))).label is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, "labels for 1 of 2 images"),
        ({"label": "tumour"}, "map classes to 0, 1, 2"),
        ({"label": [1, 2]}, "shapes"),
        ({"tile_labels": np.zeros(3)}, "3 for the 56 tiles of image 0"),
    ],
)
def test_labels_that_cannot_be_are_refused(images, change, message):
    with pytest.raises(ConfigError, match=message):
        feed_of([replace(images[0], **change), images[1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch=0"),
        ({"window": 8}, "window of at least a batch"),
        ({"ends": "stop"}, "ends one of"),
        ({"seed": -1}, "seed of 0 or more"),
        ({"rank": 1}, "both, or neither"),
        ({"rank": 2, "world_size": 2}, "a rank from 0"),
        ({"rank": 0, "world_size": 9, "window": 64, "batch": 64}, "136 for 9 ranks"),
        ({"device": "meta"}, "device `meta`"),
    ],
)
def test_options_that_cannot_be_met_are_refused(images, options, message):
    with pytest.raises(ConfigError, match=message):
        feed_of(images, **options)


def test_images_have_to_be_of_one_kind(images):
    with pytest.raises(ConfigError, match=r"image 1 .*tiles of 32 px.*tiles of 64 px"):
        feed_of([images[0], small_image(label=1)])
    with pytest.raises(ConfigError, match="got none"):
        feed_of([])


def test_one_iteration_at_a_time(images):
    feed = feed_of(images)
    first = iter(feed)
    next(first)
    second = iter(feed)
    next(second)
    with pytest.raises(ConfigError, match="one that another has taken the place of"):
        next(first)
    second.close()


def test_an_iteration_that_is_dropped_ends_its_threads(images):
    feed = feed_of(images)
    next(iter(feed))
    del feed


def test_an_interpreter_may_end_in_the_middle(slides):
    code = f"""
import tilestream as ts
pyramid = ts.open_pyramid({str(slides[0])!r})
image = ts.torch.PlannedImage(pyramid=pyramid, plan=ts.plan_tiles(pyramid, tile_px=64, where="all"))
batches = iter(ts.torch.TileDataset([image], batch=8, window=16))
next(batches)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_a_data_loader_without_workers_hands_batches_on(images):
    feed = feed_of(images)
    loaded = list(DataLoader(feed, batch_size=None))
    assert same(loaded, list(feed))
    assert isinstance(loaded[0], TileBatch)


def test_workers_that_are_spawned_share_the_tiles(images):
    feed = feed_of(images)
    loader = DataLoader(feed, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    batches = list(loader)
    assert len(batches) == len(feed) == 8
    keys = [key for batch in batches for key in key_of(batch)]
    assert len(set(keys)) == len(keys) == 128


def test_a_fork_after_use_is_an_error_and_never_hangs(slides):
    code = f"""
import tilestream as ts
from torch.utils.data import DataLoader
pyramid = ts.open_pyramid({str(slides[0])!r})
image = ts.torch.PlannedImage(pyramid=pyramid, plan=ts.plan_tiles(pyramid, tile_px=64, where="all"))
feed = ts.torch.TileDataset([image], batch=8)
next(iter(feed))
try:
    list(DataLoader(feed, batch_size=None, num_workers=2, multiprocessing_context="fork"))
except ts.errors.ConfigError as error:
    print(str(error).splitlines()[-1])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "forked from the one that it was made in" in done.stdout, done.stderr
    assert "num_workers=0" in done.stdout


def test_workers_do_not_take_a_state_of_another_number_of_workers(images, monkeypatch):
    feed = feed_of(images)
    with closing(iter(feed)) as batches:
        next(batches)
        state = feed.state_dict()
    feed.load_state_dict(state)
    monkeypatch.setattr(dataset, "get_worker_info", lambda: SimpleNamespace(id=1, num_workers=2))
    with pytest.raises(ConfigError, match=r"got that of Share\(rank=0, ranks=1, worker=0, workers=1\)"):
        iter(feed)
    with pytest.raises(ConfigError, match="got share"):
        feed_of(images).load_state_dict(state)
    own = feed_of(images)
    batches = list(own)
    assert len(batches) == 4
    again = feed_of(images)
    again.load_state_dict({**own.state_dict(), "place": {**own.state_dict()["place"], "batch": 4}})
    assert list(again) == []


@pytest.mark.parametrize(("ends", "left"), [("drop", 8), ("pad", 0), ("keep", 0)])
def test_its_repr_says_what_an_epoch_shows(images, ends, left):
    feed = feed_of(images, ends=ends, rank=1, world_size=4)
    said = f"{TOTAL} tiles of 64 px: rank 1 of 4, {len(feed)} batches of 16 an epoch"
    assert repr(feed) == f"<TileDataset of 2 images, {said}; ends={ends!r} leaves out {left} tiles>"


def test_distributed_says_which_rank_it_is(images, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert same(list(feed_of(images)), list(feed_of(images, rank=1, world_size=2)))


def test_without_torch_it_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None; import tilestream as ts; ts.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install -e '.[torch]'" in done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_come_to_the_device(images):
    feed = feed_of(images, device="cuda:0")
    found = list(feed)
    assert all(part.is_cuda for batch in found for part in batch[:-1])
    host = list(feed_of(images))
    for one, other in zip(found, host, strict=True):
        assert all(torch.equal(a.cpu(), b) for a, b in zip(one[:-1], other[:-1], strict=True))
