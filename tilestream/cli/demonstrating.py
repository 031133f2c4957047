"""What `tilestream demo` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from tilestream.pipelines.demo import DemoOutcome
    from tilestream.pipelines.sample import Sample


def print_sample(sample: Sample) -> None:
    """Print which image the demonstration takes and why, on standard error.

    Parameters
    ----------
    sample : Sample
        The image.
    """
    Console(stderr=True, highlight=False).print(Text(f"slide: {sample.path} ({sample.origin})"), soft_wrap=True)


def demo_document(outcome: DemoOutcome) -> dict[str, Any]:
    """Return the outcome as JSON values.

    Parameters
    ----------
    outcome : DemoOutcome
        What `run_demo` returned.

    Returns
    -------
    dict
        Where everything is and what is in it.
    """
    return {
        "status": "failed" if outcome.store is None else "done",
        "slide": str(outcome.sample.path),
        "origin": outcome.sample.origin,
        "store": None if outcome.store is None else str(outcome.store),
        "report_html": str(outcome.run.report_html),
        "report_json": str(outcome.run.report_json),
        "tiles": outcome.tiles,
        "tiles_damaged": outcome.tiles_damaged,
        "tissue_share": outcome.tissue_share,
        "features_shape": list(outcome.features_shape),
        "python": [] if outcome.store is None else list(outcome.python),
    }


def print_demo(outcome: DemoOutcome, console: Console | None = None) -> None:
    """Print where the results are and what is in them.

    Parameters
    ----------
    outcome : DemoOutcome
        What `run_demo` returned.
    console : Console, optional
        Where to print; standard output by default.
    """
    console = console or Console(highlight=False)
    lines = [f"report    {outcome.run.report_html}"]
    if outcome.store is None:
        reasons = [row.reason for row in outcome.run.rows if row.status == "failed"]
        lines = [f"failed    {reason}" for reason in reasons] + lines
    else:
        rows, values = outcome.features_shape
        share = "" if outcome.tissue_share is None else f", tissue on {outcome.tissue_share:.0%} of the image"
        lines += [
            f"features  {outcome.store}",
            f"tiles     {outcome.tiles:,}{share}; {outcome.tiles_damaged:,} damaged",
            f"vectors   {rows:,} × {values:,} in `{outcome.variable}`",
            "in Python",
            *(f"    {line}" for line in outcome.python),
        ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
