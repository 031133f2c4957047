"""The commands `tilestream compress` and `tilestream decompress`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilestream.cli import options as opt
from tilestream.cli.stopping import AGAIN, guarded, print_json, same_command

if TYPE_CHECKING:
    from tilestream.pipelines.compress import CompressConfig

Codec = Annotated[
    str,
    typer.Option(
        "--codec",
        metavar="NAME",
        help="What holds each tile: hash (fast to fit and to read), fourier, modulated or siren; shared, with the "
        "decoder of --weights: about 1 kB a tile; or pyramid, the fewest bytes for a quality, also with --weights.",
        rich_help_panel=opt.CHOICES,
    ),
]
Quality = Annotated[
    float | None,
    typer.Option(
        "--quality",
        metavar="Q",
        show_default=False,
        help="1 to 100: larger is closer and costs more (default: 50, or what pyramid networks of --weights are "
        "trained for).",
        rich_help_panel=opt.CHOICES,
    ),
]
MaxError = Annotated[
    int | None,
    typer.Option(
        "--max-error",
        metavar="N",
        show_default=False,
        help="Of pyramid, instead of --quality: no valid sample of any stored level is off by more than N; 0 is "
        "lossless. Takes no fit, unless --steps ask for a picture to look at first, which costs bytes.",
        rich_help_panel=opt.CHOICES,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        metavar="N",
        show_default=False,
        help="Steps of the fit of each tile: the time goes with them, and closeness grows (default: 2000, of shared "
        "120, of pyramid with --weights 100; 0 there is one pass and no fit; with --max-error 0).",
        rich_help_panel=opt.CHOICES,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        show_default=False,
        help="Of shared and pyramid: what tiles share, as `tilestream train codec` has written it.",
        rich_help_panel=opt.CHOICES,
    ),
]
Tile = Annotated[
    int,
    typer.Option(
        "--tile",
        metavar="PX",
        help="Edge of a tile, a multiple of 8: smaller ones pay for their network, larger ones are slow to look into.",
        rich_help_panel=opt.CHOICES,
    ),
]
SingleLevel = Annotated[
    bool,
    typer.Option(
        "--single-level",
        help="Store level 0 alone, of which tilestream makes the others: about a quarter less of pyramid, but other "
        "programs see no coarser level.",
        rich_help_panel=opt.CHOICES,
    ),
]
Relevance = Annotated[
    str | None,
    typer.Option(
        "--relevance",
        metavar="TERM[:WEIGHT],…",
        show_default=False,
        help="Of pyramid: where bytes go. What matters most is as close as without, the rest by up to --emphasis less, "
        "and costs less. mask:FILE is a region (an outline, or a mask), mask:tissue tissue; entropy, gradient, "
        "residual, itti, scorer:FILE and query:box=Y,X,HEIGHT,WIDTH as in `tilestream relevance`.",
        rich_help_panel=opt.CHOICES,
    ),
]
Emphasis = Annotated[
    float | None,
    typer.Option(
        "--emphasis",
        metavar="DB",
        show_default=False,
        help="Decibels between what matters most and what matters least, with --relevance (default: 12).",
        rich_help_panel=opt.CHOICES,
    ),
]
Hours = Annotated[
    float,
    typer.Option(
        "--hours",
        metavar="H",
        help="Most hours that an image may take by its forecast; what would take longer is refused before it begins.",
        rich_help_panel=opt.RUNNING,
    ),
]

Level = Annotated[
    float,
    typer.Option(
        "--level",
        metavar="L",
        help="Level that the file begins with: 1 is half the size, 1.5 lies between that and a quarter.",
        rich_help_panel=opt.CHOICES,
    ),
]
ToPicture = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="png|tiff",
        show_default=False,
        help="PNG, or a TIFF with levels: COG where the image has a place on earth, OME-TIFF else (default: PNG up to "
        "4096 x 4096 px).",
        rich_help_panel=opt.CHOICES,
    ),
]


def compress(
    out: opt.Out,
    paths: opt.Inputs = None,
    manifest: opt.Manifest = None,
    codec: Codec = "hash",
    quality: Quality = None,
    max_error: MaxError = None,
    steps: Steps = None,
    weights: Weights = None,
    tile: Tile = 512,
    single_level: SingleLevel = False,
    relevance: Relevance = None,
    emphasis: Emphasis = None,
    hours: Hours = 72,
    invalid: opt.Invalid = None,
    decibels: opt.Decibels = None,
    cluster: opt.Cluster = None,
    memory: opt.Memory = None,
    resume: opt.Resume = True,
    strict: opt.Strict = False,
    as_json: opt.Json = False,
) -> None:
    """Store slides and scenes as small networks, one a tile, that answer at any level; what is lost is measured."""
    started = time.monotonic()
    from tilestream.cli.progress import Progress

    progress = Progress()
    with guarded(as_json=as_json, stopped=lambda: f"{progress.kept()}. {AGAIN}: {same_command()}") as stop:
        from tilestream.cli.compressing import ToldOfFields, print_compress
        from tilestream.cli.embedding import embed_document
        from tilestream.pipelines.cohort import read_cohort
        from tilestream.pipelines.compress import run_compress

        running: dict[str, Any] = {"cluster": cluster, "memory_bytes": memory, "resume": resume, "strict": strict}
        config = _config(
            out=out,
            codec=codec,
            quality=quality,
            max_error=max_error,
            steps=steps,
            weights=weights,
            tile_px=tile,
            single_level=single_level,
            relevance=relevance,
            emphasis=emphasis,
            hours=hours,
            invalid=invalid,
            decibels=decibels,
            **running,
        )
        cohort = read_cohort(paths or [], manifest=manifest, out=out)
        told = ToldOfFields(progress.hear, progress.console)
        progress.said = told.said
        with progress.shown(len(cohort.entries)):
            outcome = run_compress(cohort, config, on_event=stop.checked(told.hear))
        progress.tell_time(outcome.facts.setting)
        if as_json:
            print_json(embed_document(outcome, strict=strict))
        else:
            print_compress(outcome, cohort, seconds=time.monotonic() - started, tiles_made=progress.tiles)
    raise typer.Exit(outcome.exit_code(strict=strict))


def _config(
    *, invalid: list[str] | None, decibels: str | None, relevance: str | None, emphasis: float | None, **options: Any
) -> CompressConfig:
    """Return the configuration of a run; what is not understood is refused before anything is looked for."""
    from tilestream.pipelines.compress import CompressConfig
    from tilestream.pipelines.compress_relevance import RelevanceChoice
    from tilestream.sources.classes import parse_invalid

    opt.require_choices({"decibels": decibels})
    config = CompressConfig(
        invalid=parse_invalid(invalid or ()),
        decibels=decibels,
        relevance=RelevanceChoice.of(relevance, emphasis),
        **options,
    )
    config.tile_codec()
    return config


def decompress(
    out: opt.Out,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="F", show_default=False, help="Stores that compress wrote, or folders of them."),
    ] = None,
    level: Level = 0.0,
    to: ToPicture = None,
    resume: opt.Resume = True,
    strict: opt.Strict = False,
    as_json: opt.Json = False,
) -> None:
    """Write what compress has stored as pictures again, from any level on."""
    started = time.monotonic()
    kept = f"Files that are finished are kept. {AGAIN}: {same_command()}"
    with guarded(as_json=as_json, stopped=lambda: kept):
        from tilestream.cli.exporting import export_document, exporting, print_export
        from tilestream.pipelines.cohort import read_cohort
        from tilestream.pipelines.decompress import decompress_config, run_decompress

        config = decompress_config(out=out.absolute(), level=level, to=to, resume=resume)
        cohort = read_cohort(paths or [])
        with exporting(len(cohort.entries)) as on_progress:
            outcome = run_decompress(cohort, config, on_progress=on_progress)
        if as_json:
            print_json(export_document(outcome, strict=strict))
        else:
            print_export(outcome, seconds=time.monotonic() - started)
    raise typer.Exit(outcome.exit_code(strict=strict))
