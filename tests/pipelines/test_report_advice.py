"""What is called the bottleneck, from made quantities, and the knob that is named with it."""

from __future__ import annotations

from typing import Any

import pytest

from tilestream.pipelines.report_advice import Measured, Setting, findings


def first(setting: Setting | None = None, **measured: Any) -> tuple[str, str]:
    """Name and sentence of the bottleneck."""
    usual = {"wall_s": 50.0, "threads": 2, "supertiles": 100, "tail_busy": 2.0}
    found = findings(Measured(**usual | measured), setting or Setting())
    return found[0].name, found[0].sentence


EVEN = {"decode": 40.0, "vit": 45.0, "read": 8.0, "write": 7.0}


@pytest.mark.parametrize(
    ("seconds", "setting", "name", "words"),
    [
        ({"decode": 71, "vit": 20, "write": 9}, {}, "decode", "decoding takes 71 % of the time on 2 threads: more "),
        ({"vit": 60, "entropy": 5, "decode": 35}, {}, "compute", "computing (`vit`) takes 65 % of the time on 2 thr"),
        ({"read": 64, "vit": 36}, {"remote": "s3"}, "read", "reading from s3 takes 64 % of the time on 2 threads: "),
        ({"read": 64, "vit": 36}, {"remote": "s3"}, "read", "2 threads: --disk-cache keeps what was read"),
        ({"read": 64, "vit": 36}, {"remote": "s3", "has_disk_cache": True}, "read", "helps from the second run on"),
        ({"read": 64, "vit": 36}, {"remote": "s3", "command": "ingest"}, "read", "run nearer to the source"),
        ({"read": 64, "vit": 36}, {}, "read", "reading takes 64 % of the time on 2 threads: a faster disk"),
        ({"write": 40, "vit": 25, "decode": 25, "read": 10}, {}, "write", "writing takes 40 % of the time"),
        ({"write": 60, "decode": 40}, {}, "write", "--out on a faster disk"),
        ({"write": 60, "decode": 40}, {"is_remote_out": True}, "write", "--out nearer to the workers"),
        ({"gather": 70, "decode": 30}, {}, "gather", "an --mpp at which a level is stored"),
        ({"gather": 70, "decode": 30}, {"halo_px": 64}, "gather", "a smaller --halo, or an --mpp"),
        ({"encode": 80, "decode": 20}, {}, "encode", "compressing takes 80 %"),
        ({"plan": 80, "decode": 20}, {}, "plan", "opening and planning takes 80 %"),
        ({"finish": 80, "decode": 20}, {}, "finish", "making the final stores takes 80 %"),
    ],
)  # fmt: skip
def test_a_kind_of_work_that_stands_out_is_named_with_its_knob(
    seconds: dict[str, float], setting: dict[str, Any], name: str, words: str
) -> None:
    found, sentence = first(Setting(**setting), seconds=seconds)
    assert found == name
    assert words in sentence


def test_one_image_is_not_opened_or_finished_faster_by_more_cores() -> None:
    for step, alone in (("plan", "--where all looks for no tissue"), ("finish", "")):
        setting = Setting(looks_for_tissue=True)
        told = {images: first(setting, seconds={step: 80.0, "vit": 20.0}, images=images)[1] for images in (1, 9)}
        assert "more cores, since each image is" in told[9]
        assert told[1].partition(": ")[2] == alone


def test_nothing_is_named_where_nothing_stands_out() -> None:
    name, sentence = first(seconds=EVEN)
    assert name == "none"
    assert sentence == "nothing stands out: computing 45 %, decoding 40 %, reading 8 %"


def test_stages_that_wait_point_at_what_they_wait_for() -> None:
    seconds = {"wait": 60.0, "vit": 30.0, "write": 10.0, "decode": 90.0, "read": 10.0}
    found = findings(Measured(wall_s=50.0, threads=2, seconds=seconds, supertiles=99, tail_busy=2.0), Setting())
    told = {finding.name: finding.sentence for finding in found}
    assert told["wait"].startswith(
        "the stage waits for tiles 60 % of the time, and 90 % of what makes them is decoding"
    )
    assert "more cores" in told["wait"]


def test_a_device_that_waits_is_called_one_and_one_that_does_not_is_not_blamed_on_decoding() -> None:
    slow = {"wait": 70.0, "vit": 20.0, "transfer": 10.0, "read": 95.0, "decode": 5.0}
    name, sentence = first(Setting(remote="s3"), seconds=slow, tail_busy=2.0)
    assert name == "wait"
    assert sentence.startswith("the device waits for tiles 70 % of the time, and 95 % of what makes them is reading: ")
    assert "--disk-cache" in sentence
    fast = {"wait": 2.0, "vit": 90.0, "transfer": 8.0, "read": 200.0, "decode": 700.0}  # by sixteen cores beside it
    name, sentence = first(seconds=fast)
    assert name == "compute"
    assert "computing (`vit`) takes 90 % of the time" in sentence
    assert "a larger --batch, or a faster device" in sentence


def test_many_threads_that_decode_in_time_are_no_bottleneck_on_the_host_either() -> None:
    seconds = {"wait": 2.0, "vit": 88.0, "write": 10.0, "decode": 400.0, "gather": 50.0}
    name, sentence = first(seconds=seconds)
    assert name == "compute"
    assert sentence == (
        "computing (`vit`) takes 88 % of the time on 2 threads: more cores, or --cluster with more workers"
    )


@pytest.mark.parametrize(("supertiles", "words"), [(6, "6 super-tiles are few for 4 threads"), (600, "fewer workers")])
def test_threads_that_end_early_are_told_with_the_reason(supertiles: int, words: str) -> None:
    seconds = {"decode": 100.0, "vit": 40.0}
    measured = Measured(
        wall_s=50.0, threads=4, seconds=seconds, supertiles=supertiles, unit_s=140 / supertiles, tail_busy=2.0
    )
    found = findings(measured, Setting())
    assert [finding.name for finding in found] == ["decode", "tail"]
    assert found[1].text == "2 of 4 threads had nothing to do in the last 30 % of the run"
    assert words in found[1].do


@pytest.mark.parametrize(
    ("more", "do"),
    [
        ({"supertiles": 3, "unit_s": 10.0}, ": 3 super-tiles are few for 4 threads, a smaller --super-tile makes more"),
        ({"supertiles": 1, "unit_s": 30.0}, ": 1 super-tile is few for 4 threads, a smaller --super-tile makes more"),
        ({"supertiles": 3000, "unit_s": 0.01}, ": a super-tile takes 10 ms, a larger --super-tile is handed out less "
         "often"),
        ({"supertiles": 300, "unit_s": 0.1, "ends_idle_s": 90.0}, ": mostly while one of them opened or finished an "
         "image, more images a run would overlap"),
        ({"supertiles": 300, "unit_s": 0.1}, ""),
    ],
)  # fmt: skip
def test_idle_threads_all_along_are_told_with_what_was_measured_of_them(more: dict[str, Any], do: str) -> None:
    name, sentence = first(seconds={"decode": 30.0}, threads=4, tail_busy=0.6, **more)
    assert name == "idle"
    assert sentence == f"3.4 of 4 threads had nothing to do on average{do}"


def test_an_ingest_is_not_told_to_turn_knobs_that_it_does_not_have() -> None:
    ingest = Setting(command="ingest", halo_px=64)
    for seconds in ({"decode": 30.0}, {"gather": 95.0}, {"plan": 95.0}, {"encode": 95.0}):
        for more in ({"supertiles": 3, "unit_s": 1.0}, {"supertiles": 3000, "unit_s": 0.01}):
            for finding in findings(Measured(wall_s=50.0, threads=2, seconds=seconds, **more), ingest):
                for option in ("--super-tile", "--halo", "--mpp", "--where", "--batch", "--disk-cache"):
                    assert option not in finding.do


def test_one_thread_has_no_idle_neighbours_and_an_unknown_number_says_nothing() -> None:
    assert first(seconds=EVEN, threads=1, wall_s=100.0, tail_busy=1.0)[0] == "none"
    assert first(seconds=EVEN, threads=0, wall_s=1000.0, tail_busy=0.0)[0] == "none"
    assert " on " not in first(seconds={"decode": 9.0}, threads=0)[1].partition(":")[0]


def test_where_nothing_was_done_nothing_is_said() -> None:
    assert findings(Measured(wall_s=5.0, threads=2), Setting()) == ()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("idle", [0.0, 0.3, 0.8])
def test_shares_are_shares_and_the_weightiest_comes_first(share: float, idle: float) -> None:
    work = 100.0 * (1 - idle)
    seconds = {"decode": share * work, "vit": (1 - share) * work * 0.6, "read": (1 - share) * work * 0.4}
    found = findings(Measured(wall_s=50.0, threads=2, seconds=seconds, tail_busy=2 * (1 - idle)), Setting())
    assert found
    assert all(0 <= finding.share <= 1 and 0 <= finding.weight <= 1 for finding in found)
    weights = [finding.weight for finding in found]
    assert weights == sorted(weights, reverse=True)
    assert (found[0].name == "idle") == (idle == 0.8 or (idle == 0.3 and len(found) == 1))
