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
RegionTiles = Annotated[
    int,
    typer.Option("--region-tiles", metavar="N", min=1, help="Edge of a region in tiles.", rich_help_panel=CHOICES),
]
LeastShare = Annotated[
    float,
    typer.Option(
        "--least-share",
        metavar="X",
        min=0,
        max=1,
        help="Share of a region's tiles that must have a vector.",
        rich_help_panel=CHOICES,
    ),
]
Large = Annotated[
    int,
    typer.Option("--large", metavar="N", min=1, help="Edge of the two large squares.", rich_help_panel=TRAINING),
]
Small = Annotated[
    int,
    typer.Option("--small", metavar="N", min=1, help="Edge of the eight small squares.", rich_help_panel=TRAINING),
]
Dim = Annotated[
    int, typer.Option("--dim", metavar="N", min=1, help="Length of a region's vector.", rich_help_panel=TRAINING)
]
Depth = Annotated[int, typer.Option("--depth", metavar="N", min=1, help="Blocks.", rich_help_panel=TRAINING)]
Heads = Annotated[
    int, typer.Option("--heads", metavar="N", min=1, help="Heads of attention.", rich_help_panel=TRAINING)
]
Prototypes = Annotated[
    int,
    typer.Option(
        "--prototypes",
        metavar="N",
        min=2,
        help="Length of what teacher and student agree on; 65536 for millions of regions.",
        rich_help_panel=TRAINING,
    ),
]
Hidden = Annotated[
    int,
    typer.Option("--hidden", metavar="N", min=1, help="Hidden layers of the projection.", rich_help_panel=TRAINING),
]
RegionBatch = Annotated[
    int, typer.Option("--batch", metavar="N", min=1, help="Regions of a step.", rich_help_panel=TRAINING)
]
DinoRate = Annotated[
    float,
    typer.Option("--lr", metavar="X", min=0, help="Largest step of AdamW for 256 regions.", rich_help_panel=TRAINING),
]
Warmup = Annotated[
    int,
    typer.Option("--warmup", metavar="N", min=0, help="Epochs in which steps grow to --lr.", rich_help_panel=TRAINING),
]
Momentum = Annotated[
    float,
    typer.Option(
        "--momentum",
        metavar="X",
        min=0,
        max=1,
        help="Share of itself that the teacher keeps in the first step; less where there are few steps.",
        rich_help_panel=TRAINING,
    ),
]
Examples = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="Folder of features that `tilestream embed` was given as --out, for slides with a class; or an image or a "
        "folder of images, of which parts are marked.",
    ),
]
Marks = Annotated[
    Path,
    typer.Option(
        "--labels",
        metavar="CSV|FILE|DIR",
        show_default=False,
        help="Table with the columns slide and label; or a mask or GeoJSON file of what matters in the image, or a "
        "folder that has one named after each image.",
    ),
]
ScorerEncoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="NAME",
        show_default=False,
        help="Of features: which, where the folder holds several sets. Of images: whose vectors are learned from, as "
        "`embed` takes it (default: the pixels).",
        rich_help_panel=CHOICES,
    ),
]
ScorerTile = Annotated[
    int, typer.Option("--tile", metavar="PX", min=8, help="Edge of a tile of pixels.", rich_help_panel=CHOICES)
]
Reduce = Annotated[
    float | None,
    typer.Option(
        "--reduce",
        metavar="N",
        min=1,
        help="How much coarser than level 0 tiles are seen (default: 8, unless --mpp says it).",
        rich_help_panel=CHOICES,
    ),
]
ScorerMpp = Annotated[
    float | None,
    typer.Option(
        "--mpp",
        metavar="X",
        help="Micrometres per pixel of tiles, on images that state theirs.",
        rich_help_panel=CHOICES,
    ),
]
ScorerWhere = Annotated[
    str,
    typer.Option(
        "--where",
        metavar="all|tissue|FILE",
        help="Which tiles of images are learned from.",
        rich_help_panel=CHOICES,
    ),
]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="attention|topk",
        help="With classes of slides: whether tiles are drawn by attention, or are the best under a little noise.",
        rich_help_panel=TRAINING,
    ),
]
Looked = Annotated[
    int,
    typer.Option("--k", metavar="N", min=1, help="With classes of slides: tiles that count.", rich_help_panel=TRAINING),
]
ScorerEpochs = Annotated[int, typer.Option("--epochs", metavar="N", min=1, help="Epochs.", rich_help_panel=TRAINING)]
ScorerBatch = Annotated[
    int,
    typer.Option(
        "--batch",
        metavar="N",
        min=2,
        help="Tiles of a step, half of them marked; of slides an eighth of that.",
        rich_help_panel=TRAINING,
    ),
]
Width = Annotated[
    int,
    typer.Option("--width", metavar="N", min=1, help="Values between the layers.", rich_help_panel=TRAINING),
]
HeldOut = Annotated[
    float,
    typer.Option(
        "--held-out",
        metavar="X",
        min=0,
        max=0.9,
        help="Share that it does not learn from, by which the best epoch is chosen.",
        rich_help_panel=TRAINING,
    ),
]
