"""How a run looks on a terminal: one bar, its figures in fixed places, and the images that are being worked on."""

from __future__ import annotations

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tilestream.cli.words import counted, duration, number, shortened
from tilestream.pipelines.figures import Figures, Rates
from tilestream.pipelines.report_advice import Measured, Setting, findings
from tilestream.pipelines.report_time import KINDS, by_kind, shares, wait_share
from tilestream.pipelines.report_words import format_bytes

MOST_IMAGES = 4
"""Images with a line of their own; more would push what has failed out of sight."""
LEAST_SHARE = 0.01
"""Kinds of work below this share are not shown."""
LABEL = 8
"""Columns of the names at the left."""
WIDEST = 110
"""A display over the whole of a wide screen is hard to read."""
_NOTHING = "–"


def view(figures: Figures, *, width: int, said: str = "") -> Group:
    """Return what the terminal shows.

    Parameters
    ----------
    figures : Figures
        Of the run.
    width : int
        Columns of the terminal; nothing is wrapped.
    said : str
        What the command tells beside them.

    Returns
    -------
    Group
        First what stands in fixed places, then a line for each image, of which there may be more or fewer.
    """
    width = min(width, WIDEST)
    more = [_line("result", [said], width)] if said else []
    return Group(_run_bar(figures, width), *_figure_lines(figures, width), *more, *_image_bars(figures, width))


def _run_bar(figures: Figures, width: int) -> Table:
    left = f"{duration(figures.eta_s)} left" if figures.eta_s is not None else f"{duration(figures.wall_s)} so far"
    right = f"{figures.ended:,}/{figures.images:,} images {figures.share:4.0%}".replace("%", " %")
    table = _grid(width)
    bar = ProgressBar(total=1.0, completed=figures.share)
    table.add_row(Text("run", "bold"), bar, Text(right, "bold"), Text(left))
    return table


def _grid(width: int) -> Table:
    table = Table.grid(padding=(0, 1))
    table.width = width
    table.add_column(width=LABEL, no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, justify="right", min_width=14)
    return table


def _figure_lines(figures: Figures, width: int) -> list[Text]:
    lines = [_line("speed", speed(figures.now, figures.noun), width)]
    if figures.whole is not None:
        parts = [f"{number(figures.whole.tiles)} {figures.noun}s/s", *_pixels(figures.whole)]
        lines.append(_line("in all", [f"{counted(figures.tiles, figures.noun)} made at {', '.join(parts)}"], width))
    lines.append(_line("time", time_parts(figures), width))
    lines.append(_line("threads", threads(figures), width))
    trouble = troubles(figures)
    if trouble:
        lines.append(_line("trouble", trouble, width, style="red"))
    return lines


def _line(label: str, parts: list[str], width: int, style: str = "") -> Text:
    text = Text(f"{label:<{LABEL}} ", "dim", no_wrap=True, overflow="ellipsis")
    text.append("   ".join(parts) or _NOTHING, style or "default")
    text.truncate(width, overflow="ellipsis")
    return text


def _image_bars(figures: Figures, width: int) -> list[Table | Text]:
    images = list(figures.current.items())
    if not images:
        return []
    table = Table.grid(padding=(0, 1))
    table.width = width
    table.add_column(no_wrap=True, ratio=3, overflow="ellipsis")
    table.add_column(ratio=2)
    table.add_column(no_wrap=True, justify="right", min_width=16)
    for key, (done, tiles) in images[:MOST_IMAGES]:
        bar = ProgressBar(total=max(1, tiles), completed=done)
        name = shortened(key, max(12, width * 3 // 5 - 16))
        table.add_row(Text(name), bar, Text(f"{done:,}/{tiles:,} {figures.noun}s"))
    more = len(images) - MOST_IMAGES
    return [table, Text(f"and {more} more", "dim")] if more > 0 else [table]


def speed(rates: Rates | None, noun: str) -> list[str]:
    """Return what a run does in a second, of late; a dash before anything can be told."""
    if rates is None:
        return [_NOTHING]
    read = [f"{format_bytes(rates.bytes_read)}/s read"] if rates.bytes_read else []
    return [f"{number(rates.tiles)} {noun}s/s", *_pixels(rates), *read]


def _pixels(rates: Rates) -> list[str]:
    return [f"{number(rates.pixels / 1e6)} Mpx/s"] if rates.pixels else []


def time_parts(figures: Figures) -> list[str]:
    """Return the share of each kind of work of late, in the order in which data passes them, and of waiting."""
    steps = figures.seconds if figures.now is None or not by_kind(figures.now.steps) else figures.now.steps
    found = shares(steps)
    parts = [f"{kind} {found[kind]:.0%}" for kind in KINDS if found.get(kind, 0.0) >= LEAST_SHARE]
    waits = wait_share(steps)
    parts += [f"(stages wait {waits:.0%})"] if waits >= LEAST_SHARE else []
    return [part.replace("%", " %") for part in parts]


def threads(figures: Figures) -> list[str]:
    """Return how many threads of workers are in tasks, and in how many processes."""
    if not figures.threads or figures.now is None:
        return []
    processes = "1 process" if figures.workers == 1 else f"{figures.workers:,} processes"
    return [f"{number(figures.now.busy)} of {figures.threads:,} busy in {processes}"]


def troubles(figures: Figures) -> list[str]:
    """Return what has gone wrong so far, in counts; empty where nothing has."""
    parts = [f"{counted(figures.damaged, figures.noun)} damaged"] if figures.damaged else []
    parts += [f"{counted(figures.unfit, figures.noun)} without a result"] if figures.unfit else []
    parts += [f"{counted(figures.failed, 'image')} failed"] if figures.failed else []
    return parts


def time_line(figures: Figures | None, setting: Setting) -> str | None:
    """Return where the time of a run went and what would help, None where nothing was computed.

    Parameters
    ----------
    figures : Figures, optional
        Of the run, at its end.
    setting : Setting
        What decides which knob there is.

    Returns
    -------
    str or None
        One line.
    """
    if figures is None or not figures.supertiles:
        return None
    found = findings(Measured.of(figures), setting)
    return found[0].sentence if found else None


def summary(figures: Figures, *, said: str = "") -> str:
    """Return the figures of a run in one line.

    Parameters
    ----------
    figures : Figures
        Of the run.
    said : str
        What the command tells beside them.

    Returns
    -------
    str
        Images, tiles, rates, time left, where the time goes, threads, and what has gone wrong, if anything.
    """
    parts = [f"{figures.ended:,}/{figures.images:,} images", counted(figures.tiles + figures.reused, figures.noun)]
    parts += speed(figures.now, figures.noun)
    parts += [f"{duration(figures.eta_s)} left", " ".join(time_parts(figures)), *threads(figures)]
    return ", ".join(part for part in [*parts, said, *troubles(figures)] if part)
