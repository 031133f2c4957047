"""Feature stores whose vectors a test chooses, and cohorts with an instance that decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.madecohort import stage_recipe
from tests.sinks.build import make_image, make_plan, make_results, make_sink, make_units
from tilestream.types import Receipt, TileStatus

TILE_PX = 64


def write_bag(folder: Path, key: str, vectors: np.ndarray, *, columns: int | None = None, bad=(), recipe=None) -> None:
    """Write the store of a slide whose tiles, row by row, have these vectors; those at `bad` are damaged."""
    n, dim = vectors.shape
    columns = columns or n
    outputs = tuple(f"v{k}" for k in range(dim))
    image = make_image(height=-(-n // columns) * TILE_PX, width=columns * TILE_PX, fingerprint=key)
    plan = make_plan(image, tile_px=TILE_PX, super_tile_px=16 * TILE_PX, region_px=16 * TILE_PX)
    encoders = (("uni", outputs),)
    sink = make_sink(
        folder,
        image=image,
        plan=plan,
        rel=key,
        encoders=encoders,
        recipe=recipe or stage_recipe("uni", tile_px=TILE_PX),
    )
    receipts = []
    for unit in make_units(plan):
        results = make_results(unit, encoders=encoders, damaged=bad)
        at = unit.tile_yx // TILE_PX
        rows = at[:, 0] * columns + at[:, 1]
        results["uni"] = vectors[rows].astype(np.float32)
        results["status"] = np.where(np.isin(rows, bad), TileStatus.DAMAGED, TileStatus.OK).astype(np.uint8)
        results["uni/status"] = results["status"]
        outputs_written = sink.write(unit, results)
        receipts.append(Receipt(key=unit.key, recipe=sink.recipe_digest, outputs=outputs_written, tiles=len(rows)))
    sink.finish(receipts)


def key_instances(
    count: int, *, tiles: int = 20, dim: int = 8, classes: int = 2, key: float = 10, seed: int = 0
) -> list[np.ndarray]:
    """Bags of noise, of which each of a class other than 0 has one vector that says which."""
    rng = np.random.default_rng(seed)
    bags = []
    for number in range(count):
        bag = rng.normal(size=(tiles + number % 5, dim))
        if number % classes:
            bag[rng.integers(len(bag)), number % classes] += key
        bags.append(bag)
    return bags


def write_cohort(folder: Path, bags: Sequence[np.ndarray]) -> Path:
    """Write a store for each bag: `s000.svs`, `s001.svs` …"""
    for number, bag in enumerate(bags):
        write_bag(folder, f"s{number:03}.svs", bag)
    return folder


def write_labels(path: Path, labels: Mapping[str, object] | Sequence[object], **columns: Sequence[object]) -> Path:
    """Write a table of labels; of a sequence the slides are those of `write_cohort`."""
    if not isinstance(labels, Mapping):
        labels = {f"s{number:03}.svs": label for number, label in enumerate(labels)}
    lines = [",".join(("slide", "label", *columns))]
    lines += [",".join(map(str, row)) for row in zip(labels, labels.values(), *columns.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path
