"""The command `tilestream train codec` and what it prints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tilestream.cli import options as opt
from tilestream.cli import trainoptions as train
from tilestream.cli.lines import print_line
from tilestream.cli.stopping import guarded, print_json
from tilestream.cli.words import counted, duration, size
from tilestream.errors import ConfigError

if TYPE_CHECKING:
    from tilestream.pipelines.train_codec import CodecConfig, CodecOutcome
    from tilestream.pipelines.train_pyramid import PyramidConfig

SHARED, PYRAMID = "shared", "pyramid"
BYTES, STRIDE_PX, QUALITY = 1000, 8, 50.0
_OF_SHARED, _OF_PYRAMID = ("--bytes", "--stride"), ("--quality", "--start")

Source = Annotated[
    Path,
    typer.Argument(metavar="SOURCE", show_default=False, help="An image, or a folder of images like those to come."),
]
Codec = Annotated[
    str,
    typer.Option(
        "--codec",
        metavar="shared|pyramid",
        help="What is trained: the decoder of shared fields, or networks of pyramids, which also encode in one pass.",
        rich_help_panel=opt.CHOICES,
    ),
]
Bytes = Annotated[
    int | None,
    typer.Option(
        "--bytes",
        metavar="N",
        min=64,
        help=f"Of shared: bytes that a tile is to have on average (default: {BYTES:,}).",
        rich_help_panel=opt.CHOICES,
    ),
]
Quality = Annotated[
    float | None,
    typer.Option(
        "--quality",
        metavar="Q",
        min=1,
        max=100,
        help=f"Of pyramid: what the networks are for, 1 to 100 (default: {QUALITY:g}).",
        rich_help_panel=opt.CHOICES,
    ),
]
Start = Annotated[
    Path | None,
    typer.Option(
        "--start",
        metavar="FILE",
        help="Of pyramid: networks to go on from, for another quality or for one slide after a cohort.",
        rich_help_panel=train.TRAINING,
    ),
]
Tile = Annotated[
    int, typer.Option("--tile", metavar="PX", min=32, help="Edge of the tiles to come.", rich_help_panel=opt.CHOICES)
]
Stride = Annotated[
    int | None,
    typer.Option(
        "--stride",
        metavar="PX",
        min=2,
        help="Of shared: pixels of a cell of latents along each axis, even: 16 suits a quarter of the bytes a pixel "
        f"that 8 does (default: {STRIDE_PX}).",
        rich_help_panel=opt.CHOICES,
    ),
]
Squares = Annotated[
    int,
    typer.Option(
        "--squares", metavar="N", min=2, help="Most tiles of an image to learn from.", rich_help_panel=opt.CHOICES
    ),
]
Steps = Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Steps.", rich_help_panel=train.TRAINING)]
Batch = Annotated[
    int | None,
    typer.Option(
        "--batch",
        metavar="N",
        min=1,
        help="Crops of a step (default: 8 of shared, 4 of pyramid).",
        rich_help_panel=train.TRAINING,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--lr",
        metavar="X",
        min=0,
        help="Largest learning rate (default: 0.002 of shared, 0.003 of pyramid).",
        rich_help_panel=train.TRAINING,
    ),
]


def codec(
    source: Source,
    out: opt.Out,
    codec: Codec = SHARED,
    bytes_a_tile: Bytes = None,
    quality: Quality = None,
    tile: Tile = 256,
    stride: Stride = None,
    where: train.ScorerWhere = "tissue",
    squares: Squares = 64,
    start: Start = None,
    steps: Steps = 4000,
    batch: Batch = None,
    lr: Rate = None,
    seed: train.Seed = 0,
    as_json: opt.Json = False,
) -> None:
    """Train what tiles of a cohort share, for `compress --codec shared` or `pyramid`; measured on what it never saw."""
    started = time.monotonic()
    with guarded(as_json=as_json, stopped=lambda: "nothing is kept of a training that was stopped") as stop:
        from tilestream.cli.training import require_packages

        require_packages("torch")
        own = {"--bytes": bytes_a_tile, "--stride": stride, "--quality": quality, "--start": start}
        _require_options(codec, own)
        places = {"source": source, "out": out, "where": where, "squares": squares}
        given: dict[str, Any] = {"steps": steps, "seed": seed}
        given |= {name: value for name, value in (("batch", batch), ("lr", lr)) if value is not None}
        with told_of_codec(quiet=as_json, steps=steps) as hear:
            outcome: Any
            if codec == PYRAMID:
                from tilestream.pipelines.train_pyramid import run_pyramid

                config = _pyramid_config(places, given, tile=tile, quality=quality or QUALITY, start=start)
                outcome = run_pyramid(config, on_event=stop.checked(hear))
            else:
                from tilestream.pipelines.train_codec import run_codec

                settings = _shared_config(
                    places, given, tile=tile, stride=stride or STRIDE_PX, bytes_a_tile=bytes_a_tile or BYTES
                )
                outcome = run_codec(settings, on_event=stop.checked(hear))
        if as_json:
            print_json({"status": "done", "out": str(out), **outcome.document})
        else:
            told = print_codec if codec == SHARED else print_pyramid
            told(outcome, seconds=time.monotonic() - started)


def _require_options(codec: str, given: Mapping[str, object]) -> None:
    """Raise `ConfigError` for a codec that is none, or an option of the other one."""
    if codec not in (SHARED, PYRAMID):
        raise ConfigError.of("`--codec`", got=repr(codec), expected=f"{SHARED} or {PYRAMID}", do="Choose one.")
    for name in _OF_PYRAMID if codec == SHARED else _OF_SHARED:
        if given[name] is not None:
            other = PYRAMID if codec == SHARED else SHARED
            raise ConfigError.of(
                f"`{name}`", got=f"it with `--codec {codec}`", expected=f"it with `--codec {other}`", do="Leave it out."
            )


def _shared_config(
    places: Mapping[str, Any], given: Mapping[str, Any], *, tile: int, stride: int, bytes_a_tile: int
) -> CodecConfig:
    from tilestream.codecs.fields.shareddecoder import SharedShape
    from tilestream.codecs.fields.sharedtraining import SharedTraining
    from tilestream.pipelines.train_codec import CodecConfig

    settings = SharedTraining(
        shape=SharedShape(stride_px=stride),
        bytes_a_picture=bytes_a_tile,
        picture_px=tile,
        crop_px=min(16 * stride, tile // stride * stride),
        **given,
    )
    return CodecConfig(**places, settings=settings)


def _pyramid_config(
    places: Mapping[str, Any], given: Mapping[str, Any], *, tile: int, quality: float, start: Path | None
) -> PyramidConfig:
    from tilestream.codecs.pyramid.price import lmbda_of_quality
    from tilestream.codecs.pyramid.sharedtraining import PyramidTraining
    from tilestream.pipelines.train_pyramid import PyramidConfig

    settings = PyramidTraining(lmbda=lmbda_of_quality(quality), **given)
    return PyramidConfig(**places, square_px=tile, start=start, settings=settings)


@contextmanager
def told_of_codec(*, quiet: bool, steps: int) -> Iterator[Any]:
    """Yield a listener that prints what is trained on, and shows the step while it lasts."""
    from tilestream.pipelines.train_codec import CodecSquares

    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    with errors.status("reading") as status:

        def hear(event: Any) -> None:
            if not isinstance(event, CodecSquares):
                told = f"step {event.step} of {steps}: {event.psnr:.2f} dB at {event.bpp:.3g} bits/px"
                status.update(told)
            elif not quiet:
                by = "whole images" if event.is_by_image else "places of the same images"
                print_line(
                    console,
                    f"{counted(len(event.learned), 'tile')} of {counted(event.images, 'image')}; "
                    f"{len(event.held_out):,} held out, {by}",
                )
                for note in event.notes:
                    print_line(console, ("note ", "yellow"), note)

        yield hear


def print_codec(outcome: CodecOutcome, *, seconds: float) -> None:
    """Print how good it is on what was held out, and where the decoder lies.

    Parameters
    ----------
    outcome : CodecOutcome
        What `run_codec` returned.
    seconds : float
        Wall time.
    """
    console, found = Console(highlight=False), outcome.document["held_out"]
    known = "nothing was held out to measure it on"
    if found:
        decibels, nbytes = (sum(one[name] for one in found) / len(found) for name in ("psnr", "bytes"))
        rival = [one for one in found if one["jpeg_psnr"] is not None]
        known = f"{decibels:.2f} dB at {nbytes:,.0f} bytes a tile, {counted(len(found), 'tile')} held out; "
        known += "JPEG of as few bytes: "
        known += (
            "none"
            if not rival
            else (
                f"{sum(one['jpeg_psnr'] for one in rival) / len(rival):.2f} dB on {len(rival)} of them, "
                f"where this has {sum(one['psnr'] for one in rival) / len(rival):.2f}"
            )
        )
    place = f"{outcome.path} ({size(outcome.document['decoder_bytes'])})"
    print_line(console, f"{known}; {duration(seconds)}; decoder: {place}")
    print_line(console, f"for `compress`: --codec shared --weights {outcome.path}")


def print_pyramid(outcome: Any, *, seconds: float) -> None:
    """Print how good shared networks of pyramids are on what was held out, and where they lie.

    Parameters
    ----------
    outcome : PyramidOutcome
        What `run_pyramid` returned.
    seconds : float
        Wall time.
    """
    console, document = Console(highlight=False), outcome.document
    found = document["held_out"]
    if not found:
        print_line(console, "nothing was held out to measure it on")
    for prefix, how in (("", "one pass"), ("refined_", f"{document['refined_steps']} steps")):
        rival = [one for one in found if one[f"{prefix}rival_psnr"] is not None]
        if not found:
            continue
        decibels, nbytes = (sum(one[f"{prefix}{name}"] for one in found) / len(found) for name in ("psnr", "bytes"))
        told = f"{how}: {decibels:.2f} dB at {nbytes:,.0f} bytes a tile, {counted(len(found), 'tile')} held out"
        if rival:
            other, own = (sum(one[f"{prefix}{name}"] for one in rival) / len(rival) for name in ("rival_psnr", "psnr"))
            told += f"; {document['rival']} of as few bytes: {other:.2f} dB on {len(rival)}, where this has {own:.2f}"
        print_line(console, told)
    networks = f"{size(document['networks_bytes'])} that a store has once"
    print_line(console, f"{duration(seconds)}; networks: {outcome.path} ({networks})")
    print_line(console, f"for `compress`: --codec pyramid --weights {outcome.path}")
