"""Where scores send the eye on real images: nuclei in a slide among pens and glass, cloud in a mosaic by an example.

A worked example: one slide and one mosaic, no intervals. Scores see a coarse level alone; the best tiles of level 0
under a budget are then looked at, and what they hold is known from how the images were made (`tests.bench.fieldslide`,
`tests.bench.fieldscene`). Enrichment is recall over budget, and 1 for tiles drawn at random.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import tilestream as ts
from tests.bench.fieldembed import embed_rows
from tests.bench.fieldjudge import SlideResult, judge_cloud, judge_slide, tissue_tiles
from tests.bench.fieldplot import plot
from tests.bench.fieldscene import scenes, write_cloud_mosaic
from tests.bench.fieldscores import BUDGETS, Found, bytes_of, chosen, percents, read_tiles, tile_scores
from tests.bench.fieldslide import TILE_PX, FieldSlide, labelled_tiles, write_field_slide
from tests.bench.table import make_row
from tilestream.plan.tokens import plan_tokens
from tilestream.relevance import Relevance

AT = 1
"""Which of `BUDGETS` a row is about; its note has all."""
TREE_LEVELS = (0, 2, 4)
"""Token levels of the tree: those that the slide stores."""
ABSENT = "made of real images that are not here: set TILESTREAM_DATA"

Rows = list[dict[str, Any]]


def slide_rows(result: SlideResult) -> Rows:
    """Return a row a score, and one of pens."""
    found = [
        make_row(
            f"nuclei in a slide, {name}, {100 * BUDGETS[AT]:.0f} % of the tiles", one.enrichment[AT], "times chance",
            rival=("tiles at random, 20 draws", result.random.enrichment[AT]),
            note=f"{_recalls(one)}; pen {percents(one.others['pen'])}; without the mask of tissue recall "
            f"{percents(result.everywhere[name].recall)}, pen {percents(result.everywhere[name].others['pen'])}",
        )
        for name, one in result.in_tissue.items()
    ]  # fmt: skip
    even, chance = result.uniform, ("tiles at random, 20 draws", result.random.enrichment[AT])
    name = f"nuclei in a slide, spread evenly, {100 * BUDGETS[AT]:.0f} % of the tiles"
    found.append(make_row(name, even.enrichment[AT], "times chance", rival=chance, note=_recalls(even)))
    worst = max(one.others["pen"][at] for one in result.in_tissue.values() for at in range(len(BUDGETS)))
    first = ", ".join(f"{name} {100 * one.others['pen'][0]:.0f} %" for name, one in result.everywhere.items())
    note = f"without that mask, of the best 1 % of the tiles: {first}"
    name = "pen among the tiles chosen in tissue, the worst of all scores and budgets"
    return [*found, make_row(name, 100 * worst, "%", bar=(0.0, 1.0), note=note)]


def tree_rows(slide: FieldSlide, terms: str = "entropy,itti") -> Rows:
    """Return what a tree of tokens reads of the nuclei at level 0, beside the best tiles without a tree."""
    pyr, target, pen = ts.open_pyramid(slide.path), slide.shares("nuclei"), slide.shares("pen")
    relevance = Relevance.of(terms)(pyr)
    found = []
    for budget in BUDGETS[1:]:
        tokens = round(budget * target.size)
        recalls, notes = [], []
        for levels in (TREE_LEVELS, (0,)):
            plan = plan_tokens(
                pyr, budget=tokens, relevance=relevance, patch_px=TILE_PX, where="tissue", levels=levels
            )  # fmt: skip
            fine = plan.tokens[plan.tokens[:, 0] == 0]
            mask = np.zeros(target.shape, np.bool_)
            mask[fine[:, 1] // TILE_PX, fine[:, 2] // TILE_PX] = True
            recalls.append(100 * float(target[mask].sum() / target.sum()))
            read = 100 * plan.pixels_read(pyr) / pyr.info.shape.area
            counts = f"{len(plan)} tokens, {len(fine)} of level 0, {read:.1f} % of the pixels"
            notes.append(f"{counts}, {pen[mask].sum():.1f} tiles of pen")
        found.append(
            make_row(
                f"nuclei in a slide, a tree of {tokens} tokens by {terms} in tissue", recalls[0], "% read at level 0",
                rival=("the best tiles, no tree", recalls[1]),
                note=f"levels {TREE_LEVELS}: {notes[0]}; without: {notes[1]}. A tree also covers all other tissue",
            )
        )  # fmt: skip
    return found


def reading_row(slide: FieldSlide, budget: float = 0.1) -> dict[str, Any]:
    """Return how long it takes to look, to choose and to read the best tiles, beside reading all; bytes are counted."""
    pyr = replace(ts.open_pyramid(slide.path), cache_bytes=0)
    counted: dict[str, int] = {}
    mask = np.zeros(slide.tile_bytes.shape, np.bool_)

    def look() -> None:
        scores = tile_scores(Relevance.of("entropy,itti")(pyr), TILE_PX)
        mask[:] = chosen(np.where(tissue_tiles(pyr), scores, -np.inf), budget)

    look()  # compiles
    start = time.perf_counter()
    counted["look"] = bytes_of(look)
    counted["tiles"] = bytes_of(lambda: read_tiles(pyr, mask, TILE_PX))
    ours = time.perf_counter() - start
    start = time.perf_counter()
    counted["all"] = bytes_of(lambda: read_tiles(pyr, np.ones_like(mask), TILE_PX))
    full = time.perf_counter() - start
    held = int(slide.tile_bytes[mask].sum())
    if counted["tiles"] != held:
        raise RuntimeError(f"{counted['tiles']} bytes were read, the chosen tiles have {held} in the file")
    share, looked = (100 * n / counted["all"] for n in (counted["look"] + counted["tiles"], counted["look"]))
    return make_row(
        f"look, choose and read {100 * budget:.0f} % of a slide, one thread", mask.size / ours, "tiles of the slide/s",
        rival=("read all", mask.size / full),
        note=f"entropy and itti in tissue, two looks; {share:.1f} % of the bytes of level 0 ({looked:.1f} % to look): "
        f"rich tiles have more bytes than others; {ours:.2f} s against {full:.2f} s",
    )  # fmt: skip


def cloud_rows(found: Mapping[str, Mapping[str, Found]]) -> Rows:
    """Return a row for each area and score, beside a threshold of brightness."""
    return [
        make_row(
            f"cloud in {area}, {name}, {100 * BUDGETS[AT]:.0f} % of the tiles", one.enrichment[AT], "times chance",
            rival=("brightness", results["brightness"].enrichment[AT]),
            note=f"{_recalls(one)}; brightness {percents(results['brightness'].recall)}",
        )
        for area, results in found.items()
        for name, one in results.items()
        if name != "brightness"
    ]  # fmt: skip


def _recalls(found: Found) -> str:
    budgets = "/".join(f"{100 * budget:.0f}" for budget in BUDGETS)
    return f"recall at {budgets} %: {percents(found.recall)}; median place {100 * found.rank:.1f} %"


@dataclass(frozen=True, kw_only=True, eq=False)
class Fields:
    """All that is measured; None where the images are not there."""

    slide: SlideResult | None
    """Scores of the slide."""
    reading: Rows
    """Trees, what is read, and runs under a budget."""
    cloud: Mapping[str, Mapping[str, Found]] | None
    """Scores of the mosaic by area."""


@cache
def _everything() -> Fields:
    tiles, data = labelled_tiles(), scenes()
    for what, source in (("slide", tiles), ("mosaic", data)):
        if source is None:
            print(f"fields: the {what} is {ABSENT}")
    with TemporaryDirectory() as name:
        folder = Path(name)
        slide = None if tiles is None else write_field_slide(folder / "fields.svs", tiles)
        mosaic = None if data is None else write_cloud_mosaic(folder / "mosaic.tif", data)
        return Fields(
            slide=None if slide is None else judge_slide(ts.open_pyramid(slide.path), slide),
            reading=[] if slide is None else [*tree_rows(slide), reading_row(slide), *embed_rows(slide, folder)],
            cloud=None if mosaic is None else judge_cloud(ts.open_pyramid(mosaic.path), mosaic),
        )


def rows() -> Rows:
    """Return the rows of this benchmark; none of what is made of real images that are not there."""
    found = _everything()
    slide = [] if found.slide is None else slide_rows(found.slide)
    return [*slide, *found.reading, *([] if found.cloud is None else cloud_rows(found.cloud))]


def draw(folder: Path) -> list[Path]:
    """Write the plot of recall over budget, and return its path; nothing where the images are not there."""
    found = _everything()
    if found.slide is None or found.cloud is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    return [plot(found.slide, found.cloud, folder / "fields.png")]
