"""The command `tilestream encoders`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilestream.cli import options as opt
from tilestream.cli.stopping import guarded, print_json

if TYPE_CHECKING:
    from tilestream.models.encoders.record import EncoderRecord
    from tilestream.types import StageContract


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

        records, own = ready_records(), _own()
        stated = {key: _stated(one) for key, one in own.items()} | {key: one.to_json() for key, one in records.items()}
        if name is not None and name not in stated:
            raise unknown_name(name, sorted(stated))
        if name is not None:
            typer.echo(json.dumps(stated[name], indent=2, ensure_ascii=False))
        elif as_json:
            print_json(stated)
        else:
            _print_table([*own.values(), *records.values()])


def _own() -> dict[str, StageContract]:
    """Return the contracts of the networks that are built here, by name."""
    from tilestream.models.ownstage import HIPT
    from tilestream.models.tilestages import FPN_VIT, MVIT

    return {one.name: one for one in (HIPT, MVIT, FPN_VIT)}


def _stated(contract: StageContract) -> dict[str, Any]:
    """Return what a contract states, as JSON values."""
    return {
        one.name: getattr(contract, one.name)
        for one in fields(contract)
        if one.default is MISSING or getattr(contract, one.name) != one.default
    }


def _print_table(records: Sequence[EncoderRecord | StageContract]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("encoder", "tile px", "µm/px", "values", "licence of the weights"):
        table.add_column(heading, justify="right" if heading in ("tile px", "µm/px", "values") else "left")
    for record in records:
        mpp = "any" if record.mpp is None else f"{record.mpp:g}"
        asked = " (gated)" if getattr(record, "gated", False) else ""
        unknown = "see its page" if record.source else "that of your file"
        licence = f"{record.licence or unknown}{asked}"
        table.add_row(record.name, str(record.px), mpp, str(record.dim), licence)
    console = Console(highlight=False)
    console.print(table)
    console.print("`tilestream encoders NAME` prints the rest: page of its weights, scaling, pooling, build.")
