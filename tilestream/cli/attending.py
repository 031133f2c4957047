"""`tilestream attend`: its options, and what it runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilestream.cli import cacheoptions as caching
from tilestream.cli import options as opt
from tilestream.cli.stopping import AGAIN, guarded, print_json, same_command
from tilestream.errors import ConfigError

if TYPE_CHECKING:
    from tilestream.pipelines.map_run import MapConfig

Encoder = Annotated[
    str,
    typer.Option(
        "--encoder",
        metavar="hipt|module:callable",
        help="Whose attention: HIPT, or what makes a network of tiles with `forward_attention`, or a pair of it and a "
        "network of regions.",
        rich_help_panel=opt.CHOICES,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        show_default=False,
        help="Weights of the network of tiles (HIPT: vit256_small_dino.pth).",
        rich_help_panel=opt.CHOICES,
    ),
]
Weights4k = Annotated[
    Path | None,
    typer.Option(
        "--weights-4k",
        metavar="FILE",
        show_default=False,
        help="Weights of the network of regions (HIPT: vit4k_xs_dino.pth).",
        rich_help_panel=opt.CHOICES,
    ),
]
RandomWeights = Annotated[
    int | None,
    typer.Option(
        "--random-weights",
        metavar="SEED",
        min=0,
        show_default=False,
        help="Random weights in place of files, to try things out: the maps then mean nothing, and say so.",
        rich_help_panel=opt.CHOICES,
    ),
]
Region = Annotated[
    int,
    typer.Option(
        "--region",
        metavar="PX",
        min=1,
        help="Edge of a region, whole tiles of the encoder.",
        rich_help_panel=opt.CHOICES,
    ),
]
Maps = Annotated[
    str | None,
    typer.Option(
        "--maps",
        metavar="NAMES",
        show_default=False,
        help="Which maps, with commas: mean (over all pairs of heads), region and tile (of each head of the two "
        "networks), pairs (of one head of each). Default: all that the encoder has, 49 for HIPT.",
        rich_help_panel=opt.CHOICES,
    ),
]


def attend(
    out: opt.Out,
    paths: opt.Inputs = None,
    manifest: opt.Manifest = None,
    encoder: Encoder = "hipt",
    weights: Weights = None,
    weights_4k: Weights4k = None,
    random_weights: RandomWeights = None,
    region: Region = 4096,
    maps: Maps = None,
    where: opt.Where = "tissue",
    mpp: opt.Mpp = None,
    super_tile: opt.SuperTile = None,
    cluster: opt.Cluster = None,
    memory: opt.Memory = None,
    cache: caching.Cache = None,
    disk_cache: caching.DiskCache = None,
    resume: opt.Resume = True,
    strict: opt.Strict = False,
    as_json: opt.Json = False,
) -> None:
    """Show what a hierarchical encoder looks at: attention maps of whole slides, as pyramids and as PNG.

    Each head of the two networks gives a map, and each pair of them a combined one: percentile ranks within a region,
    averaged over shifted copies of it. A pixel of a map is a token, 16 px of the image for HIPT.
    """
    started = time.monotonic()
    from tilestream.cli.progress import Progress

    progress = Progress()
    with guarded(as_json=as_json, stopped=lambda: f"{progress.kept()}. {AGAIN}: {same_command()}") as stop:
        from tilestream.cli.embedding import embed_document, print_embed
        from tilestream.cli.mapping import ToldOfMaps
        from tilestream.pipelines.attend import run_attend
        from tilestream.pipelines.cohort import read_cohort

        running = {"cluster": cluster, "memory_bytes": memory, "resume": resume, "strict": strict}
        files = {"weights": weights, "weights_4k": weights_4k}
        config = attend_config(
            out=out,
            encoder=encoder,
            files=files,
            random_weights=random_weights,
            region_px=region,
            maps=maps,
            where=where,
            mpp=mpp,
            super_tile_px=super_tile,
            **running,
            **caching.cache_fields(cache, disk_cache),
        )
        cohort = read_cohort(paths or [], manifest=manifest, out=out)
        told = ToldOfMaps(progress.hear, progress.console)
        with progress.shown(len(cohort.entries)):
            outcome = run_attend(cohort, config, on_event=stop.checked(told.hear))
        progress.tell_time(outcome.facts.setting)
        if as_json:
            print_json(embed_document(outcome, strict=strict))
        else:
            print_embed(outcome, cohort, seconds=time.monotonic() - started, tiles_made=progress.tiles)
    raise typer.Exit(outcome.exit_code(strict=strict))


def attend_config(
    *,
    encoder: str,
    files: dict[str, Path | None],
    random_weights: int | None,
    region_px: int,
    maps: str | None,
    **options: Any,
) -> MapConfig:
    """Return the configuration of a run, its options checked and its networks made.

    Parameters
    ----------
    encoder : str
        `hipt` or `module:callable`.
    files : dict
        `weights` and `weights_4k`.
    random_weights : int, optional
        Seed.
    region_px : int
        Edge of a region.
    maps : str, optional
        Names with commas.
    **options : object
        Fields of `MapConfig`.

    Returns
    -------
    MapConfig
        Of the stage `attention`, one region a batch.

    Raises
    ------
    ConfigError
        When an option is not understood, there are no weights, or the encoder has no attention.
    """
    from tilestream.cli.mapoptions import map_config

    given = {key: str(path.absolute()) for key, path in files.items() if path is not None}
    if random_weights is not None and given:
        raise ConfigError.of(
            "`--random-weights`",
            got=f"files of weights too, {', '.join(given.values())}",
            expected="one or the other",
            do="Leave one out.",
        )
    params: dict[str, Any] = {"encoder": encoder, "region_px": region_px, **given}
    if random_weights is not None:
        params["random_weights"] = random_weights
    if maps is not None:
        params["maps"] = [name.strip() for name in maps.split(",")]
    return map_config(stage="attention", stage_params=params, batch=1, **options)
