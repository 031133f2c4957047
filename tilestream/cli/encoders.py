"""The command `tilestream encoders`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from tilestream.cli import options as opt
from tilestream.cli.stopping import guarded, print_json

if TYPE_CHECKING:
    from tilestream.models.encoders.record import EncoderRecord


def encoders(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", show_default=False, help="Print the record of this one; a copy can be edited."
        ),
    ] = None,
    as_json: opt.Json = False,
) -> None:
    """List the encoders whose contracts come with tilestream; their weights are a file of yours."""
    with guarded(as_json=as_json):
        from tilestream.models.encoders.record import ready_records
        from tilestream.registry import unknown_name

        records = ready_records()
        if name is not None and name not in records:
            raise unknown_name(name, sorted(records))
        if name is not None:
            typer.echo(json.dumps(records[name].to_json(), indent=2, ensure_ascii=False))
        elif as_json:
            print_json({key: record.to_json() for key, record in records.items()})
        else:
            _print_table(list(records.values()))


def _print_table(records: list[EncoderRecord]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("encoder", "tile px", "µm/px", "values", "licence of the weights"):
        table.add_column(heading, justify="right" if heading in ("tile px", "µm/px", "values") else "left")
    for record in records:
        mpp = "any" if record.mpp is None else f"{record.mpp:g}"
        licence = f"{record.licence or 'see its page'}{' (gated)' if record.gated else ''}"
        table.add_row(record.name, str(record.px), mpp, str(record.dim), licence)
    console = Console(highlight=False)
    console.print(table)
    console.print("`tilestream encoders NAME` prints the rest: page of its weights, scaling, pooling, build.")
