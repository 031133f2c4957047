"""Folders of feature stores made by code, each value telling which slide and row it is of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.sinks.build import OUTPUTS, make_image, make_plan, make_results, make_sink, make_units
from tilestream.types import Receipt

SLIDES = {
    "a/one.svs": {"height": 300, "width": 500},
    "a/two.svs": {"height": 64, "width": 64},
    "three ü.tif": {"height": 700, "width": 260},
    "z.svs": {"height": 500, "width": 130, "datetime": "2024-05-17T10:30:00Z"},
}
"""Key and image of each slide of `make_cohort`, in the order of a cohort."""


def stage_recipe(encoder: str, **plan) -> dict:
    """The parts of a recipe that make a feature set."""
    return {"stages": {encoder: {"target": encoder}}, "plan": {"mpp": 0.5, "tile_px": 64} | plan}


UNI = (("uni", OUTPUTS),)


def make_store(folder: Path, key: str, *, number: int = 0, encoders=UNI, damaged=(), recipe=None, **image):
    """Write one store; a vector is its row and a tenth of its place, 10,000 for each slide before it."""
    info = make_image(**{"fingerprint": key} | image)
    sink = make_sink(
        folder,
        image=info,
        plan=make_plan(info),
        rel=key,
        encoders=encoders,
        recipe=recipe or stage_recipe(encoders[0][0]),
    )
    receipts = []
    for unit in make_units(sink.plan):
        results = make_results(unit, encoders=encoders, damaged=damaged)
        for name, _ in encoders:
            results[name] = results[name] + np.float32(10_000 * number)
        outputs = sink.write(unit, results)
        receipts.append(Receipt(key=unit.key, recipe=sink.recipe_digest, outputs=outputs, tiles=len(unit.tile_yx)))
    sink.finish(receipts)
    return sink


def make_cohort(folder: Path, **options) -> Path:
    """Write the stores of `SLIDES`."""
    for number, (key, image) in enumerate(SLIDES.items()):
        make_store(folder, key, number=number, **image, **options)
    return folder


def make_many(folder: Path, count: int, *, tiles: int = 2000, dim: int = 64) -> Path:
    """Make `count` stores quickly: one is written, the others are links to its files under metadata of their own."""
    edge = int(tiles**0.5) * 64
    outputs = tuple(f"v{n}" for n in range(dim))
    first = make_store(folder, "s00000.svs", height=edge, width=edge, encoders=(("uni", outputs),)).root
    document = json.loads((first / "zarr.json").read_text())
    files = [path.relative_to(first) for path in first.rglob("*") if path.is_file() and path != first / "zarr.json"]
    for number in range(1, count):
        store = folder / f"{number // 100:03}" / f"s{number:05}.svs.features.zarr"
        for file in files:
            (store / file).parent.mkdir(parents=True, exist_ok=True)
            os.link(first / file, store / file)
        document["attributes"]["tilestream"]["content"] = f"{number:032x}"
        document["attributes"]["image"]["fingerprint"] = f"{number:032x}"
        (store / "zarr.json").write_text(json.dumps(document))
    return folder


def expected(folder: Path, name: str) -> np.ndarray:
    """All rows of a variable of all slides, read by plain Zarr."""
    import zarr

    stores = [zarr.open_group(folder / f"{key}.features.zarr", mode="r") for key in SLIDES]
    return np.concatenate([store[f"tile/{name}"][:] for store in stores])


@pytest.fixture(scope="session")
def made_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores of `SLIDES`, to be looked at only."""
    return make_cohort(tmp_path_factory.mktemp("cohort"))
