"""Where the time of a run goes: the seconds of its receipts by kind of work, and how many threads that kept busy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tilestream.cache.tally import KINDS as KINDS_OF_CACHE

KINDS = ("read", "decode", "gather", "transfer", "compute", "encode", "write", "plan", "finish")
"""Kinds of work in the order in which data passes them. A step with another name is a stage of the run: `compute`."""
WAIT = "wait"
"""The step in which a stage waits for tiles: no work, but it keeps a worker's thread."""
AHEAD = ("read", "decode", "gather")
"""Steps that run in threads of their own, ahead of the stages, where there is a step `wait`."""
ENDS = ("plan", "finish")
"""Steps before and after the super-tiles of an image, each done by one thread."""


def kind_of(step: str) -> str:
    """Return the kind of work that a step of a receipt is; `wait` is none and stays what it is."""
    return step if step in KINDS or step == WAIT else "compute"


def by_kind(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the time by kind of work, waiting left out.

    Parameters
    ----------
    seconds : Mapping
        Time by step.

    Returns
    -------
    dict
        Kinds that took any time, in the order of `KINDS`.
    """
    found = dict.fromkeys(KINDS, 0.0)
    for step, value in seconds.items():
        if step != WAIT:
            found[kind_of(step)] += value
    return {kind: value for kind, value in found.items() if value > 0}


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each kind of work in all work, 0 to 1, in the order of `KINDS`."""
    kinds = by_kind(seconds)
    total = sum(kinds.values())
    return {kind: value / total for kind, value in kinds.items()}


def work_seconds(seconds: Mapping[str, float]) -> float:
    """Return the time in which cores were at work: all steps but waiting."""
    return sum(value for step, value in seconds.items() if step != WAIT)


def task_seconds(seconds: Mapping[str, float]) -> float:
    """Return how long tasks kept threads of workers.

    Parameters
    ----------
    seconds : Mapping
        Time by step.

    Returns
    -------
    float
        The sum of all steps; where decoding runs ahead in threads of its own, of those of the task's own thread.
    """
    ahead = AHEAD if WAIT in seconds else ()
    return sum(value for step, value in seconds.items() if step not in ahead)


def wait_share(seconds: Mapping[str, float]) -> float:
    """Return the share of the time of tasks in which stages waited for tiles, 0 to 1."""
    total = task_seconds(seconds)
    return seconds.get(WAIT, 0.0) / total if total > 0 else 0.0


def cache_figures(cache: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return the figures of caches by tier from what a summary holds.

    Parameters
    ----------
    cache : Mapping
        Tier → figures; or, from an earlier version, hits and misses of the decoded blocks.

    Returns
    -------
    dict
        Tier → figure → count.
    """
    found = {}
    for tier, figures in cache.items():
        if isinstance(figures, Mapping):
            found[tier] = dict.fromkeys(KINDS_OF_CACHE, 0) | {name: int(value) for name, value in figures.items()}
        else:
            tier = "decoded" if tier == "decoded blocks" else tier
            found[tier] = dict.fromkeys(KINDS_OF_CACHE, 0) | {"hits": int(figures[0]), "misses": int(figures[1])}
    return found


def added(one: Mapping[str, Mapping[str, int]], other: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Return the sums of the figures of caches."""
    found = {tier: dict(figures) for tier, figures in one.items()}
    for tier, figures in other.items():
        mine = found.setdefault(tier, {})
        for name, value in figures.items():
            mine[name] = mine.get(name, 0) + value
    return found
