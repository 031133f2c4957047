"""Options of the training commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tilestream.cli.options import CHOICES, RUNNING, parse_size

TRAINING = "How to train"

Features = Annotated[
    Path,
    typer.Argument(metavar="FEATURES", show_default=False, help="Folder that `tilestream embed` was given as --out."),
]
Labels = Annotated[
    Path,
    typer.Option(
        "--labels",
        metavar="CSV",
        show_default=False,
        help="Table with the columns slide (or id, path) and label; if wanted patient (or group, case), whose slides "
        "are never on both sides, and split (train, val, test).",
    ),
]
Named = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="NAME",
        show_default=False,
        help="Which features, where the folder holds several sets.",
        rich_help_panel=CHOICES,
    ),
]
Level = Annotated[
    str,
    typer.Option(
        "--level",
        metavar="tile|region",
        help="Whether a bag holds vectors of tiles or of regions.",
        rich_help_panel=CHOICES,
    ),
]
Aggregator = Annotated[
    str,
    typer.Option(
        "--aggregator",
        metavar="abmil|simlp|mean|transformer",
        help="What makes one vector of a bag.",
        rich_help_panel=CHOICES,
    ),
]
Folds = Annotated[
    int,
    typer.Option(
        "--folds",
        metavar="N",
        min=2,
        help="Parts of the cross-validation; a column `split` goes before it.",
        rich_help_panel=TRAINING,
    ),
]
Epochs = Annotated[int, typer.Option("--epochs", metavar="N", min=1, help="Most epochs.", rich_help_panel=TRAINING)]
Patience = Annotated[
    int,
    typer.Option(
        "--patience",
        metavar="N",
        min=0,
        help="Epochs without a smaller validation loss after which it stops; 0 = never.",
        rich_help_panel=TRAINING,
    ),
]
WeightDecay = Annotated[
    float, typer.Option("--weight-decay", metavar="X", min=0, help="Of AdamW.", rich_help_panel=TRAINING)
]
LearningRate = Annotated[
    float, typer.Option("--lr", metavar="X", min=0, help="Step of AdamW.", rich_help_panel=TRAINING)
]
SlidesPerStep = Annotated[
    int,
    typer.Option("--batch", metavar="N", min=1, help="Slides whose gradients make a step.", rich_help_panel=TRAINING),
]
TilesPerBag = Annotated[
    int | None,
    typer.Option(
        "--tiles-per-bag",
        metavar="N",
        min=1,
        help="Vectors of a slide that an epoch shows, chosen anew each time (default: all).",
        rich_help_panel=TRAINING,
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", metavar="S", min=0, help="What all chance follows from.", rich_help_panel=TRAINING)
]
Autocast = Annotated[
    bool, typer.Option("--autocast", help="Compute in bfloat16 on a CUDA device.", rich_help_panel=TRAINING)
]
Kept = Annotated[
    Any,  # typer takes the type from the parser
    typer.Option(
        "--memory",
        metavar="SIZE",
        parser=parse_size,
        help="Memory for features that are not read again each epoch (default: a quarter of what is free).",
        rich_help_panel=RUNNING,
    ),
]
