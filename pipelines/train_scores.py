"""How good predictions are: area under the ROC curve with an interval, and balanced accuracy.

AUC is the share of pairs of a positive and a negative in which the positive has the higher score, ties counting half.
Its interval: DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988, 837-845), with the slides of one patient taken
together (Obuchowski, Biometrics 53, 1997, 567-578), on the logit scale so that it stays below 1. Where the classes are
apart, DeLong's variance is 0 and says nothing; there it is Newcombe's method 5 (Statistics in Medicine 25, 2006,
559-573), which takes the variance at the ends of the interval. For several classes: mean AUC of each against the rest,
with a percentile bootstrap over patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import scipy

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

LEVEL = 0.95
RESAMPLES = 1000
"""Draws of the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class Area:
    """Area under a ROC curve, 0.5 for chance and 1 for classes that are apart."""

    value: float
    """Estimate."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end."""
    method: str
    """How the interval was made: `delong`, `newcombe` or `bootstrap`."""


def auc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Return the share of pairs in which the positive has the higher score, ties counting half.

    Parameters
    ----------
    scores : ndarray of float64
        `(n,)`.
    positive : ndarray of bool
        `(n,)`; both kinds must be there.

    Returns
    -------
    float
        From 0 to 1.
    """
    m = int(np.count_nonzero(positive))
    n = len(positive) - m
    return float((scipy.stats.rankdata(scores)[positive].sum() - m * (m + 1) / 2) / (m * n))


def area(probabilities: Floats, labels: Ints, groups: Ints, *, seed: int = 0) -> Area:
    """Return the area under the ROC curve of two classes, or the mean of each class against the rest.

    Parameters
    ----------
    probabilities : ndarray of float64
        `(n, classes)`.
    labels : ndarray of int64
        `(n,)` class, from 0; each class must be there.
    groups : ndarray of int64
        `(n,)` patient.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Area
        With its 95 % interval.
    """
    classes = probabilities.shape[1]
    if classes == 2:
        return _of_two(probabilities[:, 1], labels == 1, groups)
    value = _macro(probabilities, labels)
    drawn = _bootstrap(probabilities, labels, groups, seed)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if low == high:  # every class is apart from the rest: as uncertain as that of the fewest
        m = min(_patients(groups[labels == one]) for one in range(classes))
        return _newcombe(value, m, _patients(groups) - m)
    return Area(value=value, low=float(low), high=float(high), method="bootstrap")


def balanced_accuracy(predicted: Ints, labels: Ints) -> float:
    """Return the mean over classes of the share that was recognised.

    Parameters
    ----------
    predicted, labels : ndarray of int64
        `(n,)`.

    Returns
    -------
    float
        From 0 to 1; chance is 1 through the number of classes.
    """
    return float(np.mean([np.mean(predicted[labels == one] == one) for one in np.unique(labels)]))


def _of_two(scores: Floats, positive: npt.NDArray[np.bool_], groups: Ints) -> Area:
    value = auc(scores, positive)
    sigma = _deviation(scores, positive, groups, value)
    if not 0 < value < 1 or sigma == 0:
        return _newcombe(value, _patients(groups[positive]), _patients(groups[~positive]))
    z = scipy.stats.norm.ppf((1 + LEVEL) / 2)
    centre, half = np.log(value / (1 - value)), z * sigma / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (centre - half, centre + half))
    return Area(value=value, low=low, high=high, method="delong")


def _deviation(scores: Floats, positive: npt.NDArray[np.bool_], groups: Ints, value: float) -> float:
    """Return the standard deviation of an AUC by the components of each slide, summed by patient."""
    m, n = np.count_nonzero(positive), np.count_nonzero(~positive)
    ranks = scipy.stats.rankdata(scores)
    placed = np.empty(len(scores))  # the share of the other kind that each slide is on the right side of
    placed[positive] = (ranks[positive] - scipy.stats.rankdata(scores[positive])) / n
    placed[~positive] = 1 - (ranks[~positive] - scipy.stats.rankdata(scores[~positive])) / m
    _, of = np.unique(groups, return_inverse=True)
    sums = np.zeros((2, of.max() + 1))
    np.add.at(sums[0], of[positive], placed[positive] - value)
    np.add.at(sums[1], of[~positive], placed[~positive] - value)
    owners = [_patients(groups[positive]), _patients(groups[~positive])]
    if min(owners) < 2:
        return 0.0
    part = [owner / (owner - 1) / count**2 for owner, count in zip(owners, (m, n), strict=True)]
    patients = of.max() + 1
    both = 2 * patients / (patients - 1) / (m * n) * float((sums[0] * sums[1]).sum())
    return float(np.sqrt(max(0.0, part[0] * (sums[0] ** 2).sum() + part[1] * (sums[1] ** 2).sum() + both)))


def _newcombe(value: float, m: int, n: int) -> Area:
    """Return the interval whose ends are as far away as their own variance by Hanley and McNeil allows."""
    z, half = scipy.stats.norm.ppf((1 + LEVEL) / 2), (m + n) / 2 - 1

    def beyond(end: float) -> float:
        variance = end * (1 - end) * (1 + half * (1 - end) / (2 - end) + half * end / (1 + end)) / (m * n)
        return float(abs(end - value) - z * np.sqrt(variance))

    near = 1e-9  # at 0 and 1 themselves the variance is 0 too, which is no end of the interval
    inside = min(max(value, near), 1 - near)
    low = scipy.optimize.brentq(beyond, near, inside) if value > near else 0.0
    high = scipy.optimize.brentq(beyond, inside, 1 - near) if value < 1 - near else 1.0
    return Area(value=value, low=float(low), high=float(high), method="newcombe")


def _macro(probabilities: Floats, labels: Ints) -> float:
    return float(np.mean([auc(probabilities[:, one], labels == one) for one in range(probabilities.shape[1])]))


def _bootstrap(probabilities: Floats, labels: Ints, groups: Ints, seed: int) -> Floats:
    """Return the macro AUC of draws of patients; a draw without one of the classes is drawn again."""
    rng = np.random.default_rng(seed)
    _, of = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(of == number) for number in range(of.max() + 1)]
    classes, found = probabilities.shape[1], np.empty(RESAMPLES)
    done = 0
    while done < RESAMPLES:
        drawn = np.concatenate([members[one] for one in rng.integers(len(members), size=len(members))])
        if len(np.unique(labels[drawn])) == classes:
            found[done] = _macro(probabilities[drawn], labels[drawn])
            done += 1
    return found


def _patients(groups: Ints) -> int:
    return len(np.unique(groups))
