"""Who is trained on, who says when to stop and who is tested: by chance, patients whole, classes in their shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError

Ints: TypeAlias = npt.NDArray[np.int64]

VALIDATION_FOLDS = 5
"""One of so many parts of what is not tested says when a training stops."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """One training."""

    name: str
    """`1`, `2` … for folds; `split` for that of a table, `all` for the training on all slides."""
    train: Ints
    """Numbers of the examples that it learns from."""
    val: Ints
    """Those that say when it stops; it never learns from them."""
    test: Ints
    """Those that it is judged by; it never sees them. Empty for `all`."""


def cross_validation(labels: Ints, groups: Ints, *, folds: int, seed: int) -> tuple[Fold, ...]:
    """Return the trainings of a cross-validation, and one on everything at the end.

    Parameters
    ----------
    labels : ndarray of int64
        `(n,)` class of each example, from 0.
    groups : ndarray of int64
        `(n,)` patient of each example.
    folds : int
        Number of parts, of which each is tested once.
    seed : int
        What the parts follow from.

    Returns
    -------
    tuple of Fold
        `folds` of them and `all`.

    Raises
    ------
    ConfigError
        When there are too few patients of a class for every part to have one.
    """
    part = stratified(labels, groups, parts=folds, seed=seed)
    found = []
    for number in range(folds):
        rest = np.flatnonzero(part != number)
        train, val = with_validation(rest, labels, groups, seed=seed + number + 1)
        found.append(Fold(name=str(number + 1), train=train, val=val, test=np.flatnonzero(part == number)))
    train, val = with_validation(np.arange(len(labels)), labels, groups, seed=seed)
    return (*found, Fold(name="all", train=train, val=val, test=np.zeros(0, np.int64)))


def with_validation(examples: Ints, labels: Ints, groups: Ints, *, seed: int) -> tuple[Ints, Ints]:
    """Return examples in two parts: to learn from, and a fifth to stop by.

    Parameters
    ----------
    examples : ndarray of int64
        Their numbers.
    labels, groups : ndarray of int64
        Of all examples.
    seed : int
        What the parts follow from.

    Returns
    -------
    train, val : ndarray of int64
        Numbers, ascending.
    """
    own, patients = labels[examples], groups[examples]
    fewest = min(len(np.unique(patients[own == one])) for one in np.unique(own))
    parts = max(2, min(VALIDATION_FOLDS, fewest))
    while True:
        try:
            part = stratified(own, patients, parts=parts, seed=seed)
        except TooFewError:
            if parts == 2:
                raise
            parts -= 1  # patients of several classes cannot always be spread so far
            continue
        return examples[part != 0], examples[part == 0]


def stratified(labels: Ints, groups: Ints, *, parts: int, seed: int) -> Ints:
    """Return the part of each example: patients whole, classes in equal shares as far as patients allow.

    Parameters
    ----------
    labels, groups : ndarray of int64
        `(n,)` class and patient of each example.
    parts : int
        How many.
    seed : int
        Decides among what is equally good.

    Returns
    -------
    ndarray of int64
        `(n,)` from 0.

    Raises
    ------
    ConfigError
        When a part is left without one of the classes.

    Notes
    -----
    Patients with the most slides come first, each to the part in which the shares of its classes are smallest. Exact
    where a patient has one slide; else as good as such a greedy choice is.
    """
    classes, at = np.unique(labels, return_inverse=True)
    patients, of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(patients), len(classes)), np.int64)
    np.add.at(counts, (of, at), 1)
    for number, one in enumerate(classes):
        have = int(np.count_nonzero(counts[:, number]))
        if have < parts:
            raise _too_few(int(one), have, parts)
    shares = counts / counts.sum(0)  # rare classes weigh as much as frequent ones
    order = np.random.default_rng([seed, parts]).permutation(len(patients))
    order = order[np.argsort(-shares[order].max(1), kind="stable")]
    filled = np.zeros((parts, len(classes)))
    chosen = np.zeros(len(patients), np.int64)
    for patient in order:
        own = shares[patient]
        # where it brings most classes that are missing; then squares of the shares after it came, as far as they differ
        cost = (filled * own).sum(1) - ((filled == 0) & (own > 0)).sum(1) * len(patients)
        best = np.flatnonzero(np.isclose(cost, cost.min(), rtol=0, atol=1e-12))
        chosen[patient] = best[np.argmin(filled[best].sum(1))]
        filled[chosen[patient]] += own
    if (filled == 0).any():
        raise _too_few(int(classes[int(np.argwhere(filled == 0)[0][1])]), 0, parts)
    return np.asarray(chosen[of], np.int64)


class TooFewError(ConfigError):
    """A class of too few patients to be in every part; knows which."""

    number: int = -1
    """The class."""
    have: int = 0
    """Patients that it has; 0 where they are enough in number but cannot be spread."""
    parts: int = 0
    """Parts that were wanted."""


def _too_few(number: int, have: int, parts: int) -> TooFewError:
    error = TooFewError.of(
        f"class {number}", got=f"{have} patients", expected=f"at least {parts}", do="Take fewer folds, or more slides."
    )
    error.number, error.have, error.parts = number, have, parts
    return error


def require_whole_groups(sides: Sequence[Ints], groups: Ints) -> Ints:
    """Return the groups that are on several sides, which must be none.

    Parameters
    ----------
    sides : sequence of ndarray of int64
        Numbers of the examples on each side.
    groups : ndarray of int64
        Of all examples.

    Returns
    -------
    ndarray of int64
        Groups.
    """
    found = np.concatenate([np.unique(groups[side]) for side in sides])
    values, counts = np.unique(found, return_counts=True)
    return np.asarray(values[counts > 1], np.int64)
