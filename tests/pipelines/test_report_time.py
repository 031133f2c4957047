"""Seconds of receipts by kind, how long tasks kept threads, and what threads did over the course of a run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilestream.metrics import STEPS, stage_of, stage_step
from tilestream.pipelines.report_advice import Measured, Setting, findings
from tilestream.pipelines.report_html_time import time_split
from tilestream.pipelines.report_time import (
    KINDS,
    WAIT,
    added,
    by_kind,
    cache_figures,
    shares,
    task_seconds,
    wait_share,
    work_seconds,
)
from tilestream.pipelines.report_timeline import SLOTS, TASK, Timeline

ALONE = {"read": 1.0, "decode": 4.0, "gather": 1.0, "entropy": 1.0, "vit": 2.0, "write": 1.0}
AHEAD = {"read": 2.0, "decode": 8.0, "gather": 2.0, "wait": 3.0, "transfer": 1.0, "vit": 5.0, "write": 1.0}
"""Decoding runs in threads of its own beside the one that waits, computes and writes."""


def test_stages_are_summed_up_and_waiting_is_no_work() -> None:
    assert by_kind(ALONE) == {"read": 1.0, "decode": 4.0, "gather": 1.0, "compute": 3.0, "write": 1.0}
    assert list(shares(AHEAD)) == ["read", "decode", "gather", "transfer", "compute", "write"]
    assert sum(shares(AHEAD).values()) == pytest.approx(1)
    assert (work_seconds(ALONE), work_seconds(AHEAD)) == (10.0, 19.0)
    assert (task_seconds(ALONE), task_seconds(AHEAD)) == (10.0, 10.0)
    assert (wait_share(ALONE), wait_share(AHEAD), wait_share({})) == (0.0, 0.3, 0.0)
    assert shares({}) == {}


def test_a_stage_with_the_name_of_a_step_of_ours_is_still_a_stage() -> None:
    assert (set(KINDS) | {WAIT}) - {"compute"} <= STEPS
    assert by_kind({stage_step(name): 1.0 for name in STEPS}) == {"compute": len(STEPS)}
    assert [stage_of(stage_step(name)) for name in ("encode", "vit")] == ["encode", "vit"]
    assert stage_step("vit") == "vit"
    split = time_split({"encode": 1.0, stage_step("encode"): 3.0})
    assert split is not None
    assert [(part["name"], part["what"]) for part in split["parts"]] == [("encode", "stage"), ("encode", "compressing")]
    (found,) = findings(Measured(wall_s=3.0, threads=0, seconds={stage_step("encode"): 3.0}), Setting())
    assert found.text == "computing (`encode`) takes 100 % of the time"


def test_receipts_of_earlier_versions_are_understood() -> None:
    old = {"decoded": {"hits": 5, "misses": 2, "bytes": 0, "evictions": 0}}
    assert cache_figures({"decoded blocks": [5, 2]}) == old
    assert cache_figures({"peer": {"hits": 1}}) == {"peer": {"hits": 1, "misses": 0, "bytes": 0, "evictions": 0}}
    assert added({"a": {"hits": 1}}, {"a": {"hits": 2, "misses": 1}, "b": {"hits": 1}}) == {
        "a": {"hits": 3, "misses": 1},
        "b": {"hits": 1},
    }


def test_a_task_is_spread_over_its_time() -> None:
    timeline = Timeline()
    timeline.add(10.0, {"decode": 3.0, "vit": 1.0})
    timeline.add(10.0, {"decode": 2.0})
    assert timeline.busy(6.0, 10.0) == pytest.approx(1.5)
    assert timeline.busy(8.0, 10.0) == pytest.approx(2.0)
    assert timeline.busy(0.0, 6.0) == pytest.approx(0.0)
    slots = timeline.threads(10.0)
    assert len(slots) == pytest.approx(10.0 / timeline.slot_s, abs=1)
    assert slots[int(7.0 / timeline.slot_s)] == pytest.approx({"decode": 0.75, "compute": 0.25, TASK: 1.0})


def test_idle_time_is_told_by_what_others_did_meanwhile() -> None:
    timeline = Timeline()
    timeline.add(2.0, {"plan": 2.0})
    timeline.add(6.0, {"decode": 4.0})
    timeline.add(6.0, {"decode": 4.0})
    timeline.add(7.0, {"finish": 1.0})
    assert timeline.idle(2, beside=("plan", "finish")) == pytest.approx(3.0)
    assert timeline.idle(3, beside=("plan", "finish")) == pytest.approx(6.0)
    assert timeline.idle(3, beside=("decode",)) == pytest.approx(4.0)


@given(
    st.lists(
        st.tuples(st.floats(0.01, 5000.0), st.floats(0.001, 400.0), st.sampled_from(["decode", "vit", "write"])),
        min_size=1,
        max_size=60,
    )
)
def test_no_time_is_lost_however_long_a_run_is(tasks: list[tuple[float, float, str]]) -> None:
    timeline = Timeline()
    for end_s, length_s, step in tasks:
        timeline.add(end_s, {step: length_s})
    wall_s = max(end_s for end_s, _, _ in tasks)
    total = sum(length_s for _, length_s, _ in tasks)
    slots = timeline.threads(wall_s)
    assert len(slots) <= SLOTS
    assert timeline.busy(0.0, wall_s) * wall_s == pytest.approx(total, rel=1e-6)
    for name in (TASK, "work"):
        values = [sum(value for kind, value in slot.items() if (kind == TASK) == (name == TASK)) for slot in slots]
        lengths = [min(timeline.slot_s, max(wall_s - n * timeline.slot_s, 1e-6)) for n in range(len(slots))]
        assert sum(v * s for v, s in zip(values, lengths, strict=True)) == pytest.approx(total, rel=1e-6)
