"""Options of `tilestream ingest` alone, and the configuration they come to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilestream.cli.options import CHOICES

if TYPE_CHECKING:
    from tilestream.pipelines.ingest import IngestConfig

Filter = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="box|binomial|kaiser|lanczos|FILE",
        help="How coarse levels are made: exact means (box, the default), a longer filter, or what `tilestream train "
        "downsample` has written.",
        rich_help_panel=CHOICES,
    ),
]
Light = Annotated[
    str,
    typer.Option(
        "--light",
        metavar="stored|linear|density",
        help="What is averaged: samples as they are stored, or the linear light or the optical density that 8 bits "
        "stand for.",
        rich_help_panel=CHOICES,
    ),
]
JpegXl = Annotated[
    bool,
    typer.Option(
        "--jpegxl",
        help="Store the JPEG tiles of an archive as JPEG XL: about a quarter fewer bytes, from which each tile comes "
        "back as it was, to the byte. Readers need tilestream.",
        rich_help_panel=CHOICES,
    ),
]


Quality = Annotated[
    float | None,
    typer.Option(
        "--quality",
        metavar="Q",
        show_default=False,
        help="Of neural: 1 to 100, larger is closer and costs more (default: 50).",
        rich_help_panel=CHOICES,
    ),
]
MaxError = Annotated[
    int | None,
    typer.Option(
        "--max-error",
        metavar="N",
        show_default=False,
        help="Of neural, instead of --quality: no valid sample of any stored level is off by more than N; 0 is "
        "lossless.",
        rich_help_panel=CHOICES,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        metavar="N",
        show_default=False,
        help="Of neural: steps of the fit of each tile (default: as many as compress takes).",
        rich_help_panel=CHOICES,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        show_default=False,
        help="Of neural: networks that all tiles share, which `tilestream train codec` has written.",
        rich_help_panel=CHOICES,
    ),
]
SingleLevel = Annotated[
    bool, typer.Option("--single-level", help="Of neural: store level 0 alone.", rich_help_panel=CHOICES)
]


def ingest_config(
    *,
    out: str,
    fit: Mapping[str, Any],
    invalid: list[str] | None = None,
    filter: str | None = None,
    light: str = "stored",
    **options: Any,
) -> IngestConfig:
    """Return the configuration of an ingest, its options checked as far as one can without an image.

    Parameters
    ----------
    out : str
        Folder or fsspec URL of all stores.
    fit : Mapping
        Options of the profile neural, as far as they were given: fields of `NeuralOptions`; None and False were not.
    invalid : list of str, optional
        `LAYER=CLASSES` as typed.
    filter, light : str, optional
        As `Reducer.of` takes them.
    **options : object
        Fields of `IngestConfig`.

    Returns
    -------
    IngestConfig
        The configuration.

    Raises
    ------
    ConfigError
        When `profile`, `filter`, `invalid` or `decibels` is not understood.
    """
    from tilestream.codecs.place import Place
    from tilestream.pipelines.ingest import IngestConfig
    from tilestream.pipelines.ingest_neural import NEURAL, compress_config, neural_options
    from tilestream.pyramid.reducing import Reducer
    from tilestream.sources.classes import parse_invalid
    from tilestream.sources.decibels import require_quantity

    if options.get("decibels") is not None:
        require_quantity(options["decibels"])
    reducer = Reducer.of(filter, light=light)
    options["neural"] = neural_options(**fit)
    config = IngestConfig(out=Place.of(out), invalid=parse_invalid(invalid or ()), reducer=reducer, **options)
    if config.profile == NEURAL:
        compress_config(config).tile_codec()  # what is not understood is refused before anything is looked for
    return config
