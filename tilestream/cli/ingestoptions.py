"""Options of `tilestream ingest` alone, and the configuration they come to."""

from __future__ import annotations

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


def ingest_config(
    *, out: str, invalid: list[str] | None = None, filter: str | None = None, light: str = "stored", **options: Any
) -> IngestConfig:
    """Return the configuration of an ingest, its options checked as far as one can without an image.

    Parameters
    ----------
    out : str
        Folder or fsspec URL of all stores.
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
    from tilestream.pyramid.reducing import Reducer
    from tilestream.sources.classes import parse_invalid
    from tilestream.sources.decibels import require_quantity

    if options.get("decibels") is not None:
        require_quantity(options["decibels"])
    reducer = Reducer.of(filter, light=light)
    return IngestConfig(out=Place.of(out), invalid=parse_invalid(invalid or ()), reducer=reducer, **options)
