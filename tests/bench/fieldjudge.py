"""Scores of the slide and of the mosaic, and what they find there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tests.bench.fieldscene import TILE_PX as SCENE_TILE_PX
from tests.bench.fieldscene import CloudMosaic
from tests.bench.fieldscores import Found, Scores, judge, judge_even, judge_random, tile_scores
from tests.bench.fieldslide import TILE_PX, FieldSlide
from tilestream.pipelines.embedder import TileEmbedder
from tilestream.plan.tissue import select_tissue
from tilestream.pyramid import Pyramid
from tilestream.pyramid.coarse import mask_level, read_coarse
from tilestream.relevance import Relevance, regrid
from tilestream.relevance.query import Query
from tilestream.types import Box, ScoreMap

TERMS = ("entropy", "gradient", "residual", "itti")
TISSUE_SHARE = 0.1
"""Share of a tile that must be tissue, as plans have it."""


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
    """Mean of tiles that are spread evenly."""


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
        uniform=judge_even(target),
    )


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
        results[area]["even"] = judge_even(mosaic.cloud, wanted=wanted)
    return results
