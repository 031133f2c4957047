"""`tilestream plan`: which squares of each image a budget would read, drawn, listed and counted, before it is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.durable import write_durable
from tilestream.errors import ConfigError
from tilestream.pipelines.cohort import Cohort, Entry
from tilestream.pipelines.image import encoders_for
from tilestream.pipelines.look import Looked, LookOutcome, LookRow, run_looks
from tilestream.pipelines.look_figure import COLOURLESS, Swatch, Words, compose, hatch_swatches, png_of, swatch
from tilestream.pipelines.look_panels import Ground, level_colours, mark_fixations, token_panel
from tilestream.pipelines.report_words import format_share
from tilestream.pipelines.token_forecast import TokenForecast, forecast_tokens
from tilestream.pipelines.tokens import TokenCut
from tilestream.plan.tokenplan import TokenPlan
from tilestream.plan.tokentable import token_boxes, tokens_csv
from tilestream.pyramid.pyramid import Pyramid

if TYPE_CHECKING:
    from tilestream.pipelines.embed import EmbedConfig

LEAST_SHARE = 0.0005
"""Of an image, below which the legend says nothing of what is not read: it would stand there as 0.0 %."""


def run_plan(
    cohort: Cohort, config: EmbedConfig, *, on_row: Callable[[LookRow], None] = lambda row: None
) -> LookOutcome:
    """Draw and list the tokens that `embed` with the same options would read of every image.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    config : EmbedConfig
        What the run would be asked to do, with a budget.
    on_row : callable
        Hears what became of each input.

    Returns
    -------
    LookOutcome
        A row an input.

    Raises
    ------
    ConfigError
        When there is nothing to do, or no budget.
    OutputError
        When `config.out` cannot be written.
    """
    if config.tokens is None:
        raise ConfigError.of(
            "`--budget`", got="none", expected="the tiles that are to be read of an image", do="Give --budget N."
        )
    return run_looks(cohort, config, lambda entry, pyramid: _look(entry, pyramid, config), on_row=on_row)


def _look(entry: Entry, pyramid: Pyramid, config: EmbedConfig) -> Looked:
    assert config.tokens is not None
    where = entry.mask or config.where
    encoders = encoders_for(config, pyramid.info)
    cut = TokenCut(choice=config.tokens, encoders=encoders, config=config, where=where, image=pyramid.info)
    plan = cut.plan(pyramid)
    forecast = forecast_tokens(entry.url, pyramid, plan)
    ground = Ground.of(pyramid)
    levels = level_rows(plan, pyramid)
    colours = np.zeros((len(plan.levels), 3), np.uint8)
    colours[[row["level"] for row in levels]] = level_colours(len(levels))[: len(levels)]
    place = config.out / entry.key
    outputs = [Path(f"{place}{ending}") for ending in (".plan.png", ".tokens.geojson", ".tokens.csv")]
    words = plan_words(plan, forecast)
    figure = draw_plan(
        ground,
        plan,
        colours,
        levels=levels,
        words=Words(title=f"{Path(entry.key).name}: {words[0]}", facts=words[1:]),
        fixations_yx=config.tokens.fixations_yx,
    )
    recipe = json.dumps({**cut.recipe, "plan": plan.digest}, sort_keys=True)
    write_durable(outputs[0], png_of(figure, recipe=recipe))
    write_durable(outputs[1], squares_of(plan, pyramid, colours))
    write_durable(outputs[2], "".join(tokens_csv(plan)).encode())
    return Looked(
        outputs=tuple(outputs),
        facts={
            **asdict(forecast),
            "share": forecast.share,
            "levels": levels,
            "where": where,
            "patch_px": plan.patch_px,
            "mpp": None if plan.mpp_yx is None else float(np.sqrt(np.prod(plan.mpp_yx))),
            "digest": plan.digest,
            "recipe": dict(cut.recipe),
        },
        words="; ".join(words),
        damage=ground.damage,
        notes=cut.kept(plan).notes,
    )


def squares_of(plan: TokenPlan, pyramid: Pyramid, colours: npt.NDArray[np.uint8]) -> bytes:
    """Return the tokens as GeoJSON for QuPath, in the colours of the figure.

    Parameters
    ----------
    plan : TokenPlan
        The tokens.
    pyramid : Pyramid
        The image.
    colours : ndarray of uint8
        `(levels, 3)` colour of each token level.

    Returns
    -------
    bytes
        The file.
    """
    document = plan.to_geojson(pyramid.info)
    for feature, level in zip(document["features"], plan.tokens[:, 0].tolist(), strict=True):
        feature["properties"]["color"] = colours[level].tolist()
    return json.dumps(document, separators=(",", ":")).encode()


def level_rows(plan: TokenPlan, pyramid: Pyramid) -> list[dict[str, Any]]:
    """Return what each token level has, the finest first, as JSON values.

    Parameters
    ----------
    plan : TokenPlan
        The tokens.
    pyramid : Pyramid
        The image.

    Returns
    -------
    list of dict
        `level`, `size_px` on level 0, `size_um` or None, `stored` level that is read, `tokens`, and `area_share`, the
        part of the image that they cover.
    """
    height, width = pyramid.info.shape.yx
    boxes = np.clip(token_boxes(plan), 0, [height, width, height, width])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    rows = []
    for depth in np.unique(plan.tokens[:, 0]).tolist():
        mine = plan.tokens[:, 0] == depth
        size_px = (plan.patch_px << depth) * float(max(plan.base.scale_yx))
        rows.append(
            {
                "level": depth,
                "size_px": size_px,
                "size_um": None if pyramid.mpp is None else size_px * pyramid.mpp,
                "stored": plan.level_of(depth).stored,
                "tokens": int(np.count_nonzero(mine)),
                "area_share": float(area[mine].sum() / (height * width)),
            }
        )
    return rows


def plan_words(plan: TokenPlan, forecast: TokenForecast) -> tuple[str, ...]:
    """Return what a plan reads in a few lines.

    Parameters
    ----------
    plan : TokenPlan
        The tokens.
    forecast : TokenForecast
        What they cost.

    Returns
    -------
    tuple of str
        Tokens; pixels beside a full pass; what is decoded and read for them.
    """
    at = "" if plan.mpp_yx is None else f" at {float(np.sqrt(np.prod(plan.mpp_yx))):.3g} µm/px"
    tokens = f"{len(plan):,} {'token' if len(plan) == 1 else 'tokens'} of {plan.patch_px} px"
    if not len(plan):
        return (f"{tokens}: nothing is selected",)
    full_px = forecast.full_tokens * plan.patch_px**2
    seen = f"sees {_mega(forecast.seen_px)} of {_mega(full_px)} Mpx, {100 * forecast.share:.3g} % of the full pass{at}"
    amount = sum(forecast.decoded_px.values())
    decoded = f"decodes {_mega(amount)} Mpx, {format_share(amount / forecast.image_px)} of the image"
    decoded += f", where a full pass decodes {_mega(forecast.full_decoded_px)} Mpx"
    if forecast.read_bytes is not None and forecast.file_bytes is not None:
        decoded += (
            f"; reads about {_mega(forecast.read_bytes)} of {_mega(forecast.file_bytes)} MB after the coarse look"
        )
    return tokens, seen, decoded


def draw_plan(
    ground: Ground,
    plan: TokenPlan,
    colours: npt.NDArray[np.uint8],
    *,
    levels: Sequence[Mapping[str, Any]],
    words: Words,
    fixations_yx: Sequence[tuple[float, float]] = (),
) -> npt.NDArray[np.uint8]:
    """Return the figure of a plan, `(y, x, 3)`: the image, and the image under its tokens.

    Parameters
    ----------
    ground : Ground
        The image.
    plan : TokenPlan
        The tokens.
    colours : ndarray of uint8
        `(levels, 3)` colour of each token level.
    levels : sequence of Mapping
        From `level_rows`.
    words : Words
        The image, and what is read of it.
    fixations_yx : sequence of tuple
        Points looked at, level-0 pixels.

    Returns
    -------
    ndarray of uint8
        With a row of the legend for each level.
    """
    panel = token_panel(ground, token_boxes(plan), plan.tokens[:, 0], colours)
    mark_fixations(panel, ground, fixations_yx)
    legend = [
        Swatch(
            colour=swatch(colours[row["level"]]),
            words=(
                f"level {row['level']}",
                f"{row['size_px']:,.0f} px",
                *(() if row["size_um"] is None else (f"{row['size_um']:,.0f} µm",)),
                f"{row['tokens']:,} {'token' if row['tokens'] == 1 else 'tokens'}",
                f"{100 * row['area_share']:.1f} % of the image",
            ),
        )
        for row in levels
    ]
    if sum(row["area_share"] for row in levels) < 1 - LEAST_SHARE:
        legend.append(Swatch(colour=swatch(COLOURLESS), words=("not read",)))
    if not len(plan):
        words = replace(words, warning="nothing of this image is selected: no token")
    return compose(
        ground,
        [ground.marked(ground.pixels.copy()), panel],
        words,
        legend=[*legend, *hatch_swatches(ground)],
    )


def _mega(amount: float) -> str:
    """Return millions with three figures."""
    value = amount / 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
