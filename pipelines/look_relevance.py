"""`tilestream relevance`: how much each part of an image matters, as a figure and as a raster aligned to the image."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tilestream import __version__
from tilestream.codecs.durable import write_durable
from tilestream.pipelines.cohort import Cohort, Entry
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pipelines.look import Looked, LookOutcome, LookRow, run_looks
from tilestream.pipelines.look_figure import (
    COLOURLESS,
    Swatch,
    Words,
    box_swatch,
    compose,
    hatch_swatches,
    png_of,
    ramp,
    swatch,
)
from tilestream.pipelines.look_panels import Ground, Mask, Pixels, map_panel, mark_boxes
from tilestream.pipelines.relevance import relevance_of
from tilestream.pyramid.pyramid import Pyramid
from tilestream.relevance import Relevance, Term
from tilestream.relevance.grammar import parse_terms
from tilestream.relevance.query import Query
from tilestream.sinks.ome import CellGrid
from tilestream.sinks.raster import FORMAT, write_raster
from tilestream.types import Box, ScoreMap, Shape

RAMP_PX = 320


@dataclass(frozen=True, kw_only=True)
class RelevanceConfig:
    """What to draw of every image of a cohort."""

    out: Path
    """Folder of all outputs; made when it is not there."""
    terms: str
    """What matters, see `tilestream.relevance.grammar`."""
    each: bool = False
    """Whether every term gets a figure and a raster of its own, in its own unit."""
    encoders: tuple[EncoderChoice, ...] = ()
    """For terms that compare vectors."""
    invalid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class layer → classes whose pixels are not valid, in every image."""
    decibels: str | None = None
    """`power` or `amplitude`: what the values of radar images are that are to be used in decibels."""


def run_relevance(
    cohort: Cohort, config: RelevanceConfig, *, on_row: Callable[[LookRow], None] = lambda row: None
) -> LookOutcome:
    """Draw and store how much each part of every image matters.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    config : RelevanceConfig
        What matters, and where outputs go.
    on_row : callable
        Hears what became of each input.

    Returns
    -------
    LookOutcome
        A row an input.

    Raises
    ------
    ConfigError
        When there is nothing to do, or the terms cannot be had.
    OutputError
        When `config.out` cannot be written.
    """
    relevance = relevance_of(config.terms, encoders=config.encoders)
    return run_looks(cohort, config, lambda entry, pyramid: _look(entry, pyramid, relevance, config), on_row=on_row)


def _look(entry: Entry, pyramid: Pyramid, relevance: Relevance, config: RelevanceConfig) -> Looked:
    whole, maps = relevance.seen(pyramid)
    ground = Ground.of(pyramid)
    is_seen = something(ground, maps)
    texts = {**{name: name for name in maps}, **{one.name: one.text for one in parse_terms(config.terms)}}
    words = ", ".join(f"{100 * relevance.shares[name]:.0f} % {texts[name]}" for name in maps)
    wanted = {"": whole, **({f".{name}": one for name, one in maps.items()} if config.each else {})}
    outputs = []
    for part, scores in wanted.items():
        name = scores.name if not part else part[1:]
        place = config.out / f"{entry.key}{_safe(part)}.relevance"
        own = relevance.recipe if not part else relevance.recipe["terms"][name]
        title = Words(title=f"{Path(entry.key).name}: {name}", facts=(texts[name] if part else words,))
        terms = [relevance.terms[name]] if part else list(relevance.terms.values())
        figure = draw_map(ground, scores, is_seen, words=title, examples=examples_on_image(terms))
        outputs += [Path(f"{place}.png"), Path(f"{place}.zarr")]
        write_durable(outputs[-2], png_of(figure, recipe=json.dumps(own, sort_keys=True)))
        store_map(outputs[-1], pyramid, scores, name=name, recipe=own)
    mean = float(whole.values[whole.valid].mean()) if whole.valid.any() else None
    facts = {
        "terms": {name: share for name, share in relevance.shares.items() if share},
        "cells_yx": list(whole.values.shape),
        "cell_yx_px": list(whole.cell_yx),
        "measured_share": float(whole.valid.mean()),
        "mean": mean,
        "recipe": relevance.recipe,
    }
    rows, columns = whole.values.shape
    return Looked(
        outputs=tuple(outputs),
        facts=facts,
        words=f"{rows:,} x {columns:,} cells of {cell_words(pyramid, whole.cell_yx)}",
        damage=ground.damage,
        notes=tuple(note for note in whole.notes if not note.endswith(ground.damage)),
    )


def something(ground: Ground, maps: Mapping[str, ScoreMap]) -> Mask:
    """Return where any term has found more than what is nothing to it, such as the noise of glass.

    Parameters
    ----------
    ground : Ground
        The image.
    maps : Mapping
        What each term says.

    Returns
    -------
    ndarray of bool
        `(y, x)` of the picture.
    """
    seen = np.zeros(ground.unknown.shape, np.bool_)
    for one in maps.values():
        more = one.valid if one.floor is None else one.valid & (one.values > one.floor)
        seen |= np.asarray(ground.at(more, one.cell_yx), np.bool_)
    return seen


def draw_map(
    ground: Ground, scores: ScoreMap, seen: Mask, *, words: Words, examples: Sequence[Sequence[Box]] = ((), ())
) -> Pixels:
    """Return the figure of a score map, `(y, x, 3)` of uint8.

    Parameters
    ----------
    ground : Ground
        The image.
    scores : ScoreMap
        The map.
    seen : ndarray of bool
        `(y, x)` of the picture, where there is anything to see.
    words : Words
        The image, what is shown, and what it was made of.
    examples : pair of sequence of Box
        Places that were named: what is looked for, and what it is to be told from.

    Returns
    -------
    ndarray of uint8
        Image, map, legend.
    """
    limits = shown_limits(scores)
    panels = [ground.marked(ground.pixels.copy()), map_panel(ground, scores, limits, within=seen)]
    legend = hatch_swatches(ground)
    if (~seen & ~ground.unknown).any():
        legend.append(Swatch(colour=swatch(COLOURLESS), words=("nothing to see: even areas, such as glass",)))
    for boxes, ink, what in zip(examples, (255, 0), ("example", "example of what it is not"), strict=True):
        mark_boxes(panels[0], ground, boxes, ink=ink)
        legend += [Swatch(colour=box_swatch(ink), words=(what,))] if boxes else []
    facts = words.facts if scores.absolute else (*words.facts[:-1], f"{words.facts[-1]}, in its own unit")
    warning = "" if scores.values.any() else "nothing stands out in this image"
    words = replace(words, facts=facts, warning=warning)
    return compose(ground, panels, words, bar=ramp(limits, width_px=RAMP_PX), legend=legend)


def examples_on_image(terms: Sequence[Term]) -> tuple[list[Box], list[Box]]:
    """Return the places on the image itself that queries name.

    Parameters
    ----------
    terms : sequence of Term
        Terms of a relevance.

    Returns
    -------
    wanted, unwanted : list of Box
        In pixels of level 0.
    """
    queries = [term for term in terms if isinstance(term, Query)]
    wanted = [one for query in queries for one in query.wanted if isinstance(one, Box)]
    return wanted, [one for query in queries for one in query.unwanted if isinstance(one, Box)]


def shown_limits(scores: ScoreMap) -> tuple[float, float]:
    """Return the values of the first and last colour: 0 and 1 where they mean the same on every image."""
    known = scores.values[scores.valid]
    if scores.absolute or not known.size:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    return (low, high) if high > low else (low, low + 1.0)


def store_map(root: Path, pyramid: Pyramid, scores: ScoreMap, *, name: str, recipe: Mapping[str, Any]) -> None:
    """Write a score map as a multiscale raster in the place of the image; NaN where nothing was measured.

    Parameters
    ----------
    root : Path
        Final place; a raster of ours that is there is replaced.
    pyramid : Pyramid
        The image.
    scores : ScoreMap
        The map.
    name : str
        What it is.
    recipe : Mapping
        What it is a function of besides the image.
    """
    info = pyramid.info
    height, width = scores.values.shape
    grid = CellGrid(
        shape=Shape(y=height, x=width),
        size_yx=scores.cell_yx,
        corner_yx=(0.0, 0.0),
        mpp_yx=info.mpp_yx,
        crs=info.crs,
        affine=info.affine,
    )
    owner = {
        "version": __version__,
        "store": "raster",
        "format": FORMAT,
        "variable": name,
        "image": info.fingerprint,
        "recipe": dict(recipe),
    }
    cells = np.where(scores.valid, scores.values, np.float32("nan")).astype(np.float32)
    write_raster(root, cells, grid, name=name, owner=owner, replace=True)


def cell_words(pyramid: Pyramid, cell_yx: tuple[float, float]) -> str:
    """Return the edge of a cell in the unit of the image."""
    edge = max(cell_yx)
    if pyramid.mpp is not None:
        return f"{edge * pyramid.mpp:.3g} µm"
    return f"{edge:.4g} px" if pyramid.gsd_m is None else f"{edge * pyramid.gsd_m:.4g} m"


def _safe(part: str) -> str:
    """Return the name of a term as a part of a file's name: what it takes stands behind a colon, and may be a path."""
    return "".join(sign if sign.isalnum() or sign in ".-_" else "-" for sign in part)[:80]
