"""What each tier of the caches did: of the current task for its receipt, of the process for the dashboard."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from threading import Lock

from tilestream.metrics import count

DEVICE, DECODED, FIELDS, COMPRESSED, DISK, PEER = TIERS = (
    "device", "decoded", "fields", "compressed", "disk", "peer",
)  # fmt: skip
"""The tiers in the order in which they are asked."""
HITS, MISSES, BYTES, EVICTIONS = KINDS = ("hits", "misses", "bytes", "evictions")
"""What is counted; `bytes` are those that hits have given."""
NAMES = tuple(f"cache.{tier}.{kind}" for tier in TIERS for kind in KINDS)
"""Names of the counts in a receipt."""

_totals: Counter[str] = Counter()
_lock = Lock()


def tell(tier: str, **amounts: int) -> None:
    """Count what a tier did.

    Parameters
    ----------
    tier : str
        One of `TIERS`.
    **amounts : int
        By kind, see `KINDS`.
    """
    for kind, amount in amounts.items():
        if amount:
            count(f"cache.{tier}.{kind}", amount)
    with _lock:
        for kind, amount in amounts.items():
            _totals[f"cache.{tier}.{kind}"] += amount


def by_tier(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return the counts of each tier that was asked or has dropped something.

    Parameters
    ----------
    counts : Mapping
        Counts by name, `cache.<tier>.<kind>` among them.

    Returns
    -------
    dict
        `{tier: {"hits": n, "misses": n, "bytes": n, "evictions": n}}` in the order of the stack.
    """
    found = {tier: {kind: counts.get(f"cache.{tier}.{kind}", 0) for kind in KINDS} for tier in TIERS}
    return {tier: kinds for tier, kinds in found.items() if any(kinds.values())}


def totals() -> dict[str, dict[str, int]]:
    """Return what the tiers of this process have done since it began."""
    with _lock:
        return by_tier(_totals)


def _renew() -> None:
    global _lock  # the parent may have held it when it forked
    _lock = Lock()
    _totals.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
