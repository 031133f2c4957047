"""What a run shows: bars that fit any terminal, and few plain lines anywhere else."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.cli.test_counts import Clock, ended, prepared, unit
from tilestream.cli.counts import Counts
from tilestream.cli.progress import MOST_IMAGES, PlainProgress, Progress, view
from tilestream.stream.engine import Event
from tilestream.stream.work import Failure


def plain(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=False, highlight=False)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plain_prints_a_line_an_image_and_seldom_one_about_the_run() -> None:
    clock = Clock()
    console, counts = plain(), Counts(images=3, clock=clock)
    progress = PlainProgress(console, counts, clock=clock)
    progress.hear(prepared("a.svs", 50))
    for clock.now in range(1, 41):
        progress.hear(unit("a.svs", 1))
    progress.hear(ended("a.svs"))
    progress.hear(Event(job=ended("b.svs").job, kind="failed", failure=Failure(reason="[red]bad[/red] " + "x" * 200)))
    progress.hear(ended("c.svs", "skipped"))
    lines = text(console).splitlines()
    assert lines[-3:] == [
        "done a.svs (50 tiles)",
        "failed b.svs: [red]bad[/red] " + "x" * 200,
        "already done c.svs",
    ]
    assert len(lines) == 3 + 4  # forty units in forty seconds
    assert lines[0].startswith("0/3 images, 10 tiles, 1 tiles/s, ")


def test_nothing_but_lines_when_not_a_terminal() -> None:
    console = plain()
    progress = Progress(console)
    with progress.shown(1):
        progress.hear(prepared("a.svs", 1))
        progress.hear(ended("a.svs"))
    assert text(console) == "done a.svs (1 tile)\n"
    assert "\x1b" not in text(console)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_bars_fit_the_terminal(width: int) -> None:
    counts = Counts(images=12)
    for index in range(MOST_IMAGES + 2):
        counts.hear(prepared(f"folder/of/a/patient/slide-with-a-long-name-{index}.svs", 12_345))
        counts.hear(unit(f"folder/of/a/patient/slide-with-a-long-name-{index}.svs", 345, cut=(1,)))
    console = plain(width)
    console.print(view(counts))
    lines = text(console).splitlines()
    assert max(map(len, lines)) <= width
    assert any("0/12 images" in line for line in lines)
    assert any("and 2 more" in line for line in lines)
    assert sum("345/12,345 tiles" in line for line in lines) == MOST_IMAGES
    assert "6 damaged" in text(console)


def test_failures_stay_on_the_terminal_above_the_bars() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    progress = Progress(console)
    with progress.shown(2):
        progress.hear(Event(job=ended("b.svs").job, kind="failed", failure=Failure(reason="cut short")))
    assert "failed b.svs: cut short" in text(console)


def test_what_is_kept_after_an_interrupt() -> None:
    progress = Progress(plain())
    with progress.shown(2):
        progress.hear(prepared("a.svs", 50))
        progress.hear(unit("a.svs", 20))
    assert progress.kept() == "0 of 2 inputs and 20 tiles are done and kept"
