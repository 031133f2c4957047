"""AUC and its intervals: against definitions computed the slow way, and against how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tilestream.pipelines.train_scores import area, auc, balanced_accuracy


def pairs(scores, positive):
    """By the definition: all pairs, ties half."""
    differences = scores[positive][:, None] - scores[~positive][None]
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))


def two(scores):
    return np.stack([-scores, scores], 1)


def drawn(rng, n, shift):
    labels = np.arange(n) % 2
    return rng.normal(labels * shift), labels


@pytest.mark.parametrize("seed", range(3))
def test_auc_is_the_share_of_pairs(seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 6, 31).astype(float), rng.integers(0, 2, 31)
    assert auc(scores, labels == 1) == pytest.approx(pairs(scores, labels == 1), abs=1e-12)


def test_the_deviation_is_delongs():
    """The variance from placement values as the paper has it: S10/m + S01/n."""
    scores, labels = drawn(np.random.default_rng(3), 60, 1.0)
    one, other = scores[labels == 1], scores[labels == 0]
    v10 = [np.mean((x > other) + 0.5 * (x == other)) for x in one]
    v01 = [np.mean((one > y) + 0.5 * (one == y)) for y in other]
    sigma = np.sqrt(np.var(v10, ddof=1) / len(v10) + np.var(v01, ddof=1) / len(v01))
    found = area(two(scores), labels, np.arange(60))
    half = stats.norm.ppf(0.975) * sigma / (found.value * (1 - found.value))
    assert found.method == "delong"
    assert np.log(found.high / (1 - found.high)) - np.log(found.value / (1 - found.value)) == pytest.approx(half)
    assert found.low < found.value < found.high


@pytest.mark.parametrize(("shift", "n"), [(1.0, 40), (1.5, 80)])
def test_the_interval_holds_the_truth_as_often_as_it_says(shift, n):
    rng = np.random.default_rng(0)
    truth = stats.norm.cdf(shift / np.sqrt(2))
    found = [area(two(scores), labels, np.arange(n)) for scores, labels in (drawn(rng, n, shift) for _ in range(300))]
    held = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.91 <= held <= 0.99


def test_slides_of_one_patient_widen_the_interval():
    scores, labels = drawn(np.random.default_rng(1), 40, 1.0)
    alone = area(two(scores), labels, np.arange(40))
    copied = area(np.repeat(two(scores), 3, 0), np.repeat(labels, 3), np.repeat(np.arange(40), 3))
    believed = area(np.repeat(two(scores), 3, 0), np.repeat(labels, 3), np.arange(120))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), abs=0.002)  # copies tell nothing new
    assert believed.high - believed.low < 0.7 * (alone.high - alone.low)


def test_classes_that_are_apart_are_no_certainty():
    labels = np.arange(20) % 2
    found = area(two(labels.astype(float)), labels, np.arange(20))
    assert (found.value, found.high, found.method) == (1.0, 1.0, "newcombe")
    assert 0.7 < found.low < 0.95
    more = np.arange(200) % 2
    assert found.low < area(two(more.astype(float)), more, np.arange(200)).low < 1
    worst = area(two(-labels.astype(float)), labels, np.arange(20))
    assert (worst.value, worst.low) == (0.0, 0.0)
    assert worst.high == pytest.approx(1 - found.low, abs=1e-6)


def test_several_classes_are_each_against_the_rest():
    rng = np.random.default_rng(2)
    labels = np.arange(60) % 3
    scores = rng.normal(size=(60, 3)) + np.eye(3)[labels]
    found = area(scores, labels, np.arange(60), seed=1)
    assert found.value == pytest.approx(np.mean([pairs(scores[:, k], labels == k) for k in range(3)]))
    assert found.method == "bootstrap"
    assert found.low < found.value < found.high
    assert found == area(scores, labels, np.arange(60), seed=1)
    apart = area(np.eye(3)[labels], labels, np.arange(60))
    assert apart.value == 1
    assert apart.low < 1


def test_balanced_accuracy_is_no_better_for_the_frequent_class():
    labels = np.array([0] * 90 + [1] * 10)
    assert balanced_accuracy(np.zeros(100, np.int64), labels) == 0.5
    assert balanced_accuracy(labels, labels) == 1.0
