"""The command `tilestream export`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from tilestream.cli import options as opt
from tilestream.cli.stopping import AGAIN, guarded, print_json, same_command

To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="FORMAT",
        show_default=False,
        help="Of images: cog, ome-tiff. Of features (what embed wrote): trident, clam, anndata, spatialdata, geojson "
        "(QuPath), parquet, geoparquet (scenes). Of a job folder of TRIDENT, CLAM or AtlasPatch: features.",
    ),
]
Value = Annotated[
    str | None,
    typer.Option(
        "--value",
        metavar="NAME",
        help="What geojson colours tiles by: entropy, tissue, valid, or an output of an encoder as ENCODER:OUTPUT or "
        "ENCODER:NUMBER.",
        rich_help_panel=opt.CHOICES,
    ),
]
Encoders = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder",
        metavar="NAME",
        help="Whose features (default: of all encoders that the inputs have); may be given again.",
        rich_help_panel=opt.CHOICES,
    ),
]


def export(
    out: opt.OutPlace,
    to: To,
    paths: opt.Inputs = None,
    manifest: opt.Manifest = None,
    encoder: Encoders = None,
    value: Value = None,
    codec: opt.TileCodec = "deflate",
    quality: opt.Quality = 90,
    resume: opt.Resume = True,
    strict: opt.Strict = False,
    as_json: opt.Json = False,
) -> None:
    """Write images as COG or OME-TIFF, one file an input, or features in the layouts of other programs."""
    started = time.monotonic()
    kept = f"Files that are finished are kept. {AGAIN}: {same_command()}"
    with guarded(as_json=as_json, stopped=lambda: kept):
        from tilestream.cli.exporting import export_document, exported, print_export

        outcome = exported(
            paths or [],
            out=out,
            to=to,
            manifest=manifest,
            encoders=encoder,
            value=value,
            codec=codec,
            quality=quality,
            resume=resume,
        )
        if as_json:
            print_json(export_document(outcome, strict=strict))
        else:
            print_export(outcome, seconds=time.monotonic() - started)
    raise typer.Exit(outcome.exit_code(strict=strict))
