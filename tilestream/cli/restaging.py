"""`tilestream regions`: its options, what it runs and prints."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tilestream.cli import chainoptions as chaining
from tilestream.cli import encoding
from tilestream.cli import options as opt
from tilestream.cli.lines import print_line
from tilestream.cli.stopping import AGAIN, SOME_FAILED, guarded, print_json, same_command
from tilestream.cli.words import duration

if TYPE_CHECKING:
    from tilestream.pipelines.restage import Restaged

Stores = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH", show_default=False, help="Feature stores, or folders of them, such as embed's --out."
    ),
]


def regions(
    out: opt.Out,
    paths: Stores,
    region_stage: chaining.RegionStage = None,
    weights_4k: chaining.RegionWeights = None,
    slide_stage: chaining.SlideStage = None,
    random_weights: encoding.RandomWeights = None,
    region: opt.Region = None,
    memory: opt.Memory = None,
    resume: opt.Resume = True,
    as_json: opt.Json = False,
) -> None:
    """Make other vectors of regions and slides from the tiles that embed has stored; no pixel is read.

    The new stores are those that embed would make with these stages: the same tiles, and to the byte the same regions.
    """
    started = time.monotonic()
    kept = f"Stores that are finished are kept. {AGAIN}: {same_command()}"
    with guarded(as_json=as_json, stopped=lambda: kept):
        from tilestream.pipelines.restage import RestageConfig, run_restage

        chain = chaining.chain_choice(region_stage, slide_stage, weights=weights_4k, seed=random_weights)
        config = RestageConfig(out=out.absolute(), chain=chain, region_px=region, memory_bytes=memory, resume=resume)
        console = Console(highlight=False)
        rows = run_restage(paths, config, on_store=None if as_json else lambda row: print_store(console, row))
        code = SOME_FAILED if any(row.reason for row in rows) else 0
        if as_json:
            print_json(regions_document(rows, code))
        else:
            print_line(console, last_line(rows, seconds=time.monotonic() - started))
    raise typer.Exit(code)


def print_store(console: Console, row: Restaged) -> None:
    """Print what became of one store, where that is more than that it is done.

    Parameters
    ----------
    console : Console
        Where to print.
    row : Restaged
        The store.
    """
    if row.reason:
        print_line(console, ("failed ", "bold red"), f"{row.key}: {row.reason}")
    for note in row.notes:
        print_line(console, ("note ", "yellow"), f"{row.key}: {note}")


def regions_document(rows: tuple[Restaged, ...], code: int) -> dict[str, Any]:
    """Return the outcome as JSON values.

    Parameters
    ----------
    rows : tuple of Restaged
        What `run_restage` returned.
    code : int
        Exit code.

    Returns
    -------
    dict
        `status`, `exit_code` and `stores`.
    """
    return {
        "status": "done" if code == 0 else "some inputs failed",
        "exit_code": code,
        "stores": [{**asdict(row), "store": str(row.store)} for row in rows],
    }


def last_line(rows: tuple[Restaged, ...], *, seconds: float) -> str:
    """Return the counts of a run in one line.

    Parameters
    ----------
    rows : tuple of Restaged
        What `run_restage` returned.
    seconds : float
        Wall time.

    Returns
    -------
    str
        Stores done, those that were there, failed; regions and those without a vector; seconds.
    """
    failed, kept = sum(bool(row.reason) for row in rows), sum(row.is_reused for row in rows)
    made, bad = sum(row.regions for row in rows), sum(row.regions_failed for row in rows)
    there = f" ({kept:,} from an earlier run)" if kept else ""
    unfit = f", {bad:,} without a vector" if bad else ""
    done = f"{len(rows) - failed:,} done{there}, {failed:,} failed"
    return f"{done}; {made:,} region{'' if made == 1 else 's'}{unfit}; {duration(seconds)}"
