"""The commands `tilestream relevance` and `tilestream plan`: what a coarse look would have looked at closely."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from tilestream.cli import encoding
from tilestream.cli import options as opt
from tilestream.cli import tokenoptions as less
from tilestream.cli.stopping import guarded, print_json, same_command

Terms = Annotated[
    str,
    typer.Option(
        "--relevance",
        metavar="TERM[:WEIGHT],…",
        help=f"What matters: one or several of {less.TERMS}",
        rich_help_panel=opt.CHOICES,
    ),
]
Each = Annotated[
    bool,
    typer.Option("--each", help="Draw and store every term by itself too, in its own unit."),
]


def _stopped() -> str:
    return f"What is written is whole; the same command makes all of it anew: {same_command()}"


def relevance(
    out: opt.Out,
    paths: opt.Inputs = None,
    manifest: opt.Manifest = None,
    terms: Terms = "entropy",
    each: Each = False,
    invalid: opt.Invalid = None,
    decibels: opt.Decibels = None,
    encoder: encoding.Encoders = None,
    weights: encoding.Weights = None,
    random_weights: encoding.RandomWeights = None,
    strict: opt.Strict = False,
    as_json: opt.Json = False,
) -> None:
    """Show how much each part of slides and scenes matters, from a coarse look: PNG over the image, and a raster."""
    started = time.monotonic()
    with guarded(as_json=as_json, stopped=_stopped) as stop:
        from tilestream.cli.looking import look_document, looking, print_looks
        from tilestream.pipelines.cohort import read_cohort
        from tilestream.pipelines.look_relevance import RelevanceConfig, run_relevance
        from tilestream.sources.classes import parse_invalid

        opt.require_choices({"decibels": decibels})
        config = RelevanceConfig(
            out=out,
            terms=terms,
            each=each,
            encoders=encoding.encoder_choices(encoder, weights=weights, random_weights=random_weights),
            invalid=parse_invalid(invalid or ()),
            decibels=decibels,
        )
        cohort = read_cohort(paths or [], manifest=manifest, out=out)
        with looking(len(cohort.entries), as_json=as_json) as on_row:
            outcome = run_relevance(cohort, config, on_row=stop.checked(on_row))
        if as_json:
            print_json(look_document(outcome, strict=strict))
        else:
            print_looks(outcome, seconds=time.monotonic() - started)
    raise typer.Exit(outcome.exit_code(strict=strict))


def plan(
    out: opt.Out,
    paths: opt.Inputs = None,
    manifest: opt.Manifest = None,
    budget: less.Budget = None,
    terms: less.RelevanceTerms = None,
    fovea: less.FoveaPoints = None,
    levels: less.TokenLevels = None,
    where: opt.Where = "tissue",
    tile: opt.Tile = None,
    mpp: opt.Mpp = None,
    invalid: opt.Invalid = None,
    decibels: opt.Decibels = None,
    encoder: encoding.Encoders = None,
    weights: encoding.Weights = None,
    random_weights: encoding.RandomWeights = None,
    strict: opt.Strict = False,
    as_json: opt.Json = False,
) -> None:
    """Show what embed would read under a budget: tokens drawn over the image, as GeoJSON and CSV, and what they cost.

    Only a coarse look is read.
    """
    started = time.monotonic()
    with guarded(as_json=as_json, stopped=_stopped) as stop:
        from tilestream.cli.looking import look_document, looking, print_looks
        from tilestream.pipelines.cohort import read_cohort
        from tilestream.pipelines.look_plan import run_plan

        config = opt.embed_config(
            out=out,
            encoders=encoding.encoder_choices(encoder, weights=weights, random_weights=random_weights),
            tokens=less.token_choice(budget, relevance=terms, fovea=fovea, levels=levels),
            where=where,
            tile_px=tile,
            mpp=mpp,
            invalid=invalid,
            decibels=decibels,
        )
        cohort = read_cohort(paths or [], manifest=manifest, out=out)
        with looking(len(cohort.entries), as_json=as_json) as on_row:
            outcome = run_plan(cohort, config, on_row=stop.checked(on_row))
        if as_json:
            print_json(look_document(outcome, strict=strict))
        else:
            print_looks(outcome, seconds=time.monotonic() - started)
    raise typer.Exit(outcome.exit_code(strict=strict))
