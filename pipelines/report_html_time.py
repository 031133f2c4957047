"""How the report for people shows where the time went: bars, the course of a run, caches, energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tilestream.metrics import stage_of
from tilestream.pipelines.report_colours import OTHER, category
from tilestream.pipelines.report_rows import RunFacts
from tilestream.pipelines.report_time import KINDS, WAIT
from tilestream.pipelines.report_timeline import TASK
from tilestream.pipelines.report_where import time_document
from tilestream.pipelines.report_words import format_bytes, format_rate, format_seconds

_STEPS = {
    "read": "reading bytes",
    "decode": "decoding pixels",
    "gather": "putting tiles together",
    "transfer": "to the device and back",
    "levels": "making levels",
    "encode": "compressing",
    "write": "writing results",
    "plan": "opening and planning",
    "finish": "final stores",
    "entropy": "entropy of each tile",
    "fit": "fitting fields",
    "measure": "decoding them again, to measure",
}
# A step has the same colour on every card; encoders, whose names are open, take what is left.
_COLOURS = {"decode": 0, "entropy": 2, "encode": 2, "gather": 3, "read": 4, "write": 5, "finish": 6, "transfer": 7}
_COMPUTE = 1
"""Orange: the first encoder's colour wherever there is one."""
_FREE = 8
CHART_WIDTH, CHART_HEIGHT = 960.0, 120.0
_JOULES_A_WH = 3600.0
_METERS = {"cpu_j": "processors and memory", "gpu_j": "GPUs"}


def time_split(seconds: Mapping[str, float]) -> dict[str, Any] | None:
    """Return the parts of a time bar, longest first; waiting is no part.

    Parameters
    ----------
    seconds : Mapping
        Time by step.

    Returns
    -------
    dict or None
        None when no time was taken.
    """
    seconds = {step: value for step, value in seconds.items() if step != WAIT}
    total = sum(seconds.values())
    if total <= 0:
        return None
    ordered = sorted(seconds.items(), key=lambda item: (-item[1], item[0]))
    colours = _step_colours(seconds)
    parts = [
        {
            "name": stage_of(name),
            "what": _STEPS.get(name, "stage"),
            "seconds": value,
            "share": 100 * value / total,
            "colour": colours[name],
        }
        for name, value in ordered
    ]
    return {"parts": parts, "total": total}


def _step_colours(seconds: Mapping[str, float]) -> dict[str, str]:
    colours = {name: category(_COLOURS[name]) for name in seconds if name in _COLOURS} | {"plan": OTHER}
    taken = {_COLOURS[name] for name in seconds if name in _COLOURS}
    free = [number for number in range(_FREE) if number not in taken]
    free.sort(key=lambda number: (number != _COMPUTE, number))
    others = sorted(name for name in seconds if name not in colours)
    for place, name in enumerate(others):
        colours[name] = category(free[place]) if place < len(free) else OTHER
    return colours


def run_view(facts: RunFacts) -> dict[str, Any] | None:
    """Return what the section on the time of a run shows, None where nothing was done or nobody has listened.

    Parameters
    ----------
    facts : RunFacts
        Figures of the run.

    Returns
    -------
    dict or None
        Texts and numbers.
    """
    document = time_document(facts)
    if document is None or facts.figures is None or not document["findings"]:
        return None
    return {
        "findings": document["findings"],
        "split": time_split(facts.figures.seconds),
        "lines": _lines(document),
        "chart": chart(document),
        "cache": cache_lines(facts.figures.cache),
        "energy": energy_lines(facts.energy, facts.figures.pixels),
    }


def _lines(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the figures of a run beside the bar: names and values."""
    lines = []
    for name, key, unit in (
        ("Tiles", "tiles_per_s", "/s"),
        ("Megapixels", "mpx_per_s", "/s"),
        ("Megapixels, one core at work", "mpx_per_core_s", "/s"),
    ):
        if document[key] is not None:
            lines.append((name, f"{format_rate(document[key])}{unit}"))
    if document["bytes_read_per_s"]:
        lines.append(("Read", f"{format_bytes(document['bytes_read_per_s'])}/s"))
    if document["threads"]:
        whole_s = document["threads_s"]
        share = min(1.0, document["task_s"] / whole_s) if whole_s else 0.0
        processes = "1 process" if document["workers"] == 1 else f"{document['workers']:,} processes"
        lines.append(("Threads", f"{document['threads']:,} in {processes}"))
        lines.append(("At work", f"{100 * share:.0f} % of their time"))
        lines.append(("Without a task", format_seconds(document["idle_s"])))
    if document["wait_s"]:
        lines.append(("Stages waited for tiles", format_seconds(document["wait_s"])))
    return lines


def chart(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the course of a run as an SVG draws it: threads at each kind of work, stacked, over time.

    Parameters
    ----------
    document : Mapping
        As `time_document` gives it.

    Returns
    -------
    dict or None
        One path a kind, with its colour; None for a run that was over at once.
    """
    timeline = document["timeline"]
    if timeline is None or len(timeline["threads"]) < 2:
        return None
    slots = timeline["threads"]
    most = max([document["threads"], *(sum(_work(slot)) for slot in slots)])
    if not most:
        return None
    width, scale = CHART_WIDTH / len(slots), CHART_HEIGHT / most
    paths = []
    floor = [0.0] * len(slots)
    for kind in KINDS:
        path = ""
        for number, slot in enumerate(slots):
            height = slot.get(kind, 0.0) * scale
            if height > 0:
                top = CHART_HEIGHT - floor[number] - height
                path += f"M{number * width:.1f} {top:.1f}h{width:.1f}v{height:.1f}h-{width:.1f}z"
                floor[number] += height
        if path:
            paths.append({"kind": kind, "path": path, "colour": _kind_colour(kind)})
    return {
        "width": CHART_WIDTH,
        "height": CHART_HEIGHT,
        "paths": paths,
        "line_y": CHART_HEIGHT - document["threads"] * scale,
        "threads": document["threads"],
        "end": format_seconds(document["wall_s"]),
    }


def _work(slot: Mapping[str, float]) -> list[float]:
    return [value for name, value in slot.items() if name != TASK]


def _kind_colour(kind: str) -> str:
    if kind == "plan":
        return OTHER
    return category(_COLOURS.get(kind, _COMPUTE))


def cache_lines(cache: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Return the figures of each cache that was asked, with its hit rate."""
    return [
        {
            "name": name,
            "hits": figures.get("hits", 0),
            "misses": figures.get("misses", 0),
            "bytes": figures.get("bytes", 0),
            "evictions": figures.get("evictions", 0),
            "rate": 100 * figures.get("hits", 0) / (figures.get("hits", 0) + figures.get("misses", 0)),
        }
        for name, figures in cache.items()
        if figures.get("hits", 0) + figures.get("misses", 0)
    ]


def energy_lines(energy: Mapping[str, float], pixels: float) -> list[tuple[str, str]]:
    """Return what meters said in words, with what a gigapixel took; empty without a meter.

    Parameters
    ----------
    energy : Mapping
        Joules by meter.
    pixels : float
        Pixels of the plan that the run has done.

    Returns
    -------
    list of (str, str)
        Names and values.
    """
    lines = [(_METERS[name], f"{value:,.0f} J ({value / _JOULES_A_WH:.3g} Wh)") for name, value in energy.items()]
    if energy and pixels:
        lines.append(("a gigapixel", f"{sum(energy.values()) / pixels * 1e9:,.0f} J"))
    return lines
