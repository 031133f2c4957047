"""Folds: no patient on two sides, each class in its share on each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilestream.pipelines.train_folds import TooFewError, cross_validation, require_whole_groups, stratified


@st.composite
def cohorts(draw):
    """Patients of one to three slides, mostly of one class; enough of each class."""
    classes, patients = draw(st.integers(2, 3)), draw(st.integers(20, 40))
    seed = draw(st.integers(0, 2**20))
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    labels = (np.arange(patients) % classes)[groups]
    odd = rng.random(len(labels)) < 0.05
    return np.where(odd, rng.integers(0, classes, len(labels)), labels), groups, seed


@given(cohorts())
def test_patients_are_whole_and_classes_are_everywhere(cohort):
    labels, groups, seed = cohort
    *folds, final = cross_validation(labels, groups, folds=4, seed=seed)
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested) == list(range(len(labels)))
    assert not len(final.test)
    for fold in (*folds, final):
        sides = [fold.train, fold.val, fold.test]
        assert sorted(np.concatenate(sides)) == list(range(len(labels)))
        assert not len(require_whole_groups(sides, groups))
        for side in sides[: 2 if fold is final else 3]:
            assert set(labels[side]) == set(labels)
    shares = np.array([np.bincount(labels[fold.test], minlength=labels.max() + 1) for fold in folds]) / np.bincount(
        labels
    )
    assert np.abs(shares - 0.25).max() <= 0.3


def test_of_single_slides_the_shares_are_exact_and_sizes_even():
    labels = np.array([0] * 50 + [1] * 13)
    part = stratified(labels, np.arange(63), parts=5, seed=0)
    assert sorted(np.bincount(part[labels == 0])) == [10] * 5
    assert sorted(np.bincount(part[labels == 1])) == [2, 2, 3, 3, 3]


def test_the_seed_decides():
    labels, groups = np.arange(40) % 2, np.arange(40)
    first, again, other = (stratified(labels, groups, parts=4, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_too_few_patients_of_a_class_are_told():
    labels, groups = np.array([0] * 30 + [1] * 12), np.array([*range(30), *([50] * 6), *([51] * 6)])
    with pytest.raises(TooFewError) as caught:
        cross_validation(labels, groups, folds=5, seed=0)
    assert (caught.value.number, caught.value.have, caught.value.parts) == (1, 2, 5)


def test_patients_on_two_sides_are_found():
    sides = [np.array([0, 1]), np.array([2, 3])]
    assert list(require_whole_groups(sides, np.array([7, 8, 8, 9]))) == [8]
