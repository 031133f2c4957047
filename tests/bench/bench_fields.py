"""Where scores send the eye on real images: nuclei in a slide among pens and glass, cloud in a mosaic by an example.

A worked example: one slide and one mosaic, no intervals. Scores see a coarse level alone; the best tiles of level 0
under a budget are then looked at, and what they hold is known from how the images were made (`tests.bench.fieldslide`,
`tests.bench.fieldscene`). Enrichment is recall over budget, and 1 for tiles drawn at random.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

import tilestream as ts
from tests.bench.fieldscene import TILE_PX as SCENE_TILE_PX
from tests.bench.fieldscene import CloudMosaic, scenes, write_cloud_mosaic
from tests.bench.fieldscores import (
    BUDGETS,
    Found,
    Scores,
    bytes_of,
    chosen,
    judge,
    judge_random,
    read_tiles,
    tile_scores,
    uniform_scores,
)  # fmt: skip
from tests.bench.fieldslide import TILE_PX, FieldSlide, labelled_tiles, write_field_slide
from tests.bench.table import make_row
from tilestream.pipelines.embedder import TileEmbedder
from tilestream.plan.tissue import select_tissue
from tilestream.pyramid import Pyramid
from tilestream.pyramid.coarse import mask_level, read_coarse
from tilestream.relevance import Relevance, regrid
from tilestream.relevance.query import Query
from tilestream.types import Box, ScoreMap

AT = 1
"""Which of `BUDGETS` a row is about; its note has all."""
TERMS = ("entropy", "gradient", "residual", "itti")
TISSUE_SHARE = 0.1
"""Share of a tile that must be tissue, as plans have it."""
ABSENT = "made of real images that are not here: set TILESTREAM_DATA"


def example_query(box: Box, *, scene: bool, standardise: bool = True, where: str = "all") -> Query:
    """Return the query for what resembles a box, by `handcrafted` vectors in cells of a tile of level 0."""
    tile_px, reduce = (16, 4.0) if scene else (32, 8.0)
    embedder = TileEmbedder(encoder="handcrafted", params={"tile_px": tile_px}, reduce=reduce, where=where)
    return Query(embedder=embedder, wanted=(box,), standardise=standardise)


def brightness(pyr: Pyramid) -> ScoreMap:
    """Return how bright each place is at the coarse level: the rival that needs no method; its negative is darkness."""
    coarse = read_coarse(pyr, mask_level(pyr.info))
    assert coarse.pixels is not None
    values = coarse.pixels.astype(np.float32).mean(axis=2) / 255
    return ScoreMap(
        name="brightness", values=np.where(coarse.valid, values, 0), valid=coarse.valid,
        cell_yx=coarse.level.scale_yx, shape=pyr.info.shape,
    )  # fmt: skip


def slide_scores(pyr: Pyramid, slide: FieldSlide) -> dict[str, Scores]:
    """Return the scores of the tiles of the slide by name."""
    maps = Relevance.of(",".join(TERMS)).maps(pyr)
    bright = brightness(pyr)
    maps["darkness"] = replace(bright, values=1 - bright.values)
    maps["like a box, raw"] = example_query(slide.example, scene=False, standardise=False)(pyr)
    maps["like a box"] = example_query(slide.example, scene=False)(pyr)
    weights = {"entropy": 0.25, "itti": 0.25, "like a box": 0.5}
    known = {name: (lambda _, name=name: maps[name]) for name in weights}  # none is computed twice
    maps["entropy, itti and like a box"] = Relevance(terms=known, weights=weights)(pyr)
    return {name: tile_scores(found, TILE_PX) for name, found in maps.items()}


def tissue_tiles(pyr: Pyramid) -> npt.NDArray[np.bool_]:
    """Return which tiles of level 0 hold tissue, as plans select them."""
    selection = select_tissue(pyr)
    mask = ScoreMap(
        name="tissue", values=selection.mask.astype(np.float32), valid=np.ones(selection.mask.shape, np.bool_),
        cell_yx=selection.scale_yx, shape=pyr.info.shape,
    )  # fmt: skip
    return np.asarray(regrid(mask, (float(TILE_PX), float(TILE_PX))).values >= TISSUE_SHARE)


@dataclass(frozen=True, kw_only=True, eq=False)
class SlideResult:
    """What scores find in the slide."""

    everywhere: dict[str, Found]
    """By name, all tiles allowed."""
    in_tissue: dict[str, Found]
    """By name, tiles without tissue last."""
    random: Found
    """Mean of draws."""
    uniform: Found
    """Spread evenly."""


def judge_slide(pyr: Pyramid, slide: FieldSlide) -> SlideResult:
    """Return what scores find in the slide, with and without its mask of tissue."""
    target, tissue = slide.shares("nuclei"), tissue_tiles(pyr)
    others = {kind: slide.shares(kind) for kind in ("pen", "pen on tissue", "glass", "blank")}
    scores = slide_scores(pyr, slide)
    masked = {name: np.where(tissue, one, -np.inf) for name, one in scores.items()}
    return SlideResult(
        everywhere={name: judge(name, one, target, others=others) for name, one in scores.items()},
        in_tissue={name: judge(name, one, target, others=others) for name, one in masked.items()},
        random=judge_random(target)[0],
        uniform=judge("even", uniform_scores(target.shape), target),
    )


def slide_rows(folder: Path, tiles: Path, *, edge_px: int = 16_384) -> list[dict[str, Any]]:
    """Return a row a score, one of pens, and one of what is read.

    Parameters
    ----------
    folder : Path
        For the slide.
    tiles : Path
        The labelled tiles.
    edge_px : int
        Of the slide.

    Returns
    -------
    list of dict
        Rows.
    """
    slide = write_field_slide(folder / "fields.svs", tiles, edge_px=edge_px)
    pyr = ts.open_pyramid(slide.path)
    result = judge_slide(pyr, slide)
    what = f"nuclei in a slide of {edge_px}²"
    found = [
        make_row(
            f"{what}, {name}, {BUDGETS[AT]:.0%} of the tiles", one.enrichment[AT], "× chance",
            rival=("tiles at random, 20 draws", result.random.enrichment[AT]),
            note=f"{_recalls(one)}; pen {_percents(one.others['pen'])}, without the mask of tissue recall "
            f"{_percents(result.everywhere[name].recall)} and pen {_percents(result.everywhere[name].others['pen'])}",
        )
        for name, one in result.in_tissue.items()
    ]  # fmt: skip
    worst = max(one.others["pen"][at] for one in result.in_tissue.values() for at in range(len(BUDGETS)))
    unmasked = {name: one.others["pen"][0] for name, one in result.everywhere.items()}
    found.append(
        make_row(
            "pen among the tiles chosen in tissue, the worst of all scores and budgets", 100 * worst, "%",
            bar=(0.0, 1.0),
            note="without the mask of tissue, of the best 1 %: "
            + ", ".join(f"{name} {100 * share:.0f} %" for name, share in unmasked.items()),
        )
    )  # fmt: skip
    return [*found, reading_row(slide)]


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
    return make_row(
        f"look, choose and read {budget:.0%} of a slide, one thread", mask.size / ours, "tiles of the slide/s",
        rival=("read all", mask.size / full),
        note=f"entropy and itti in tissue; {100 * (counted['look'] + counted['tiles']) / counted['all']:.1f} % of the "
        f"bytes of level 0 ({100 * counted['look'] / counted['all']:.1f} % to look): rich tiles have more bytes than "
        f"others; {ours:.2f} s against {full:.2f} s",
    )  # fmt: skip


def cloud_scores(pyr: Pyramid, mosaic: CloudMosaic) -> dict[str, Scores]:
    """Return the scores of the tiles of the mosaic by name."""
    maps: dict[str, ScoreMap] = {
        "like a box": example_query(mosaic.example, scene=True)(pyr),
        "like a box, raw": example_query(mosaic.example, scene=True, standardise=False)(pyr),
        "brightness": brightness(pyr),
        **Relevance.of(",".join(TERMS)).maps(pyr),
    }
    return {name: tile_scores(found, SCENE_TILE_PX) for name, found in maps.items()}


def judge_cloud(pyr: Pyramid, mosaic: CloudMosaic) -> Mapping[str, dict[str, Found]]:
    """Return what scores find by area that is scored: the scene alone, and with the ice of Blue Marble."""
    scores = cloud_scores(pyr, mosaic)
    areas = {"the scene": mosaic.scene, "the scene and ice": mosaic.scene | mosaic.marble}
    results = {}
    for area, wanted in areas.items():
        results[area] = {name: judge(name, one, mosaic.cloud, wanted=wanted) for name, one in scores.items()}
        results[area]["random"] = judge_random(mosaic.cloud, wanted=wanted)[0]
        even = uniform_scores(mosaic.cloud.shape)
        results[area]["even"] = judge("even", even, mosaic.cloud, wanted=wanted)
    return results


def cloud_rows(folder: Path, data: Path) -> list[dict[str, Any]]:
    """Return a row for each area and score, beside a threshold of brightness."""
    mosaic = write_cloud_mosaic(folder / "mosaic.tif", data)
    pyr = ts.open_pyramid(mosaic.path)
    found = []
    for area, results in judge_cloud(pyr, mosaic).items():
        bright = results.pop("brightness")
        for name, one in results.items():
            found.append(
                make_row(
                    f"cloud in {area}, {name}, {BUDGETS[AT]:.0%} of the tiles", one.enrichment[AT], "× chance",
                    rival=("brightness", bright.enrichment[AT]),
                    note=f"{_recalls(one)}; brightness {_percents(bright.recall)}",
                )
            )  # fmt: skip
    return found


def _recalls(found: Found) -> str:
    budgets = "/".join(f"{100 * budget:.0f}" for budget in BUDGETS)
    return f"recall at {budgets} %: {_percents(found.recall)}; median place {100 * found.rank:.1f} %"


def _percents(shares: tuple[float, ...]) -> str:
    return "/".join(f"{100 * share:.0f}" for share in shares) + " %"


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; none of what is made of real images that are not there."""
    tiles, data = labelled_tiles(), scenes()
    found = []
    with TemporaryDirectory() as folder:
        for what, source, measure in (("slide", tiles, slide_rows), ("mosaic", data, cloud_rows)):
            if source is None:
                print(f"fields: the {what} is {ABSENT}")
            else:
                found += measure(Path(folder), source)
    return found
