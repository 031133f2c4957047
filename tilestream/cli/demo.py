"""The command `tilestream demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilestream.cli import options as opt
from tilestream.cli.stopping import AGAIN, SOME_FAILED, guarded, print_json, same_command


def demo(
    slide: Annotated[
        str | None,
        typer.Argument(
            metavar="[SLIDE]",
            show_default=False,
            help="A slide or scene; without it a sample, downloaded or, with no network, found or made.",
        ),
    ] = None,
    out: opt.DemoOut = Path("demo-out"),
    where: opt.Where = "tissue",
    cluster: opt.Cluster = None,
    as_json: opt.Json = False,
) -> None:
    """Run the main job on one slide and show what is in the results."""
    from tilestream.cli.progress import Progress

    progress = Progress()
    with guarded(as_json=as_json, stopped=lambda: f"{progress.kept()}. {AGAIN}: {same_command()}") as stop:
        from tilestream.cli.demonstrating import demo_document, print_demo, print_sample
        from tilestream.pipelines.demo import run_demo
        from tilestream.pipelines.sample import find_sample

        config = opt.embed_config(out=out, where=where, cluster=cluster)
        sample = find_sample(slide, out)
        print_sample(sample)
        with progress.shown(1):
            outcome = run_demo(sample, config, on_event=stop.checked(progress.hear))
        progress.tell_time(outcome.run.facts.setting)
        if as_json:
            print_json(demo_document(outcome))
        else:
            print_demo(outcome)
    raise typer.Exit(SOME_FAILED if outcome.store is None else 0)
