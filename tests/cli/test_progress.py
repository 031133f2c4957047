"""What a run shows: lines that fit any terminal, and few plain ones anywhere else."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.pipelines.test_course import Clock, ended, prepared, unit
from tests.told import told
from tilestream.cli.liveview import MOST_IMAGES, time_line, view
from tilestream.cli.progress import Fresh, PlainProgress, Progress
from tilestream.pipelines.course import Course
from tilestream.pipelines.report_advice import Setting
from tilestream.stream.engine import Event
from tilestream.stream.work import Failure


def plain(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=False, highlight=False)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plain_prints_a_line_an_image_and_seldom_one_about_the_run() -> None:
    clock = Clock()
    console, course = plain(), Course(images=3, clock=clock)
    progress = PlainProgress(console, course, clock=clock)
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
    assert told(text(console)) == lines[-3:], "what other tests look for on machines of any speed"


def test_plain_lines_about_a_long_run_become_rare() -> None:
    clock = Clock()
    console, course = plain(), Course(images=1, clock=clock)
    progress = PlainProgress(console, course, clock=clock)
    progress.hear(prepared("a.svs", 10**6))
    for clock.now in range(1, 36_001, 5):  # ten hours
        progress.hear(unit("a.svs", 1, seconds={"decode": 7.0, "vit": 2.0}))
    lines = text(console).splitlines()
    assert 100 < len(lines) < 200
    assert "decode 78 % compute 22 %, 1.8 of 2 busy in " in lines[-1]


def test_nothing_but_lines_when_not_a_terminal() -> None:
    console = plain()
    progress = Progress(console)
    with progress.shown(1):
        progress.hear(prepared("a.svs", 1))
        progress.hear(ended("a.svs"))
    assert text(console) == "done a.svs (1 tile)\n"
    assert "\x1b" not in text(console)


def busy(images: int = 12) -> Course:
    clock = Clock()
    course = Course(images=images, clock=clock)
    for index in range(MOST_IMAGES + 2):
        clock.now += 10.0
        key = f"folder/of/a/patient/slide-with-a-long-name-{index}.svs"
        course.hear(prepared(key, 12_345, pixels=12_345 << 16))
        seconds = {"read": 0.5, "decode": 7.0, "wait": 3.0, "vit": 2.0, "transfer": 0.05, "write": 0.5}
        course.hear(unit(key, 345, damaged={"cut": (1,)}, seconds=seconds, bytes_read=10**7, worker="a:1"))
    return course


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_the_view_fits_the_terminal(width: int) -> None:
    console = plain(width)
    console.print(view(busy().figures(), width=width))
    lines = text(console).splitlines()
    assert max(map(len, lines)) <= width
    assert any("0/12 images" in line for line in lines)
    assert any("and 2 more" in line for line in lines)
    assert sum("345/12,345 tiles" in line for line in lines) == MOST_IMAGES
    assert "6 tiles damaged" in text(console)


def test_the_view_says_how_fast_and_where_the_time_goes() -> None:
    console = plain(80)
    console.print(view(busy().figures(), width=80))
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in text(console).splitlines()}
    assert lines["speed"] == "34 tiles/s 2.3 Mpx/s 1.0 MB/s read"
    assert lines["time"] == "read 5 % decode 70 % compute 20 % write 5 % (stages wait 54 %)"
    assert lines["threads"] == "0.6 of 2 busy in 1 process"


def test_nothing_moves_while_nothing_is_known() -> None:
    console = plain(80)
    console.print(view(Course(images=2).figures(), width=80))
    assert "0/2 images" in text(console)
    assert "so far" in text(console)


def test_figures_stand_still_for_a_second() -> None:
    clock = Clock()
    course = Course(images=1, clock=clock)
    fresh = Fresh(course, clock=clock)
    before = fresh.figures()
    course.hear(prepared("a.svs", 3))
    clock.now = 0.9
    assert fresh.figures() is before
    clock.now = 1.0
    assert fresh.figures().current == {"a.svs": (0, 3)}


def test_the_last_line_says_what_would_help() -> None:
    assert time_line(None, Setting()) is None
    assert time_line(Course(images=1).figures(), Setting()) is None
    line = time_line(busy().figures(), Setting())
    assert line is not None
    assert "had nothing to do" in line


@pytest.mark.parametrize(("wall_s", "is_told"), [(4.0, False), (60.0, True)])
def test_where_the_time_went_is_told_of_runs_that_take_some(wall_s: float, is_told: bool) -> None:
    clock = Clock()
    console = plain()
    progress = Progress(console)
    with progress.shown(1):
        progress.course = Course(images=1, clock=clock)
        progress.course.hear(prepared("a.svs", 1))
        clock.now = wall_s
        progress.course.hear(unit("a.svs", 1, seconds={"decode": 2 * wall_s}))
        progress.course.stop()
    progress.tell_time(Setting())
    line = "time decoding takes 100 % of the time on 2 threads: more cores, or --cluster with more workers\n"
    assert text(console) == (line if is_told else "")
    assert told(text(console)) == []


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    progress = Progress(console)
    with progress.shown(1):
        progress.hear(prepared("a.svs", 1))
        progress.hear(ended("a.svs"))
    assert text(console) == "done a.svs (1 tile)\n"


@pytest.mark.parametrize(
    ("result", "marks"),
    [
        ({"tiles": 5, "tiles_damaged": 2}, ": 2 of its tiles are damaged"),
        ({"tiles": 5, "tiles_damaged": 2, "tiles_failed": 1}, ": 2 of its tiles are damaged, 1 have no result"),
        ({"tiles": 5, "tiles_damaged": 3, "tiles_failed": 1, "tiles_empty": 1}, ": NOT ONE of its tiles has values"),
        ({"tiles": 5, "tiles_empty": 5}, ""),
        ({"tiles": 0}, ": nothing was selected"),
    ],
)
def test_an_image_without_values_stands_out(result: dict[str, int], marks: str) -> None:
    console = plain()
    with (progress := Progress(console)).shown(1):
        progress.hear(ended("a.svs", **result))
    assert text(console) == f"done a.svs{marks}\n"


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
