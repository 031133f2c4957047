"""Heads: what they must learn and must not, the same bits for the same seed, and after any stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch

from tests.madebags import key_instances
from tilestream.errors import ConfigError, StageError
from tilestream.models.aggregators import AGGREGATORS
from tilestream.models.head import HeadRecord, load_head, new_head, read_record, save_head
from tilestream.pipelines.train_bags import HeldBags
from tilestream.pipelines.train_folds import cross_validation
from tilestream.pipelines.train_head import MEAN_FIRST
from tilestream.pipelines.train_scores import auc
from tilestream.torch.bags import BagFeed, Sample, batches_of
from tilestream.torch.train_head import Examples, FittedHead, HeadSettings, HeadTraining

SMALL = HeadSettings(params={"embed": 32, "hidden": 32}, epochs=60, patience=12, lr=3e-3)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # others would only wait for each other, and for the tests beside them
    yield
    torch.set_num_threads(before)


@pytest.fixture
def training(tmp_path) -> Callable[..., HeadTraining]:
    numbers = count()

    def make(bags, settings=SMALL, *, keep_bytes=1 << 30, fold=0, state=None, classes=2) -> HeadTraining:
        return HeadTraining(
            bags,
            feed=BagFeed(bags, device="cpu", keep_bytes=keep_bytes),
            settings=settings,
            classes=classes,
            state=state or tmp_path / f"{next(numbers)}.pt",
            recipe="r",
            fold=fold,
        )

    return make


def held(bags) -> HeldBags:
    names = tuple(f"s{number}" for number in range(len(bags)))
    return HeldBags(names=names, vectors=tuple(bag.astype(np.float32) for bag in bags))


def examples(numbers, labels) -> Examples:
    return Examples(numbers=np.asarray(numbers), labels=np.asarray(labels)[numbers])


def mean_auc(training, bags, labels, settings, folds) -> float:
    found = []
    for number, fold in enumerate(cross_validation(labels, np.arange(len(labels)), folds=folds, seed=settings.seed)):
        if len(fold.test):
            one = training(bags, settings, fold=number)
            fitted = one.fit(examples(fold.train, labels), examples(fold.val, labels), hear=lambda _: None)
            found.append(auc(one.predict(fitted, fold.test.tolist())[:, 1], labels[fold.test] == 1))
    return float(np.mean(found))


def test_attention_finds_the_one_vector_that_decides(training):
    labels = np.arange(80) % 2
    assert mean_auc(training, held(key_instances(80, tiles=10, dim=6)), labels, SMALL, 3) >= 0.95


def test_shuffled_labels_are_chance(training):
    bags, found = held(key_instances(80, tiles=10, dim=6)), []
    for seed in range(5):
        labels = np.random.default_rng(seed).permutation(np.arange(80) % 2)
        found.append(mean_auc(training, bags, labels, replace(SMALL, seed=seed, epochs=12), 3))
    assert abs(np.mean(found) - 0.5) <= 0.1


def bits(fitted: FittedHead) -> dict[str, bytes]:
    return {name: values.numpy().tobytes() for name, values in fitted.head.state_dict().items()}


SHORT = replace(SMALL, epochs=5, patience=0, params={"embed": 8, "hidden": 8, "dropout": 0.2})
LABELS = np.arange(20) % 2
TRAIN, VAL = examples(range(14), LABELS), examples(range(14, 20), LABELS)


@pytest.fixture(scope="module")
def few() -> HeldBags:
    return held(key_instances(20, tiles=6, dim=4))


def test_the_seed_decides_every_bit(training, few):
    outside = torch.get_rng_state()
    one, again, other = (
        training(few, replace(SHORT, seed=seed)).fit(TRAIN, VAL, hear=lambda _: None) for seed in (1, 1, 2)
    )
    assert bits(one) == bits(again)
    assert one.epochs == again.epochs
    assert bits(one) != bits(other)
    assert (torch.get_rng_state() == outside).all()  # that of the caller is left alone


@pytest.mark.parametrize("tiles_per_bag", [None, 4])
@pytest.mark.parametrize("stop", range(1, 6))
def test_killed_after_any_epoch_it_ends_with_the_same_bits(training, few, tmp_path, stop, tiles_per_bag):
    settings, state = replace(SHORT, tiles_per_bag=tiles_per_bag), tmp_path / "state.pt"
    whole = training(few, settings).fit(TRAIN, VAL, hear=lambda _: None)

    def kill(epoch):
        if epoch.epoch == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training(few, settings, state=state).fit(TRAIN, VAL, hear=kill, gap_s=0.0)
    made = []
    after = training(few, settings, state=state).fit(TRAIN, VAL, hear=lambda e: made.append(e.epoch), gap_s=1e9)
    assert made == [1, 2, 3, 4, 5]  # all are told again
    assert bits(after) == bits(whole)
    assert after.epochs == whole.epochs


def test_the_state_of_another_training_is_not_gone_on_with(training, few, tmp_path):
    state = tmp_path / "state.pt"
    training(few, SHORT, state=state).fit(TRAIN, VAL, hear=lambda _: None)
    other = training(few, replace(SHORT, seed=5), state=state)
    other._recipe = "another"
    fresh = training(few, replace(SHORT, seed=5)).fit(TRAIN, VAL, hear=lambda _: None)
    assert bits(other.fit(TRAIN, VAL, hear=lambda _: None)) == bits(fresh)


def test_what_is_kept_in_memory_changes_nothing(training, few):
    settings = replace(SHORT, tiles_per_bag=4)
    kept, some, none = (
        training(few, settings, keep_bytes=keep).fit(TRAIN, VAL, hear=lambda _: None) for keep in (1 << 20, 500, 0)
    )
    assert bits(kept) == bits(some) == bits(none)


def test_it_stops_when_validation_no_longer_gets_better(training, few):
    labels = np.random.default_rng(0).permutation(LABELS)  # nothing to learn
    train, val = examples(range(14), labels), examples(range(14, 20), labels)
    fitted = training(few, replace(SHORT, epochs=80, patience=3, lr=1e-2)).fit(train, val, hear=lambda _: None)
    assert len(fitted.epochs) == fitted.best.epoch + 3 < 80
    assert fitted.best.val_loss == min(epoch.val_loss for epoch in fitted.epochs)


def test_classes_count_alike(training):
    """Nine of ten slides are of one class; the rare one is still found."""
    bags = key_instances(60, tiles=6, dim=4)
    rare = [bag for number, bag in enumerate(bags) if number % 2][:6]
    many = [bag for number, bag in enumerate(bags) if not number % 2] + key_instances(24, classes=1, tiles=6, dim=4)
    labels = np.array([0] * 54 + [1] * 6)
    data, train = held([*many, *rare]), np.r_[0:36, 54:58]
    one = training(data, replace(SMALL, aggregator="mean", params=None, epochs=100, patience=0, lr=1e-2))
    fitted = one.fit(examples(train, labels), examples(np.r_[36:54, 58:60], labels), hear=lambda _: None)
    predicted = one.predict(fitted, list(range(60))).argmax(1)
    assert predicted[54:].mean() >= 0.8
    assert predicted[:54].mean() < 0.4


def test_values_that_are_not_finite_are_named(training):
    bags = key_instances(20, tiles=6, dim=4)
    bags[3][2, 1] = np.nan
    data = held(bags)
    moments = tuple((np.zeros(4), np.ones(4)) for _ in bags)
    with pytest.raises(StageError, match=r"features of `s3`: got NaN or infinity in 1 of \d+ vectors.*place 2"):
        training(replace(data, spread=moments), SHORT).fit(TRAIN, VAL, hear=lambda _: None)


def test_a_training_that_diverges_says_so(training, few):
    with pytest.raises(StageError, match=r"the loss in epoch \d.*Take smaller steps than 1e\+30: `--lr`"):
        training(few, replace(SHORT, lr=1e30)).fit(TRAIN, VAL, hear=lambda _: None)


@pytest.mark.parametrize("name", sorted(MEAN_FIRST))
def test_aggregators_that_begin_with_the_mean_need_nothing_else(name):
    head = new_head(name, {}, dim=5, classes=2).eval()
    rng = np.random.default_rng(0)
    head.standardise(rng.normal(size=5), 1 + rng.random(5))
    bag = torch.from_numpy(rng.normal(size=(1, 40, 5)).astype(np.float32))
    torch.testing.assert_close(head(bag), head(bag.mean(1, keepdim=True)))


def test_batches_hold_small_bags_together_and_large_ones_alone():
    bags = held([np.zeros((n, 1024)) for n in (10, 3000, 2000, 10, 10, 4500, 1)])
    assert batches_of(range(7), bags, most=3) == [[0], [1], [2, 3], [4], [5], [6]]
    assert batches_of(range(7), bags, most=3, sample=Sample(most=9, seed=(0,))) == [[0, 1, 2], [3, 4, 5], [6]]


def test_samples_are_of_all_vectors_and_new_each_epoch():
    one, again, later = (Sample(most=5, seed=(0, epoch)).of(3, 50) for epoch in (1, 1, 2))
    assert len(set(one)) == 5
    assert (np.diff(one) > 0).all()
    assert (one == again).all()
    assert (one != later).any()
    assert Sample(most=5, seed=(0,)).of(3, 5) is None


@pytest.mark.parametrize("name", sorted(AGGREGATORS))
def test_a_head_comes_back_from_its_file(tmp_path, name):
    torch.manual_seed(0)
    head = new_head(name, {}, dim=6, classes=3).eval()
    head.standardise(np.arange(6.0), np.array([1, 2, 0, 1, 1, 1.0]))
    record = HeadRecord(
        aggregator=name, params={}, dim=6, labels=("a", "ü", "c"), level="tile", encoder="uni", features={"digest": "d"}
    )
    save_head(tmp_path / "head.safetensors", head, record)
    found, known = load_head(tmp_path / "head.safetensors")
    assert known == record == read_record(tmp_path / "head.safetensors")
    bag = torch.randn(2, 7, 6)
    assert torch.equal(found(bag), head(bag))
    assert torch.isfinite(found(bag)).all()  # a value that never changes is no division by 0
    save_head(tmp_path / "again.safetensors", found, known)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "head.safetensors").read_bytes()
    if name == "abmil":
        assert found.forward_attention(bag).shape == (2, 7)
    else:
        with pytest.raises(ConfigError, match="weighs all vectors alike"):
            found.forward_attention(bag)


def test_what_is_no_head_is_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(OSError, match="expected a trained head"):
        read_record(tmp_path / "none")
    (tmp_path / "text").write_text("no safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    for name in ("text", "other"):
        with pytest.raises(OSError, match="no head of tilestream"):
            read_record(tmp_path / name)
    with pytest.raises(ConfigError, match=r"aggregator `clam`: got an unknown name"):
        new_head("clam", {}, dim=2, classes=2)
    with pytest.raises(ConfigError, match=r"aggregator `mean`: got .*hidden"):
        new_head("mean", {"hidden": 3}, dim=2, classes=2)
