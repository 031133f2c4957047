"""Rows of a benchmark table, and how they are measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from tests.parallel import by_itself

PAUSE_S = 0.25
"""Between contestants: the threads of OpenMP spin for up to 0.2 s after their work, on the cores of whoever is next."""


TURN_S = 0.1
"""What is done sooner is done again: a single call of a millisecond measures how a core wakes up."""


def make_row(
    name: str,
    value: float,
    unit: str,
    *,
    rival: tuple[str, float] | None = None,
    bar: tuple[float, float] | None = None,
    note: str = "",
) -> dict[str, Any]:
    """Return one row of the table.

    Parameters
    ----------
    name : str
        What was measured.
    value : float
        Our figure.
    unit : str
        Its unit.
    rival : tuple of str and float, optional
        Who else was measured in the same run, and the figure.
    bar : tuple of float, optional
        Least and most that the ratio may be, or the value where there is no rival.
    note : str
        How it was measured.

    Returns
    -------
    dict
        JSON values; `ok` is None where no bar is set.
    """
    ratio = None if rival is None else value / rival[1]
    judged = value if ratio is None else ratio
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "rival": rival[0] if rival else None,
        "rival_value": rival[1] if rival else None,
        "ratio": ratio,
        "bar": None if bar is None else [bar[0], None if bar[1] == float("inf") else bar[1]],
        "ok": None if bar is None else bool(bar[0] <= judged <= bar[1]),
        "note": note,
    }


def at_least(bar: float) -> tuple[float, float]:
    """Return the bar that asks for no less than `bar`."""
    return bar, float("inf")


def rates(contestants: Sequence[Callable[[], float]], *, rounds: int = 3) -> list[float]:
    """Return the median rate of each contestant.

    Parameters
    ----------
    contestants : sequence of callable
        Each does its work and returns how much it did.
    rounds : int
        How often each runs. They take turns, so that a machine that slows down slows all of them.

    Returns
    -------
    list of float
        Work a second.
    """
    found: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for index, contestant in enumerate(contestants):
            time.sleep(PAUSE_S)
            start = time.perf_counter()
            amount = contestant()
            while time.perf_counter() - start < TURN_S:
                amount += contestant()
            found[index].append(amount / (time.perf_counter() - start))
    return [statistics.median(values) for values in found]


def until_held(measure: Callable[[], Any], attempts: int = 6) -> Any:
    """Return what `measure` gives, a row or several, again where a bar is missed: noise comes and goes, a fault stays.

    From the second attempt on no other test runs meanwhile.

    Parameters
    ----------
    measure : callable
        Returns a row or a list of rows.
    attempts : int
        How often at most.

    Returns
    -------
    dict or list of dict
        Of the first attempt in which every bar was held, or of the last.
    """
    for attempt in range(attempts):
        with by_itself() if attempt else nullcontext():
            found = measure()
        if all(row["ok"] is not False for row in (found if isinstance(found, list) else [found])):
            break
    return found


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| what | ours | rival | ratio | bar | held |", "|---|---|---|---|---|---|"]
    for row in rows:
        rival = f"{row['rival_value']:,.4g} {row['unit']} ({row['rival']})" if row["rival"] else ""
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        held = {True: "yes", False: "**no**", None: ""}[row["ok"]]
        ours = f"{row['value']:,.4g} {row['unit']}"
        lines.append(f"| {row['name']} | {ours} | {rival} | {ratio} | {_bar(row['bar'])} | {held} |")
    notes = [f"- {row['name']}: {row['note']}" for row in rows if row["note"]]
    return "\n".join([*lines, "", *notes])


def _bar(bar: list[float | None] | None) -> str:
    if bar is None:
        return ""
    low, high = bar
    return f"≥ {low:g}" if high is None else f"{low:g} to {high:g}"
