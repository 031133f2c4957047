"""Whether features that go into one folder by the name of their encoder are of one contract."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tilestream.errors import ConfigError
from tilestream.stream.journal import difference

MOST_DIFFERENCES = 3
"""Differences between two contracts that a message names."""


def require_one_contract(stores: Sequence[tuple[str, Path]], *, encoders: Sequence[str], layout: str) -> None:
    """Raise unless all stores mean the same by the name of an encoder: in other layouts nothing else tells them apart.

    Parameters
    ----------
    stores : sequence of tuple
        Key and folder of each.
    encoders : sequence of str
        Those that are exported; none = all.
    layout : str
        What they are exported to.

    Raises
    ------
    ConfigError
        With what differs, and in which stores.
    """
    first: dict[str, tuple[str, dict[str, Any]]] = {}
    for key, folder in stores:
        for name, made in _made(folder).items():
            known, old = first.setdefault(name, (key, made))
            if old != made and (not encoders or name in encoders):
                differs = difference(old, made, most=MOST_DIFFERENCES, where=(f"in `{known}`", f"in `{key}`"))
                raise ConfigError.of(
                    f"features of `{name}`",
                    got=differs,
                    expected=f"one contract for all, since {layout} tells features apart by the name of their encoder",
                    do="Export the stores of each by themselves, each with its own --out.",
                )


def _made(folder: Path) -> dict[str, dict[str, Any]]:
    """Return how each encoder's vectors were made; of a store that cannot be read nothing, it fails by itself."""
    try:
        recipe = json.loads((folder / "zarr.json").read_bytes())["attributes"]["recipe"]
        chains = recipe.get("chains", {})
        return {name: {"stage": stage, "chain": chains.get(name)} for name, stage in recipe["stages"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
