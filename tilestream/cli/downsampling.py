"""The command `tilestream train downsample` and what it prints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tilestream.cli import options as opt
from tilestream.cli import trainoptions as train
from tilestream.cli.lines import print_line
from tilestream.cli.options import CHOICES
from tilestream.cli.stopping import AGAIN, guarded, print_json, same_command
from tilestream.cli.words import counted, duration

if TYPE_CHECKING:
    from tilestream.pipelines.train_downsample import DownsampleOutcome

TRAINING = train.TRAINING

Slides = Annotated[
    list[str], typer.Argument(metavar="SLIDES...", show_default=False, help="Images, and folders of them.")
]
Levels = Annotated[
    int,
    typer.Option("--levels", metavar="N", min=1, max=4, help="Steps of the stack: 1 halves, 2 quarters.",
                 rich_help_panel=TRAINING),
]  # fmt: skip
Steps = Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Steps of Adam.", rich_help_panel=TRAINING)]
Batch = Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Patches a step.", rich_help_panel=TRAINING)]
Patch = Annotated[int, typer.Option("--patch", metavar="PX", min=8, help="Edge of a patch.", rich_help_panel=TRAINING)]
Window = Annotated[
    int,
    typer.Option("--window", metavar="PX", min=2, max=12, help="Edge of the square that a pixel is made of; even.",
                 rich_help_panel=TRAINING),
]  # fmt: skip
Width = Annotated[
    int, typer.Option("--width", metavar="N", min=1, help="Values between layers.", rich_help_panel=TRAINING)
]
Rate = Annotated[float, typer.Option("--lr", metavar="X", help="Highest rate of Adam.", rich_help_panel=TRAINING)]
Guide = Annotated[
    float,
    typer.Option("--guide", metavar="DB", min=0, help="PSNR that the first small image keeps against the mean; 4 dB "
                 "less for each further level.", rich_help_panel=TRAINING),
]  # fmt: skip
Tile = Annotated[int, typer.Option("--tile", metavar="PX", min=16, help="Edge of a tile.", rich_help_panel=CHOICES)]
Tiles = Annotated[
    int,
    typer.Option("--tiles", metavar="N", min=1, help="Most tiles that are learned from, and held out, in an image.",
                 rich_help_panel=CHOICES),
]  # fmt: skip
HeldOut = Annotated[
    float,
    typer.Option("--held-out", metavar="X", min=0.05, max=0.95, help="Share of the tiles of an image, those furthest "
                 "to the right, by which it is told how good it is.", rich_help_panel=CHOICES),
]  # fmt: skip


def downsample(
    slides: Slides,
    out: opt.Out,
    levels: Levels = 1,
    steps: Steps = 2400,
    batch: Batch = 8,
    patch: Patch = 64,
    window: Window = 8,
    width: Width = 32,
    lr: Rate = 5e-3,
    guide: Guide = 34.0,
    tile: Tile = 256,
    tiles: Tiles = 64,
    held_out: HeldOut = 0.5,
    where: opt.Where = "tissue",
    seed: train.Seed = 0,
    resume: opt.Resume = True,
    as_json: opt.Json = False,
) -> None:
    """Train what makes images small so that they can be restored, and that look like means; for `ingest --filter`."""
    from tilestream.cli.training import require_packages

    started = time.monotonic()
    with guarded(as_json=as_json, stopped=lambda: f"{AGAIN}: {same_command()}") as stop:
        require_packages("torch")
        from tilestream.codecs.downsample.training import DownsampleSettings
        from tilestream.pipelines.train_downsample import DownsampleConfig, run_downsample

        settings = DownsampleSettings(
            levels=levels,
            steps=steps,
            batch=batch,
            patch_px=patch,
            window_px=window,
            width=width,
            up_width=width,
            lr=lr,
            guide_db=guide,
            seed=seed,
        )
        config = DownsampleConfig(
            sources=tuple(slides),
            out=out,
            tile_px=tile,
            where=where,
            tiles=tiles,
            held_out=held_out,
            settings=settings,
            resume=resume,
        )
        with told(quiet=as_json, steps=steps) as hear:
            outcome = run_downsample(config, on_event=stop.checked(hear))
        if as_json:
            print_json({"status": "done", "out": str(outcome.out), **outcome.document})
        else:
            print_downsample(outcome, seconds=time.monotonic() - started)


@contextmanager
def told(*, quiet: bool, steps: int) -> Iterator[Any]:
    """Yield a listener that prints what is trained on, and shows the loss while it lasts."""
    from tilestream.codecs.downsample.training import DownsampleStep

    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    with errors.status("reading") as status:

        def hear(event: Any) -> None:
            if isinstance(event, DownsampleStep):
                status.update(f"step {event.step:,} of {steps:,}: loss {event.loss:.2e}")
            elif not quiet:
                learned, held = (sum(len(getattr(one, name)) for one in event) for name in ("learned", "held_out"))
                print_line(console, f"{counted(learned, 'tile')} of {counted(len(event), 'image')}; {held:,} held out")

        yield hear


def print_downsample(outcome: DownsampleOutcome, *, seconds: float) -> None:
    """Print how good each level is beside Lanczos and means, and how to use it.

    Parameters
    ----------
    outcome : DownsampleOutcome
        What `run_downsample` returned.
    seconds : float
        Wall time.
    """
    console, path = Console(highlight=False), outcome.out / "downsampler.safetensors"
    for score in outcome.document["mean"]:
        beside = [f"{score['learned_db'] - score[name]:+.2f}" for name in ("lanczos_db", "box_db")]
        print_line(
            console,
            f"1/{2 ** score['level']}: restored at {score['learned_db']:.2f} dB on what was held out, {beside[0]} "
            f"beside Lanczos, {beside[1]} beside means; small image {score['small_db']:.1f} dB from means, the worst "
            f"{score['worst_small_db']:.1f}",
        )
    print_line(console, f"{duration(seconds)}; for `ingest`: --filter {path}")
