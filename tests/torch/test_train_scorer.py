"""Scorers: what they must find, the same bits for the same seed and after any stop, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import tilestream as ts
from tests.madebags import key_instances
from tilestream.errors import ConfigError, SourceError, StageError
from tilestream.models.scorer import load_scorer, read_scorer, together_of
from tilestream.pipelines.train_scores import auc
from tilestream.torch.train_scorer import Kept, ScorerSettings

FAST = ScorerSettings(epochs=6, batch=32, width=8)


def spots(count: int, *, seed: int = 0, share: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Tiles of noise, some with a bright square in a place of its own."""
    rng = np.random.default_rng(seed)
    tiles = rng.integers(0, 120, (count, 3, 16, 16), dtype=np.uint8)
    labels = rng.random(count) < share
    for number in np.flatnonzero(labels):
        y, x = rng.integers(0, 13, 2)
        tiles[number, :, y : y + 3, x : x + 3] = 220
    return tiles, labels


def test_a_scorer_of_pixels_finds_rare_tiles_that_it_has_not_seen():
    tiles, labels = spots(300)
    scorer = ts.torch.train_scorer(tiles, labels, settings=replace(FAST, epochs=8))
    other, known = spots(200, seed=1)
    scores = scorer(other)
    assert scores.shape == (200,)
    assert scores.dtype == np.float32
    assert auc(scores, known) > 0.98


def key_bags(count: int, *, seed: int = 0) -> tuple[list[ts.torch.ScorerBag], np.ndarray, list[int]]:
    """Bags of 40 vectors; those of class 1 have one tile that says so in its coarse vector, and in its fine one."""
    rng = np.random.default_rng(seed)
    bags, keys = [], []
    for number in range(count):
        coarse, fine = rng.normal(size=(40, 4)).astype(np.float32), rng.normal(size=(40, 3)).astype(np.float32)
        key = int(rng.integers(40))
        coarse[key, 0] += 4  # of either class: it says where to look, not what is there
        fine[key, 1] += 6 * (number % 2) - 3
        bags.append(ts.torch.ScorerBag(tiles=coarse, look=lambda rows, fine=fine: fine[rows]))
        keys.append(key)
    return bags, np.arange(count) % 2, keys


BAGS = ScorerSettings(epochs=12, width=8, k=4, lr=2e-2, draws=30)


@pytest.mark.parametrize("method", ["attention", "topk"])
def test_from_labels_of_bags_alone_it_learns_where_to_look(method):
    bags, labels, _ = key_bags(50)
    scorer = ts.torch.train_scorer_on_bags(bags, labels, settings=replace(BAGS, method=method))
    others, _, keys = key_bags(20, seed=1)
    ranks = [int((scorer(bag.tiles) > scorer(bag.tiles)[key]).sum()) for bag, key in zip(others, keys, strict=True)]
    assert np.mean(np.asarray(ranks) < 4) > 0.85  # by chance 0.1


@pytest.mark.parametrize("method", ["attention", "topk"])
def test_a_vector_that_stands_out_is_not_told_from_where_it_is_not_looked(method):
    # scores brought to one spread by bag tell of it without that it is ever chosen: it then has the lowest
    made = key_instances(16, tiles=12, dim=4, key=20, seed=2)
    bags = [ts.torch.ScorerBag(tiles=bag.astype(np.float32)) for bag in made]
    settings = ScorerSettings(method=method, epochs=30, k=4, lr=0.01, seed=2)
    scorer = ts.torch.train_scorer_on_bags(bags, np.arange(16) % 2, settings=settings)
    for bag in key_instances(20, tiles=12, dim=4, key=20, seed=102)[1::2]:
        scores = scorer(bag.astype(np.float32))
        assert (scores > scores[bag[:, 1].argmax()]).sum() <= 1


@pytest.mark.parametrize("method", ["attention", "topk"])
def test_no_more_tiles_are_looked_at_than_were_chosen(method):
    bags, labels, _ = key_bags(10)
    asked: list[np.ndarray] = []

    def counted(look):
        return lambda rows: (asked.append(rows), look(rows))[1]

    heard = [ts.torch.ScorerBag(tiles=bag.tiles, look=counted(bag.look)) for bag in bags]
    settings = replace(BAGS, method=method, epochs=2, k=3, draws=5)
    ts.torch.train_scorer_on_bags(heard, labels, settings=settings)
    most = 3 if method == "attention" else 3 * 5
    assert all(len(rows) <= most and (np.diff(rows) > 0).all() for rows in asked)


def test_a_bag_of_many_tiles_teaches_the_same_in_parts(monkeypatch):
    bags, labels, _ = key_bags(6)
    whole = ts.torch.train_scorer_on_bags(bags, labels, settings=replace(BAGS, epochs=3))
    monkeypatch.setattr("tilestream.torch.scorer_objectives.KEPT", 7)
    parts = ts.torch.train_scorer_on_bags(bags, labels, settings=replace(BAGS, epochs=3))
    np.testing.assert_allclose(parts(bags[0].tiles), whole(bags[0].tiles), atol=1e-3)


def bits(scorer) -> dict[str, bytes]:
    return {name: values.numpy().tobytes() for name, values in scorer.network.state_dict().items()}


def by_tiles(settings, **how):
    return ts.torch.train_scorer(*spots(60, share=0.3), settings=settings, **how)


def by_bags(settings, **how):
    return ts.torch.train_scorer_on_bags(*key_bags(10)[:2], settings=replace(settings, k=3, draws=8), **how)


KINDS = pytest.mark.parametrize(
    ("train", "method"), [(by_tiles, "attention"), (by_bags, "attention"), (by_bags, "topk")]
)
SHORT = replace(FAST, epochs=4)


@KINDS
def test_the_seed_decides_every_bit_and_leaves_the_callers_chance_alone(train, method):
    outside = torch.get_rng_state()
    one, again, other = (train(replace(SHORT, method=method, seed=seed)) for seed in (1, 1, 2))
    assert bits(one) == bits(again)
    assert bits(one) != bits(other)
    assert (torch.get_rng_state() == outside).all()


@KINDS
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_killed_after_any_epoch_it_ends_with_the_same_bits(train, method, stop, tmp_path):
    settings, kept = replace(SHORT, method=method), Kept(state=tmp_path / "state.pt", recipe="r")
    whole, heard = train(settings), []

    def kill(epoch):
        if epoch.epoch == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, kept=kept, hear=kill)
    assert bits(train(settings, kept=kept, hear=heard.append)) == bits(whole)
    assert [epoch.epoch for epoch in heard] == [1, 2, 3, 4]
    other = replace(kept, recipe="another")
    assert bits(train(replace(settings, seed=5), kept=other)) == bits(train(replace(settings, seed=5)))


@pytest.mark.parametrize("train", [by_tiles, by_bags])
def test_a_file_gives_the_same_scorer_and_the_same_bytes(train, tmp_path):
    scorer = train(SHORT, about={"downsample": 8.0})
    for name in ("a", "b"):
        scorer.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = load_scorer(tmp_path / "a")
    assert loaded.record == read_scorer(tmp_path / "b")
    assert loaded.record.downsample == 8
    tiles = spots(9)[0] if train is by_tiles else key_bags(1)[0][0].tiles
    assert loaded(tiles).tobytes() == scorer(tiles).tobytes()


@pytest.mark.parametrize("train", [by_tiles, by_bags])
def test_the_score_of_a_tile_does_not_depend_on_the_others(train):
    scorer = train(SHORT)
    tiles = spots(150)[0] if train is by_tiles else np.concatenate([bag.tiles for bag in key_bags(4)[0]])
    together = scorer(tiles)
    for first, last in ((0, 1), (3, 70), (149, 150), (10, 150)):
        assert scorer(tiles[first:last]).tobytes() == together[first:last].tobytes()
    assert scorer(tiles[:0]).shape == (0,)


@pytest.mark.parametrize(("px", "together"), [(8, 64), (48, 28), (200, 1)])
def test_the_more_pixels_a_tile_has_the_fewer_go_through_at_once(px, together):
    tiles = np.random.default_rng(px).integers(0, 256, (5, 3, px, px), np.uint8)
    scorer = by_tiles(SHORT)
    assert together_of(tiles.shape[1:]) == together
    assert scorer(tiles).tobytes() == b"".join(scorer(tile[None]).tobytes() for tile in tiles)


TILES, LABELS = spots(20, share=0.5)


@pytest.mark.parametrize(
    ("tiles", "labels", "told"),
    [
        (TILES, LABELS[:5], "one a tile"),
        (TILES, LABELS * 2.0, "0 to 1"),
        (TILES, LABELS * np.nan, "0 to 1"),
        (TILES, np.zeros(20), "one kind only"),
        (TILES[:, :, :4, :4], LABELS, "at least 8 px"),
        (TILES[:, 0], LABELS, "vectors"),
        (np.full((20, 3), np.nan), LABELS, "not finite"),
    ],
)
def test_tiles_that_nothing_can_be_learned_from_are_refused(tiles, labels, told):
    with pytest.raises(ConfigError, match=told):
        ts.torch.train_scorer(tiles, labels)


def test_bags_that_nothing_can_be_learned_from_are_refused():
    bags, labels, _ = key_bags(4)
    with pytest.raises(ConfigError, match="two classes"):
        ts.torch.train_scorer_on_bags(bags, np.zeros(4))
    with pytest.raises(ConfigError, match="one a bag"):
        ts.torch.train_scorer_on_bags(bags, labels[:2])
    with pytest.raises(ConfigError, match="one shape"):
        ts.torch.train_scorer_on_bags([*bags[:3], ts.torch.ScorerBag(tiles=np.zeros((3, 5), np.float32))], labels)


def test_a_loss_that_leaves_the_numbers_says_what_to_do():
    with pytest.raises(StageError, match="--lr"):
        by_tiles(replace(SHORT, lr=1e30))


@pytest.mark.parametrize("wrong", [{"lr": 0}, {"k": 0}, {"held_out": 1}, {"method": "best"}, {"sigma": 0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ScorerSettings(**wrong)


def test_tiles_of_another_kind_are_refused(tmp_path):
    scorer = by_tiles(SHORT)
    for tiles in (TILES.astype(np.uint16), TILES[:, :2], TILES[:, 0], TILES[..., :4, :4]):
        with pytest.raises(ConfigError, match="trained on"):
            scorer(tiles)
    (tmp_path / "text").write_text("no scorer")
    (tmp_path / "folder").mkdir()
    for name, told in (("nothing", "scorer"), ("text", "scorer"), ("folder", "a folder")):
        with pytest.raises(SourceError, match=told):
            load_scorer(tmp_path / name)
