"""The commands `tilestream train …` and what they print."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from tilestream.cli import options as opt
from tilestream.cli import trainoptions as train
from tilestream.cli.codectraining import codec
from tilestream.cli.downsampling import downsample
from tilestream.cli.encoding import RandomWeights, Weights, encoder_choices
from tilestream.cli.lines import print_line
from tilestream.cli.scoring import print_scorer, told_of_scorer
from tilestream.cli.stopping import AGAIN, guarded, print_json, same_command
from tilestream.cli.words import counted, duration
from tilestream.errors import ConfigError

if TYPE_CHECKING:
    from tilestream.pipelines.train_cohort import TrainingSet
    from tilestream.pipelines.train_dino import DinoOutcome
    from tilestream.pipelines.train_head import HeadOutcome
    from tilestream.pipelines.train_results import FoldResult

TABLES = (".csv", ".tsv", ".txt")
"""How names of tables of labels end."""
COLLAPSED = 0.05
"""Spread or evenness below which vectors say nothing."""
NEEDED = {"torch": "torch", "safetensors": "torch", "matplotlib": "train"}
"""Packages that training needs, and the extra that brings each."""

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help="Train on the features that `tilestream embed` has stored, or on images of which parts are marked.",
)
app.command()(downsample)


@app.command()
def head(
    features: train.Features,
    labels: train.Labels,
    out: opt.Out,
    encoder: train.Named = None,
    level: train.Level = "tile",
    aggregator: train.Aggregator = "abmil",
    folds: train.Folds = 5,
    epochs: train.Epochs = 100,
    patience: train.Patience = 15,
    lr: train.LearningRate = 1e-3,
    weight_decay: train.WeightDecay = 1e-2,
    slides_per_step: train.SlidesPerStep = 8,
    tiles_per_bag: train.TilesPerBag = None,
    seed: train.Seed = 0,
    autocast: train.Autocast = False,
    memory: train.Kept = None,
    resume: opt.Resume = True,
    as_json: opt.Json = False,
) -> None:
    """Train an aggregator and a linear head on labelled slides, by cross-validation, and one on all of them."""
    started = time.monotonic()
    with guarded(as_json=as_json, stopped=lambda: f"{AGAIN}: {same_command()}") as stop:
        require_packages()
        require_level(level)
        from tilestream.pipelines.train_head import HeadConfig, run_head
        from tilestream.torch.train_head import HeadSettings

        settings = HeadSettings(
            aggregator=aggregator,
            epochs=epochs,
            patience=patience,
            lr=lr,
            weight_decay=weight_decay,
            slides_per_step=slides_per_step,
            tiles_per_bag=tiles_per_bag,
            seed=seed,
            autocast=autocast,
        )
        config = HeadConfig(
            features=features,
            labels=labels,
            out=out,
            encoder=encoder,
            level="region" if level == "region" else "tile",
            folds=folds,
            settings=settings,
            keep_bytes=memory or free_memory() // 4,
            resume=resume,
        )
        with told(quiet=as_json) as hear:
            outcome = run_head(config, on_event=stop.checked(hear))
        if as_json:
            print_json({"status": "done", "out": str(outcome.out), **outcome.document})
        else:
            print_head(outcome, seconds=time.monotonic() - started)


@app.command()
def dino(
    features: train.Features,
    out: opt.Out,
    encoder: train.Named = None,
    region_tiles: train.RegionTiles = 16,
    least_share: train.LeastShare = 0.25,
    large: train.Large = 14,
    small: train.Small = 6,
    dim: train.Dim = 192,
    depth: train.Depth = 6,
    heads: train.Heads = 6,
    prototypes: train.Prototypes = 4096,
    hidden: train.Hidden = 2048,
    epochs: train.Epochs = 100,
    batch: train.RegionBatch = 32,
    lr: train.DinoRate = 5e-4,
    warmup: train.Warmup = 10,
    momentum: train.Momentum = 0.996,
    seed: train.Seed = 0,
    autocast: train.Autocast = False,
    memory: train.Kept = None,
    resume: opt.Resume = True,
    as_json: opt.Json = False,
) -> None:
    """Train a second stage over regions without labels (DINO on feature grids); for `embed --weights-4k`."""
    started = time.monotonic()
    with guarded(as_json=as_json, stopped=lambda: f"{AGAIN}: {same_command()}") as stop:
        require_packages()
        from tilestream.pipelines.train_dino import DinoConfig, run_dino
        from tilestream.torch.train_dino import DinoSettings

        shape = {"dim": dim, "depth": depth, "heads": heads, "prototypes": prototypes, "hidden": hidden}
        squares = {"large_cells": large, "small_cells": small}
        steps = {"epochs": epochs, "batch": batch, "warmup_epochs": warmup, "seed": seed}
        settings = DinoSettings(lr=lr, momentum=momentum, autocast=autocast, **shape, **squares, **steps)
        config = DinoConfig(
            features=features,
            out=out,
            encoder=encoder,
            region_tiles=region_tiles,
            least_share=least_share,
            settings=settings,
            keep_bytes=memory or free_memory() // 4,
            resume=resume,
        )
        with told_of_regions(quiet=as_json, epochs=epochs) as hear:
            outcome = run_dino(config, on_event=stop.checked(hear))
        if as_json:
            print_json({"status": "done", "out": str(outcome.out), **outcome.document})
        else:
            print_dino(outcome, seconds=time.monotonic() - started)


@app.command()
def scorer(
    source: train.Examples,
    labels: train.Marks,
    out: opt.Out,
    encoder: train.ScorerEncoder = None,
    weights: Weights = None,
    random_weights: RandomWeights = None,
    tile: train.ScorerTile = 32,
    reduce: train.Reduce = None,
    mpp: train.ScorerMpp = None,
    where: train.ScorerWhere = "all",
    method: train.Method = "attention",
    k: train.Looked = 8,
    width: train.Width = 32,
    epochs: train.ScorerEpochs = 30,
    lr: train.LearningRate = 3e-3,
    weight_decay: train.WeightDecay = 1e-2,
    batch: train.ScorerBatch = 64,
    held_out: train.HeldOut = 0.2,
    seed: train.Seed = 0,
    memory: train.Kept = None,
    resume: opt.Resume = True,
    as_json: opt.Json = False,
) -> None:
    """Train what tells where to look closely: on parts of images that are marked, or on classes of slides."""
    started = time.monotonic()
    with guarded(as_json=as_json, stopped=lambda: f"{AGAIN}: {same_command()}") as stop:
        require_packages("torch")
        from tilestream.pipelines.scorer_examples import TileChoice
        from tilestream.pipelines.train_scorer import ScorerConfig, run_scorer
        from tilestream.torch.train_scorer import ScorerSettings

        is_table = labels.suffix.lower() in TABLES
        chosen = None
        if encoder is not None and (not is_table or weights or random_weights is not None):
            (chosen,) = encoder_choices([encoder], weights=weights, random_weights=random_weights)
        steps: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "batch": batch, "epochs": epochs, "seed": seed}
        steps |= {"method": method, "k": k, "width": width, "held_out": held_out}
        config = ScorerConfig(
            source=source,
            labels=labels,
            out=out,
            encoder=encoder,
            tiles=TileChoice(px=tile, reduce=reduce, mpp=mpp, where=where, encoder=chosen),
            settings=ScorerSettings(**steps),
            keep_bytes=memory or free_memory() // 4,
            resume=resume,
        )
        with told_of_scorer(quiet=as_json, epochs=epochs) as hear:
            outcome = run_scorer(config, on_event=stop.checked(hear))
        if as_json:
            print_json({"status": "done", "out": str(outcome.out), **outcome.document})
        else:
            print_scorer(outcome, seconds=time.monotonic() - started)


app.command()(codec)


def require_packages(*extras: str) -> None:
    """Raise `ConfigError` when a package that training needs is not installed; of all extras unless some are named."""
    wanted = {name: extra for name, extra in NEEDED.items() if not extras or extra in extras}
    missing = {name: extra for name, extra in wanted.items() if find_spec(name) is None}
    if missing:
        raise ConfigError.of(
            "training",
            got=f"no package {', '.join(f'`{name}`' for name in missing)}",
            expected="it installed",
            do=f"pip install -e '.[{extras[0] if extras else 'train'}]'.",
        )


def require_level(level: str) -> None:
    """Raise `ConfigError` for a level of which there are no vectors."""
    if level not in ("tile", "region"):
        raise ConfigError.of("`--level`", got=f"`{level}`", expected="`tile` or `region`", do="Choose one.")


def free_memory() -> int:
    """Return the bytes that are free on this machine."""
    import psutil

    return int(psutil.virtual_memory().available)


@contextmanager
def told(*, quiet: bool) -> Iterator[Any]:
    """Yield a listener that prints what is trained on and each fold, and shows the epoch while it lasts."""
    from tilestream.pipelines.train_cohort import TrainingSet
    from tilestream.pipelines.train_results import FoldResult

    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    with errors.status("reading") as status:

        def hear(event: Any) -> None:
            if isinstance(event, TrainingSet):
                if not quiet:
                    print_data(console, event)
            elif isinstance(event, FoldResult):
                if not quiet:
                    print_line(console, fold_line(event))
            else:
                epoch = event.epoch
                status.update(
                    f"training {event.number + 1} of {event.total}, epoch {epoch.epoch}: loss {epoch.train_loss:.3f}, "
                    f"validation {epoch.val_loss:.3f}"
                )

        yield hear


def print_data(console: Console, data: TrainingSet) -> None:
    """Print what is trained on, and what is not and why.

    Parameters
    ----------
    console : Console
        Where to print.
    data : TrainingSet
        The examples.
    """
    from tilestream.pipelines.train_cohort import listed

    counts = ", ".join(f"{name} {count}" for name, count in data.counts().items())
    patients = f" of {len(set(data.groups.tolist())):,} patients" if data.is_grouped else ""
    print_line(
        console,
        f"{counted(len(data.slides), 'slide')}{patients} ({counts}); `{data.encoder}`, {data.bags.dim:,} values a "
        f"{data.level}",
    )
    for reason, names in data.left_out.items():
        print_line(console, ("left out ", "yellow"), f"{len(names):,} with {reason}: {listed(names)}")
    for note in data.notes:
        print_line(console, ("note ", "yellow"), note)


def fold_line(fold: FoldResult) -> str:
    """Return one line on a training."""
    train, val, test = fold.sizes
    learned = f"{train} + {val} slides, epoch {fold.best.epoch} of {len(fold.epochs)} kept"
    if fold.area is None:
        return f"all: {learned}; not tested"
    name = f"fold {fold.name}" if fold.name.isdigit() else fold.name
    return (
        f"{name}: AUC {fold.area.value:.3f} ({fold.area.low:.3f} to {fold.area.high:.3f}), balanced accuracy "
        f"{fold.balanced_accuracy:.3f} on {test} slides; {learned}"
    )


def print_head(outcome: HeadOutcome, *, seconds: float) -> None:
    """Print one last line: how good it is, and where the head lies.

    Parameters
    ----------
    outcome : HeadOutcome
        What `run_head` returned.
    seconds : float
        Wall time.
    """
    found = outcome.document["summary"]
    spread = f" ± {found['auc_sd']:.3f}" if found["auc_sd"] is not None else ""
    over = f" over {found['folds']} folds" if found["folds"] > 1 else ""
    print_line(
        Console(highlight=False),
        f"AUC {found['auc']:.3f}{spread}, balanced accuracy {found['balanced_accuracy']:.3f}{over}; "
        f"{duration(seconds)}; head: {outcome.out / 'model.safetensors'}, picture: {outcome.out / 'metrics.png'}",
    )


@contextmanager
def told_of_regions(*, quiet: bool, epochs: int) -> Iterator[Any]:
    """Yield a listener that prints what is trained on, and shows the epoch while it lasts."""
    from tilestream.pipelines.train_dino import DinoStart

    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    with errors.status("reading") as status:

        def hear(event: Any) -> None:
            if not isinstance(event, DinoStart):
                status.update(f"epoch {event.epoch} of {epochs}: loss {event.loss:.3f}, spread {event.spread:.2f}")
                return
            if quiet:
                return
            print_line(
                console,
                f"{counted(event.regions, 'region')} of {event.cells} x {event.cells} tiles on "
                f"{counted(event.slides, 'slide')}; `{event.encoder}`, {event.dim:,} values a tile; "
                f"{event.parameters:,} parameters",
            )
            if event.left_out or event.slides_without:
                without = f", and so all of {counted(event.slides_without, 'slide')}" if event.slides_without else ""
                print_line(console, ("left out ", "yellow"), f"{event.left_out:,} with too few tiles{without}")
            for note in event.notes:
                print_line(console, ("note ", "yellow"), note)

        yield hear


def print_dino(outcome: DinoOutcome, *, seconds: float) -> None:
    """Print one last line: what it has come to, whether that is a collapse, and where the weights lie.

    Parameters
    ----------
    outcome : DinoOutcome
        What `run_dino` returned.
    seconds : float
        Wall time.
    """
    console, last = Console(highlight=False), outcome.document["last"]
    region_px = outcome.document["cells"] * outcome.document["features"]["recipe"]["tile_px"]
    weights = outcome.out / "checkpoint.pth"
    if last["spread"] < COLLAPSED or last["usage"] < COLLAPSED:
        print_line(
            console,
            ("note ", "yellow"),
            "the teacher says much the same of all regions: the training has collapsed. Take a smaller --lr, a larger "
            "--batch or more regions.",
        )
    print_line(
        console,
        f"loss {last['loss']:.3f}, spread of vectors {last['spread']:.2f}, evenness over regions {last['usage']:.2f} "
        f"after {counted(last['epoch'], 'epoch')}; {duration(seconds)}; weights: {weights}, "
        f"picture: {outcome.out / 'metrics.png'}",
    )
    print_line(console, f"for `embed` and `regions`: --region-stage vit --weights-4k {weights} --region {region_px}")
