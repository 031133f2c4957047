"""How much each term counts."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from numbers import Real

from tilestream.errors import ConfigError
from tilestream.registry import unknown_name
from tilestream.relevance.term import Group, Term, group_of

BY_GROUP: Mapping[Group, float] = {"information": 0.25, "saliency": 0.25, "query": 0.5}
"""Share of each group of terms, divided among its members; groups that are absent leave theirs to the others."""


def default_weights(terms: Mapping[str, Term]) -> dict[str, float]:
    """Return the weights of terms that nobody has weighted.

    Parameters
    ----------
    terms : Mapping
        Terms by name.

    Returns
    -------
    dict
        By name, 1 in sum: a quarter for information, a quarter for saliency and half for queries, as far as there are
        such; everything for a learned scorer where there is one, since what it has not learned to want the others
        only add noise to.
    """
    groups = {name: group_of(term) for name, term in terms.items()}
    learned = "scorer" in groups.values()
    shares = {"scorer": 1.0} if learned else BY_GROUP
    found = {
        name: shares.get(group, 0.0) / sum(other == group for other in groups.values())
        for name, group in groups.items()
    }
    total = sum(found.values())
    return {name: weight / total for name, weight in found.items()}


def checked_weights(terms: Mapping[str, Term], weights: Mapping[str, float] | None) -> dict[str, float]:
    """Return the weight of each term, 1 in sum.

    Parameters
    ----------
    terms : Mapping
        Terms by name.
    weights : Mapping or None
        Weight of each term by name; None = `default_weights`.

    Returns
    -------
    dict
        In the order of `terms`.

    Raises
    ------
    ConfigError
        When a weight is missing, is for no term, is negative or not finite, or when none is above 0.
    """
    if not terms:
        raise ConfigError.of(
            "`terms` of a relevance", got="none", expected="at least one", do="Begin with {'entropy': Entropy()}."
        )
    if weights is None:
        return default_weights(terms)
    for name in weights:
        if name not in terms:
            raise unknown_name(name, list(terms))
    missing = [name for name in terms if name not in weights]
    if missing:
        raise ConfigError.of(
            "`weights` of a relevance", got=f"none for {', '.join(f'`{name}`' for name in missing)}",
            expected=f"a weight for each of {list(terms)}", do="Give them too, 0 for those that are not to count.",
        )  # fmt: skip
    numbers = {name: _number(name, weights[name]) for name in terms}
    total = sum(numbers.values())
    if total <= 0 or not isfinite(total):
        raise ConfigError.of(
            "`weights` of a relevance", got=f"{numbers}, {total:g} in sum", expected="at least one above 0",
            do="Give the terms that matter a weight.",
        )  # fmt: skip
    return {name: number / total for name, number in numbers.items()}


def _number(name: str, weight: object) -> float:
    if isinstance(weight, bool) or not isinstance(weight, Real) or not isfinite(weight) or weight < 0:
        raise ConfigError.of(
            f"weight of `{name}`", got=repr(weight), expected="a finite number of at least 0",
            do="To avoid what a term finds, give a term that returns the opposite.",
        )  # fmt: skip
    return float(weight)
