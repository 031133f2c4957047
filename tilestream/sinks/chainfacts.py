"""What became of the regions and slides of hierarchies, read from the metadata of a finished store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilestream.types import TileStatus


@dataclass(frozen=True, kw_only=True)
class ChainFacts:
    """The regions and the slide of one encoder."""

    encoder: str
    """Its name."""
    regions: int | None
    """Regions; None where they are pooled only."""
    regions_ok: int
    """Those that have a vector."""
    failed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """What the region stage has said → rows of the regions on which it has failed."""
    slide_failed: str = ""
    """What the aggregator has said when it has failed."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a user should know, one line a reason."""
        regions = (
            f"region stage of `{self.encoder}`: {reason}, on {len(rows)} of {self.regions} regions"
            for reason, rows in self.failed.items()
        )
        slide = f"no vector of the slide by `{self.encoder}`: {self.slide_failed}"
        return (*regions, slide) if self.slide_failed else tuple(regions)


def read_chain_facts(root: Path, encoders: Iterable[str]) -> tuple[ChainFacts, ...]:
    """Return the facts of each encoder that has stages above its tiles.

    Parameters
    ----------
    root : Path
        Feature store.
    encoders : iterable of str
        Their names.

    Returns
    -------
    tuple of ChainFacts
        In that order.
    """
    names = tuple(encoders)
    nodes = json.loads((root / "zarr.json").read_bytes())["consolidated_metadata"]["metadata"] if names else {}
    return tuple(_facts(nodes, name) for name in names)


def _facts(nodes: Mapping[str, Any], name: str) -> ChainFacts:
    regions, slide = nodes.get(f"region/{name}_status"), nodes[f"slide/{name}_status"]
    has_failed = int(slide["fill_value"]) == TileStatus.FAILED
    return ChainFacts(
        encoder=name,
        regions=None if regions is None else int(regions["shape"][0]),
        regions_ok=0 if regions is None else int(nodes[f"slide/{name}_n_regions_ok"]["fill_value"]),
        failed={} if regions is None else _rows(regions["attributes"].get("failed", {})),
        slide_failed=slide["attributes"]["failed"] if has_failed else "",
    )


def _rows(found: Mapping[str, Iterable[int]]) -> dict[str, tuple[int, ...]]:
    return {reason: tuple(rows) for reason, rows in found.items()}
