"""The commands of `tilestream`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tilestream import __version__
from tilestream.cli import cacheoptions as caching
from tilestream.cli import chainoptions as chaining
from tilestream.cli import encoding, training
from tilestream.cli import ingestoptions as storing
from tilestream.cli import mapoptions as maps
from tilestream.cli import options as opt
from tilestream.cli import tokenoptions as less
from tilestream.cli.attending import attend
from tilestream.cli.compresscommand import compress, decompress
from tilestream.cli.demo import demo
from tilestream.cli.encoders import encoders
from tilestream.cli.exportcommand import export
from tilestream.cli.lookcommands import plan, relevance
from tilestream.cli.restaging import regions
from tilestream.cli.stopping import AGAIN, guarded, print_json, same_command

app = typer.Typer(
    name="tilestream",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a traceback that can be pasted into an issue
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Streams gigapixel images, slides and satellite scenes alike, through kernels and models in bounded memory.",
    epilog="Exit codes: 0 all done, 2 usage, 3 finished but some inputs failed, 130 interrupted and resumable.",
)
app.add_typer(training.app, name="train")


def main() -> None:
    """Run the command line; the entry point of `tilestream`."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tilestream {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command()
def check(
    paths: opt.Inputs = None,
    out: opt.CheckOut = Path("out"),
    manifest: opt.Manifest = None,
    where: opt.Where = "tissue",
    tile: opt.Tile = None,
    mpp: opt.Mpp = None,
    halo: opt.Halo = 0,
    region: opt.Region = None,
    super_tile: opt.SuperTile = None,
    invalid: opt.Invalid = None,
    decibels: opt.Decibels = None,
    encoder: encoding.Encoders = None,
    weights: encoding.Weights = None,
    random_weights: encoding.RandomWeights = None,
    dtype: encoding.Dtype = None,
    region_stage: chaining.RegionStage = None,
    weights_4k: chaining.RegionWeights = None,
    slide_stage: chaining.SlideStage = None,
    whole_regions: chaining.WholeRegions = None,
    value_range: opt.ValueRange = None,
    cluster: opt.Cluster = None,
    memory: opt.Memory = None,
    batch: opt.BatchSize = 64,
    as_json: opt.Json = False,
) -> None:
    """Say from headers alone what embed would do: verdict, tiles, bytes, time, memory and disk for every input."""
    with guarded(as_json=as_json):
        from tilestream.cli.checking import check_document, checking, print_check
        from tilestream.pipelines.check import run_check
        from tilestream.pipelines.cohort import read_cohort

        cut = {"tile_px": tile, "mpp": mpp, "halo_px": halo, "region_px": region, "super_tile_px": super_tile}
        encoders = encoding.encoder_choices(
            encoder, weights=weights, random_weights=random_weights, dtype=dtype, value_range=value_range
        )
        chain = chaining.chain_choice(
            region_stage, slide_stage, weights=weights_4k, seed=random_weights, whole_regions=whole_regions
        )
        read = {"where": where, "invalid": invalid, "decibels": decibels}
        running = {"cluster": cluster, "memory_bytes": memory, "batch": batch}
        config = opt.embed_config(out=out, encoders=encoders, chain=chain, **read, **cut, **running)
        cohort = read_cohort(paths or [], manifest=manifest, out=out)
        with checking(len(cohort.entries)) as on_row:
            outcome = run_check(cohort, config, on_row=on_row)
        if as_json:
            print_json(check_document(outcome))
        else:
            print_check(outcome)
    raise typer.Exit(outcome.exit_code)


@app.command()
def info(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", show_default=False, help="Path or URL; #t=3 selects, #classes=SCL too.")
    ],
    validate: Annotated[
        bool,
        typer.Option(
            "--validate",
            help="Read every tile, and run the validators that are installed; exit code 3 when one says invalid.",
        ),
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Show what is known of one image: levels, resolution, axes, channels, coordinates and notes."""
    with guarded(as_json=as_json):
        if validate:
            from tilestream.cli.validating import print_validation, validation_document
            from tilestream.pipelines.validate import validate_image

            validation = validate_image(image)
            if as_json:
                print_json(validation_document(validation))
            else:
                print_validation(validation)
            raise typer.Exit(validation.exit_code)
        from tilestream.cli.describing import print_image
        from tilestream.pipelines.describe import describe_image

        facts = describe_image(image)
        if as_json:
            print_json(facts)
        else:
            print_image(facts)


@app.command()
def embed(
    out: opt.Out,
    paths: opt.Inputs = None,
    manifest: opt.Manifest = None,
    where: opt.Where = "tissue",
    budget: less.Budget = None,
    relevance: less.RelevanceTerms = None,
    fovea: less.FoveaPoints = None,
    levels: less.TokenLevels = None,
    progressive: less.Progressive = False,
    tile: opt.Tile = None,
    mpp: opt.Mpp = None,
    halo: opt.Halo = 0,
    region: opt.Region = None,
    super_tile: opt.SuperTile = None,
    invalid: opt.Invalid = None,
    decibels: opt.Decibels = None,
    encoder: encoding.Encoders = None,
    weights: encoding.Weights = None,
    random_weights: encoding.RandomWeights = None,
    dtype: encoding.Dtype = None,
    region_stage: chaining.RegionStage = None,
    weights_4k: chaining.RegionWeights = None,
    slide_stage: chaining.SlideStage = None,
    whole_regions: chaining.WholeRegions = None,
    value_range: opt.ValueRange = None,
    cluster: opt.Cluster = None,
    memory: opt.Memory = None,
    cache: caching.Cache = None,
    disk_cache: caching.DiskCache = None,
    batch: opt.BatchSize = 64,
    resume: opt.Resume = True,
    strict: opt.Strict = False,
    as_json: opt.Json = False,
) -> None:
    """Turn slides and scenes into features, maps and a report; run it again to go on after an interrupt."""
    started = time.monotonic()
    from tilestream.cli.progress import Progress

    progress = Progress()
    with guarded(as_json=as_json, stopped=lambda: f"{progress.kept()}. {AGAIN}: {same_command()}") as stop:
        from tilestream.cli.embedding import embed_shown
        from tilestream.pipelines.cohort import read_cohort

        running = {"cluster": cluster, "memory_bytes": memory, "batch": batch, "resume": resume, "strict": strict}
        cut = {"tile_px": tile, "mpp": mpp, "halo_px": halo, "region_px": region, "super_tile_px": super_tile}
        encoders = encoding.encoder_choices(
            encoder, weights=weights, random_weights=random_weights, dtype=dtype, value_range=value_range
        )
        chain = chaining.chain_choice(
            region_stage, slide_stage, weights=weights_4k, seed=random_weights, whole_regions=whole_regions
        )
        tokens = less.token_choice(budget, relevance=relevance, fovea=fovea, levels=levels, progressive=progressive)
        read = {"where": where, "invalid": invalid, "decibels": decibels, "tokens": tokens}
        config = opt.embed_config(
            out=out, encoders=encoders, chain=chain, **read, **cut, **running, **caching.cache_fields(cache, disk_cache)
        )
        cohort = read_cohort(paths or [], manifest=manifest, out=out)
        code = embed_shown(cohort, config, progress=progress, stop=stop, started=started, as_json=as_json)
    raise typer.Exit(code)


app.command()(export)


@app.command()
def ingest(
    out: opt.OutPlace,
    paths: opt.Inputs = None,
    manifest: opt.Manifest = None,
    profile: opt.Profile = None,
    quality: storing.Quality = None,
    max_error: storing.MaxError = None,
    steps: storing.Steps = None,
    weights: storing.Weights = None,
    single_level: storing.SingleLevel = False,
    fill_levels: opt.FillLevels = False,
    jpegxl: storing.JpegXl = False,
    filter: storing.Filter = None,
    light: storing.Light = "stored",
    keep_identifying: opt.KeepIdentifying = False,
    invalid: opt.Invalid = None,
    decibels: opt.Decibels = None,
    cluster: opt.Cluster = None,
    memory: opt.Memory = None,
    resume: opt.Resume = True,
    update: opt.Update = None,
    strict: opt.Strict = False,
    as_json: opt.Json = False,
) -> None:
    """Store slides and scenes as Zarr pyramids that OME-Zarr tools, GeoZarr tools and xarray open."""
    started = time.monotonic()
    from tilestream.cli.progress import Progress

    progress = Progress(noun="super-tile")
    with guarded(as_json=as_json, stopped=lambda: f"{progress.kept()}. {AGAIN}: {same_command()}") as stop:
        from tilestream.cli.ingesting import announced, exit_code, ingest_document, print_ingest
        from tilestream.pipelines.ingest import ingest_cohort, ingest_setting, run_ingest
        from tilestream.pipelines.update import run_update

        fit = {"quality": quality, "max_error": max_error, "steps": steps, "weights": weights}
        stored: dict[str, Any] = {"fill_levels": fill_levels, "jpegxl": jpegxl, "keep_identifying": keep_identifying}
        running: dict[str, Any] = {"cluster": cluster, "memory_bytes": memory, "resume": resume}
        config = storing.ingest_config(
            out=out,
            profile=profile,
            fit={**fit, "single_level": single_level},
            filter=filter,
            light=light,
            invalid=invalid,
            decibels=decibels,
            **stored,
            **running,
        )
        boxes = opt.parse_boxes(update or [])
        cohort = ingest_cohort(paths or [], manifest=manifest, config=config)
        if boxes:
            rows = run_update(cohort, config, boxes)
        else:
            with progress.shown(len(cohort.entries)):
                rows = run_ingest(cohort, config, on_event=stop.checked(announced(progress.hear, progress.console)))
            progress.tell_time(ingest_setting(cohort, config))
        if as_json:
            print_json(ingest_document(rows, cohort, strict=strict))
        else:
            print_ingest(rows, cohort, seconds=time.monotonic() - started)
    raise typer.Exit(exit_code(rows, cohort, strict=strict))


@app.command("map")
def map_(
    out: opt.Out,
    stage: maps.Stage,
    paths: opt.Inputs = None,
    manifest: opt.Manifest = None,
    where: opt.Where = "tissue",
    tile: maps.Tile = None,
    halo: maps.Halo = None,
    blend: maps.Blend = False,
    mpp: opt.Mpp = None,
    super_tile: opt.SuperTile = None,
    invalid: opt.Invalid = None,
    decibels: opt.Decibels = None,
    to: maps.ToFile = None,
    cluster: opt.Cluster = None,
    memory: opt.Memory = None,
    cache: caching.Cache = None,
    disk_cache: caching.DiskCache = None,
    batch: opt.BatchSize = 64,
    resume: opt.Resume = True,
    strict: opt.Strict = False,
    as_json: opt.Json = False,
) -> None:
    """Run a stage over whole slides and scenes and store what it says of every pixel, as pyramids or COG too."""
    started = time.monotonic()
    from tilestream.cli.progress import Progress

    progress = Progress()
    with guarded(as_json=as_json, stopped=lambda: f"{progress.kept()}. {AGAIN}: {same_command()}") as stop:
        from tilestream.cli.embedding import embed_document, print_embed
        from tilestream.cli.mapping import ToldOfMaps
        from tilestream.pipelines.cohort import read_cohort
        from tilestream.pipelines.map_run import run_map

        running = {"cluster": cluster, "memory_bytes": memory, "batch": batch, "resume": resume, "strict": strict}
        config = maps.map_config(
            out=out,
            stage=stage,
            where=where,
            tile_px=tile,
            halo_px=halo,
            blend=blend,
            mpp=mpp,
            super_tile_px=super_tile,
            invalid=invalid,
            decibels=decibels,
            to=to,
            **running,
            **caching.cache_fields(cache, disk_cache),
        )
        cohort = read_cohort(paths or [], manifest=manifest, out=out)
        told = ToldOfMaps(progress.hear, progress.console)
        with progress.shown(len(cohort.entries)):
            outcome = run_map(cohort, config, on_event=stop.checked(told.hear), on_file=told.files.append)
        progress.tell_time(outcome.facts.setting)
        told.print_files()
        if as_json:
            print_json(embed_document(outcome, strict=strict))
        else:
            print_embed(outcome, cohort, seconds=time.monotonic() - started, tiles_made=progress.tiles)
    raise typer.Exit(outcome.exit_code(strict=strict))


app.command()(compress)
app.command()(decompress)
app.command()(attend)
app.command()(relevance)
app.command()(plan)
app.command()(regions)


@app.command()
def cluster(
    profile: Annotated[str, typer.Argument(metavar="slurm|kubernetes", help="Which profile.", show_default=False)],
) -> None:
    """Print a cluster profile that comes with tilestream: copy it, edit it, and name the copy in --cluster."""
    with guarded(as_json=False):
        from tilestream.cluster.profile import shipped_profile

        typer.echo(shipped_profile(profile).read_text(encoding="utf-8"), nl=False)


app.command()(demo)
app.command()(encoders)
