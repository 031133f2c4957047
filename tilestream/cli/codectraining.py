"""The command `tilestream train codec` and what it prints."""

from __future__ import annotations

import time
from collections.abc import Iterator
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

if TYPE_CHECKING:
    from tilestream.pipelines.train_codec import CodecOutcome

Source = Annotated[
    Path,
    typer.Argument(metavar="SOURCE", show_default=False, help="An image, or a folder of images like those to come."),
]
Bytes = Annotated[
    int,
    typer.Option(
        "--bytes", metavar="N", min=64, help="Bytes that a tile is to have on average.", rich_help_panel=opt.CHOICES
    ),
]
Tile = Annotated[
    int, typer.Option("--tile", metavar="PX", min=32, help="Edge of the tiles to come.", rich_help_panel=opt.CHOICES)
]
Stride = Annotated[
    int,
    typer.Option(
        "--stride",
        metavar="PX",
        min=2,
        help="Pixels of a cell of latents along each axis, even: 16 suits a quarter of the bytes a pixel that 8 does.",
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
    int, typer.Option("--batch", metavar="N", min=1, help="Crops of a step.", rich_help_panel=train.TRAINING)
]


def codec(
    source: Source,
    out: opt.Out,
    bytes_a_tile: Bytes = 1000,
    tile: Tile = 256,
    stride: Stride = 8,
    where: train.ScorerWhere = "tissue",
    squares: Squares = 64,
    steps: Steps = 4000,
    batch: Batch = 8,
    lr: train.LearningRate = 2e-3,
    seed: train.Seed = 0,
    as_json: opt.Json = False,
) -> None:
    """Train the decoder that tiles of a cohort share, for `compress --codec shared`; measured on what it never saw."""
    started = time.monotonic()
    with guarded(as_json=as_json, stopped=lambda: "nothing is kept of a training that was stopped") as stop:
        from tilestream.cli.training import require_packages

        require_packages("torch")
        from tilestream.codecs.fields.shareddecoder import SharedShape
        from tilestream.codecs.fields.sharedtraining import SharedTraining
        from tilestream.pipelines.train_codec import CodecConfig, run_codec

        settings = SharedTraining(
            shape=SharedShape(stride_px=stride),
            bytes_a_picture=bytes_a_tile,
            picture_px=tile,
            crop_px=min(16 * stride, tile // stride * stride),
            batch=batch,
            steps=steps,
            lr=lr,
            seed=seed,
        )
        config = CodecConfig(source=source, out=out, where=where, squares=squares, settings=settings)
        with told_of_codec(quiet=as_json, steps=steps) as hear:
            outcome = run_codec(config, on_event=stop.checked(hear))
        if as_json:
            print_json({"status": "done", "out": str(out), **outcome.document})
        else:
            print_codec(outcome, seconds=time.monotonic() - started)


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
