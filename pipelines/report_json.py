"""The report for programs: `report.json`.

`format` is 1. Times are seconds, shares lie in 0 to 1, and a value that is not known is null.

At the top: `command`, `started`, `wall_s`, `machine`, `versions`, `options`, `notes` of the run that wrote the report;
`time`, `energy`; `totals` and `inputs` of all images of the folder, also of those that other runs have left in it.

`time`, of this run alone (null where nobody has listened to it):
    `wall_s`; `threads` of workers as last counted, the time `threads_s` that they had, their processes `workers`;
    `task_s`, the time they were in tasks, `wait_s` of it waiting for tiles; `idle_s` = `threads_s` - `task_s`;
    `work_s`, the time cores were at work;
    `seconds` by step, summed over threads: `read`, `decode`, `gather` (tiles put together, resampling), `wait`,
    `transfer` (to a device and back), a stage's own name, `encode`, `write`, `plan`, `finish`;
    `shares` of `work_s` by kind: the same names, stages summed up as `compute`;
    `tiles_per_s`, `mpx_per_s`, `bytes_read_per_s`, and `mpx_per_core_s`: megapixels in a second of work of one core;
    `bottleneck` and, the largest first, `findings`: `name` (a kind of work, `wait`, `idle`, `tail`, or `none` where
    nothing stands out), `share`, `text` (what was measured), `do` (what would help);
    `timeline`: mean number of threads at each kind of work, and in tasks at all (`task`), in slots of `slot_s`.

`energy`: joules that this machine has used during the run, whoever used them: `cpu_j` (processors and memory) and
    `gpu_j`, where there are meters that may be read.

`totals`: counts over `inputs`; `lost` are images that are done without one tile that has values.

`inputs`: `run` (`this`, or `earlier` for what another run has left), `path`, `status`, `reason`, `command` (of the
    earlier run that failed on it), `receipts` (their name below `receipts/`), facts of the image, `tiles` with
    `tiles_ok`, `tiles_damaged`, `tiles_failed`, `tiles_empty`, `damaged` and `failed` (reasons with tiles and rows),
    `regions` that a region stage was to make a vector of, `regions_failed` on which it has failed; `bytes_read`, also
    by planning and for the thumbnail, `byte_share` of them in `image_bytes`, the size of its files; `pixels_decoded` by
    stored level and `pixel_share`, all of them in the pixels of level 0; `tokens` by level of the quadtree, where a
    budget has decided what is read;
    `seconds` by step, `shares`, `wait_share`, `bottleneck` (the longest step), `advice`, `wall_s`, `tiles_per_s`,
    `mpx_per_s`; `supertiles`, `cache` (tier: `hits`, `misses`, `bytes`, `evictions`), `outputs`, `notes`, `page`.
    `coded`, of what `compress` has stored: `codec`, `fitted` and `constant` tiles, `bytes` and those of `arrays`,
    `bpp`, `psnr` by level (null where it is exact or nothing counts), `largest_tile_bytes`, and the `span` that PSNR of
    samples of more than 8 bits refers to.
    Seconds and caches count all runs that have worked on the image, rates this run alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tilestream.pipelines.report_rows import InputRow, RunFacts
from tilestream.pipelines.report_time import added
from tilestream.pipelines.report_where import input_time, time_document

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
        See the head of this module.
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
        "time": time_document(facts),
        "energy": {name: round(value, 1) for name, value in facts.energy.items()},
        "totals": totals(facts, rows),
        "inputs": [_input(row, facts) for row in rows],
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
    cache: dict[str, dict[str, int]] = {}
    for row in rows:
        cache = added(cache, row.cache)
        for stage, value in row.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + value
    computed = sum(row.tiles if row.tiles_computed is None else row.tiles_computed for row in rows if row.tiles_per_s)
    return {
        "inputs": sum(row.status != "ignored" for row in rows),
        **{status: sum(row.status == status for row in rows) for status in ("done", "failed", "ignored")},
        "lost": sum(row.is_lost for row in rows),
        "earlier": sum(row.is_earlier for row in rows),
        "tiles": sum(row.tiles for row in rows),
        "tiles_ok": sum(row.tiles_ok for row in rows),
        "tiles_damaged": sum(row.tiles_damaged for row in rows),
        "tiles_failed": sum(row.tiles_failed for row in rows),
        "tiles_empty": sum(row.tiles_empty for row in rows),
        "regions": sum(row.regions for row in rows),
        "regions_failed": sum(row.regions_failed for row in rows),
        "bytes_read": sum(row.bytes_read for row in rows),
        "supertiles": sum(row.supertiles_total for row in rows),
        "supertiles_reused": sum(row.supertiles_reused for row in rows),
        "seconds": _rounded(seconds),
        "tiles_per_s": round(computed / facts.wall_s, 3) if computed and facts.wall_s > 0 else None,
        "cache": cache,
    }


def _input(row: InputRow, facts: RunFacts) -> dict[str, Any]:
    found = row.bottleneck
    return {
        "run": "earlier" if row.is_earlier else "this",
        "path": row.path,
        "status": row.status,
        "reason": row.reason,
        "command": row.command or None,
        "receipts": row.receipts or None,
        "format": row.format,
        "shape_yx": None if row.shape_yx is None else list(row.shape_yx),
        "mpp": row.mpp,
        "crs": row.crs,
        "datetime": row.datetime,
        "tile_px": row.tile_px,
        "plan_mpp": row.plan_mpp,
        "tiles": row.tiles,
        "tiles_ok": row.tiles_ok,
        "tiles_damaged": row.tiles_damaged,
        "tiles_failed": row.tiles_failed,
        "tiles_empty": row.tiles_empty,
        "regions": row.regions,
        "regions_failed": row.regions_failed,
        "damaged": reason_list(row.damaged),
        "failed": reason_list(row.failed),
        "bytes_read": row.bytes_read,
        "image_bytes": row.image_bytes,
        "byte_share": _share(row.byte_share),
        "pixels_decoded": dict(row.pixels_decoded),
        "pixel_share": _share(row.pixel_share),
        "tokens": dict(row.tokens),
        "seconds": _rounded(row.seconds),
        "bottleneck": None if found is None else found[0],
        **input_time(row, facts.setting),
        "wall_s": round(row.wall_s, 3),
        "tiles_per_s": None if row.tiles_per_s is None else round(row.tiles_per_s, 3),
        "supertiles": {
            "total": row.supertiles_total,
            "reused": row.supertiles_reused,
            "computed": row.supertiles_computed,
        },
        "cache": {tier: dict(figures) for tier, figures in row.cache.items()},
        "coded": dict(row.coded),
        "outputs": list(row.outputs),
        "notes": list(row.notes),
    }


def reason_list(found: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return why tiles have no values, most frequent reason first, lists cut at a fair length and counted in full.

    Parameters
    ----------
    found : Mapping
        Reason → feature rows.

    Returns
    -------
    dict
        `reasons`: how many there are; `listed`: each with `reason`, `tiles` and the first `rows`.
    """
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    listed = [
        {"reason": reason, "tiles": len(rows), "rows": [int(n) for n in sorted(rows)[:MAX_ROWS]]}
        for reason, rows in ordered[:MAX_REASONS]
    ]
    return {"reasons": len(ordered), "listed": listed}


def _share(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {stage: round(value, 3) for stage, value in sorted(seconds.items())}
