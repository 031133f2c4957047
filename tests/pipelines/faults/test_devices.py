"""Devices that fail and memory that is short, by encoders that raise what torch and NumPy raise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from tests.pipelines.faults.runs import UNITS, embed, stores
from tilestream.cluster.client import open_client

FAULTY = "tests.pipelines.faults.faulty:"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    flag = tmp_path_factory.mktemp("flag") / "flag"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULTY_FLAG", str(flag))
        with open_client("local:1") as opened:
            yield opened


def test_a_batch_that_does_not_fit_gives_the_same_vectors_in_smaller_ones(
    process: Client, slide: Path, client: Client, tmp_path: Path
) -> None:
    options = {"super_tile_px": 2048, "batch": 16}
    outcome = embed(process, slide, tmp_path / "halved", encoder=FAULTY + "needs_memory", **options)
    assert outcome.exit_code() == 0, outcome.rows[0].reason
    assert outcome.rows[0].tiles_failed == 0
    unhalved = embed(client, slide, tmp_path / "whole", encoder=FAULTY + "needs_memory", **{**options, "batch": 2})
    assert unhalved.exit_code() == 0
    assert stores(tmp_path / "halved") == stores(tmp_path / "whole")


def test_a_lost_device_ends_its_process_and_only_its_unit_is_done_again(
    process: Client, slide: Path, whole: dict[str, bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = set(process.run(os.getpid).values())
    capfd.readouterr()
    outcome = embed(process, slide, tmp_path / "out", encoder=FAULTY + "loses_its_device_once")
    assert outcome.exit_code() == 0, outcome.rows[0].reason
    assert outcome.rows[0].supertiles_computed == UNITS
    assert outcome.rows[0].tiles_failed == 0
    after = set(process.run(os.getpid).values())
    flag = process.run(lambda: Path(os.environ["FAULTY_FLAG"]).read_text())
    assert {int(pid) for pid in flag.values()} == before
    assert before != after
    outlines = {name for name in stores(tmp_path / "out") if "zarr" not in name}
    assert all(stores(tmp_path / "out")[name] == whole[name] for name in outlines)
    assert capfd.readouterr() == ("", "")


def test_a_unit_that_always_loses_the_device_fails_its_image_with_the_reason(
    process: Client, slide: Path, tmp_path: Path
) -> None:
    (row,) = embed(process, slide, tmp_path, encoder=FAULTY + "always_loses_its_device").rows
    assert row.status == "failed"
    assert "alone as well as with others (RuntimeError: CUDA error: unspecified launch failure)" in row.reason


def test_in_this_process_a_lost_device_is_told_with_the_remedy(slide: Path, client: Client, tmp_path: Path) -> None:
    (row,) = embed(client, slide, tmp_path, encoder=FAULTY + "always_loses_its_device").rows
    assert row.status == "failed"
    assert "the device: got RuntimeError: CUDA error: unspecified launch failure" in row.reason
    assert "`--cluster local:1`" in row.reason
