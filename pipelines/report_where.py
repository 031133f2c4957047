"""Where the time went: one part of the report, the same for programs and for people."""

from __future__ import annotations

from typing import Any

from tilestream.pipelines.figures import Figures
from tilestream.pipelines.report_advice import Finding, Measured, Setting, findings
from tilestream.pipelines.report_rows import InputRow, RunFacts
from tilestream.pipelines.report_time import WAIT, shares, task_seconds, wait_share, work_seconds


def time_document(facts: RunFacts) -> dict[str, Any] | None:
    """Return where the time of a run went, None where nobody has listened to it.

    Parameters
    ----------
    facts : RunFacts
        Figures of the run.

    Returns
    -------
    dict or None
        JSON values; see `report_json`.
    """
    figures = facts.figures
    if figures is None:
        return None
    measured = Measured.of(figures)
    found = findings(measured, facts.setting)
    return {
        "wall_s": round(figures.wall_s, 3),
        "threads": figures.threads,
        "threads_s": round(figures.threads_s, 3),
        "workers": figures.workers,
        "task_s": round(measured.task_s, 3),
        "work_s": round(work_seconds(figures.seconds), 3),
        "wait_s": round(figures.seconds.get(WAIT, 0.0), 3),
        "idle_s": round(measured.idle_s, 3) if figures.threads else None,
        "seconds": {step: round(value, 3) for step, value in sorted(figures.seconds.items())},
        "shares": {kind: round(share, 4) for kind, share in shares(figures.seconds).items()},
        **_rates(figures),
        "bottleneck": _finding(found[0]) if found else None,
        "findings": [_finding(finding) for finding in found],
        "timeline": _timeline(facts, figures),
    }


def input_time(row: InputRow, setting: Setting) -> dict[str, Any]:
    """Return where the time of one input went.

    Parameters
    ----------
    row : InputRow
        The input.
    setting : Setting
        What of the run decides which knob there is.

    Returns
    -------
    dict
        JSON values; see `report_json`.
    """
    found = findings(Measured(wall_s=row.wall_s, threads=0, seconds=row.seconds), setting)
    return {
        "shares": {kind: round(share, 4) for kind, share in shares(row.seconds).items()},
        "wait_share": round(wait_share(row.seconds), 4) if task_seconds(row.seconds) else None,
        "mpx_per_s": None if row.mpx_per_s is None else round(row.mpx_per_s, 3),
        "advice": found[0].sentence if found else None,
    }


def _rates(figures: Figures) -> dict[str, float | None]:
    whole, core = figures.whole, figures.mpx_per_core_s
    return {
        "tiles_per_s": None if whole is None else round(whole.tiles, 3),
        "mpx_per_s": None if whole is None or not figures.pixels else round(whole.pixels / 1e6, 3),
        "mpx_per_core_s": None if core is None else round(core, 3),
        "bytes_read_per_s": None if whole is None else round(whole.bytes_read),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {"name": finding.name, "share": round(finding.share, 4), "text": finding.text, "do": finding.do}


def _timeline(facts: RunFacts, figures: Figures) -> dict[str, Any] | None:
    timeline = facts.timeline
    if timeline is None or not figures.seconds:
        return None
    slots = timeline.threads(figures.wall_s)
    return {
        "slot_s": timeline.slot_s,
        "threads": [{name: round(value, 3) for name, value in slot.items()} for slot in slots],
    }
