"""The report for programs: `report.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tilestream.pipelines.report_rows import InputRow, RunFacts

FORMAT = 1
"""Version of the document; raised when a key changes its meaning or goes away."""
MAX_REASONS = 50
"""Most reasons of damage listed for one input; all are counted."""
MAX_ROWS = 20
"""Most feature rows listed for one reason; all are counted."""


def report_document(facts: RunFacts, rows: Sequence[InputRow]) -> dict[str, Any]:
    """Return the report as JSON values.

    Parameters
    ----------
    facts : RunFacts
        Figures of the run.
    rows : sequence of InputRow
        Its inputs.

    Returns
    -------
    dict
        Keys `format`, `command`, `started`, `wall_s`, `machine`, `versions`, `options`, `notes`, `totals`, `inputs`.
    """
    return {
        "format": FORMAT,
        "command": facts.command,
        "started": facts.started,
        "wall_s": round(facts.wall_s, 3),
        "machine": dict(facts.machine),
        "versions": dict(facts.versions),
        "options": dict(facts.options),
        "notes": list(facts.notes),
        "totals": totals(facts, rows),
        "inputs": [_input(row) for row in rows],
    }


def totals(facts: RunFacts, rows: Sequence[InputRow]) -> dict[str, Any]:
    """Return sums over all inputs.

    Parameters
    ----------
    facts : RunFacts
        Figures of the run.
    rows : sequence of InputRow
        Its inputs.

    Returns
    -------
    dict
        JSON values; `tiles_per_s` is None when nothing was computed.
    """
    seconds: dict[str, float] = {}
    for row in rows:
        for stage, value in row.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + value
    tiles = sum(row.tiles for row in rows)
    computed = sum(row.tiles if row.tiles_computed is None else row.tiles_computed for row in rows if row.tiles_per_s)
    return {
        "inputs": sum(row.status != "ignored" for row in rows),
        **{status: sum(row.status == status for row in rows) for status in ("done", "failed", "ignored")},
        "tiles": tiles,
        "tiles_damaged": sum(row.tiles_damaged for row in rows),
        "tiles_failed": sum(row.tiles_failed for row in rows),
        "tiles_empty": sum(row.tiles_empty for row in rows),
        "bytes_read": sum(row.bytes_read for row in rows),
        "supertiles": sum(row.supertiles_total for row in rows),
        "supertiles_reused": sum(row.supertiles_reused for row in rows),
        "seconds": _rounded(seconds),
        "tiles_per_s": round(computed / facts.wall_s, 3) if computed and facts.wall_s > 0 else None,
        "cache": _cache(facts.cache),
    }


def _input(row: InputRow) -> dict[str, Any]:
    found = row.bottleneck
    return {
        "path": row.path,
        "status": row.status,
        "reason": row.reason,
        "format": row.format,
        "shape_yx": None if row.shape_yx is None else list(row.shape_yx),
        "mpp": row.mpp,
        "crs": row.crs,
        "datetime": row.datetime,
        "tile_px": row.tile_px,
        "plan_mpp": row.plan_mpp,
        "tiles": row.tiles,
        "tiles_damaged": row.tiles_damaged,
        "tiles_failed": row.tiles_failed,
        "tiles_empty": row.tiles_empty,
        "damaged": damaged_list(row),
        "bytes_read": row.bytes_read,
        "seconds": _rounded(row.seconds),
        "bottleneck": None if found is None else found[0],
        "wall_s": round(row.wall_s, 3),
        "tiles_per_s": None if row.tiles_per_s is None else round(row.tiles_per_s, 3),
        "supertiles": {
            "total": row.supertiles_total,
            "reused": row.supertiles_reused,
            "computed": row.supertiles_computed,
        },
        "cache": _cache(row.cache),
        "outputs": list(row.outputs),
        "notes": list(row.notes),
    }


def damaged_list(row: InputRow) -> dict[str, Any]:
    """Return the damage of an input, most frequent reason first, lists cut at a fair length and counted in full.

    Parameters
    ----------
    row : InputRow
        The input.

    Returns
    -------
    dict
        `reasons`: how many there are; `listed`: each with `reason`, `tiles` and the first `rows`.
    """
    ordered = sorted(row.damaged.items(), key=lambda item: (-len(item[1]), item[0]))
    listed = [
        {"reason": reason, "tiles": len(found), "rows": [int(n) for n in sorted(found)[:MAX_ROWS]]}
        for reason, found in ordered[:MAX_REASONS]
    ]
    return {"reasons": len(ordered), "listed": listed}


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {stage: round(value, 3) for stage, value in sorted(seconds.items())}


def _cache(cache: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, int]]:
    return {name: {"hits": hits, "misses": misses} for name, (hits, misses) in sorted(cache.items())}
