"""The work on one unit: the same results wherever its batches are decoded and its stages compute."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stream.test_batches import EDGE, KeptSink
from tilestream.errors import ConfigError
from tilestream.plan.tiles import plan_tiles
from tilestream.pyramid import open_pyramid
from tilestream.stream import halt, supply
from tilestream.stream.journal import Journal
from tilestream.stream.work import TileWork, make_stage
from tilestream.testing.slide import write_slide
from tilestream.types import Batch, ImageInfo, Pending, Receipt, Shape, StageContract, StageSpec


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "small.svs"
    return write_slide(path, Shape(y=5 * EDGE, x=5 * EDGE), tile_px=EDGE, seed=5)


@dataclass(frozen=True)
class FakeDevice:
    """Computes in a thread of its own, later than it is told to, from the memory that it was given."""

    queue: ThreadPoolExecutor
    log: list[str]

    @property
    def contract(self) -> StageContract:
        return StageContract(name="fake", px=EDGE, dim=2)

    @property
    def device(self) -> str:
        return "cuda:0"

    def for_image(self, image: ImageInfo) -> StageSpec:
        return StageSpec(target=f"{__name__}:fake_device")

    def output_names(self, image: ImageInfo) -> tuple[str, ...]:
        return ("a", "b")

    def allocate(self, nbytes: int) -> Any:
        return np.empty(nbytes, np.uint8)

    def __call__(self, batch: Batch) -> Any:
        return self.start(batch)()

    def start(self, batch: Batch) -> Pending:
        found: Future[Any] = self.queue.submit(self._compute, batch)
        self.log.append("start")

        def finished() -> Any:
            self.log.append("finish")
            return found.result()

        return finished

    @staticmethod
    def _compute(batch: Batch) -> Any:
        time.sleep(0.01)
        return np.stack([batch.pixels.mean(axis=(1, 2, 3)), batch.pixels.std(axis=(1, 2, 3))], 1).astype(np.float32)


class HostTwin(FakeDevice):
    """The same on the host."""

    device = "cpu"  # type: ignore[assignment]

    def start(self, batch: Batch) -> Pending:
        found = self._compute(batch)
        return lambda: found


def fake_device() -> FakeDevice:
    return FakeDevice(ThreadPoolExecutor(1), [])


def host_twin() -> HostTwin:
    return HostTwin(ThreadPoolExecutor(1), [])


def run(path: Path, folder: Path, target: str, **options: Any) -> tuple[Receipt, dict[str, Any]]:
    pyramid = open_pyramid(str(path), cache_bytes=0)
    (unit,) = plan_tiles(pyramid, tile_px=EDGE, where="all").start()
    journal = Journal(root=folder, recipe="r")
    journal.open({})
    sink = KeptSink()
    stages = {"entropy": StageSpec(target="entropy"), "mine": StageSpec(target=f"{__name__}:{target}")}
    receipt = TileWork(pyramid=pyramid, stages=stages, sink=sink, journal=journal, batch=4, **options)(unit)
    assert isinstance(receipt, Receipt)
    return receipt, sink.results


def test_results_are_the_same_on_a_device_and_on_the_host_and_whoever_decodes(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilestream.stream.work.usable_cores", lambda: 8)
    plain, expected = run(slide, tmp_path / "0", "host_twin")
    assert "wait" not in plain.seconds
    for number, (target, tasks) in enumerate([("host_twin", 4), ("host_twin", 1), ("fake_device", 4), ("fake_device", 1)]):  # fmt: skip # noqa: E501
        receipt, found = run(slide, tmp_path / f"{number + 1}", target, tasks=tasks)
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=f"{target}, {tasks} tasks: {name}")
        assert receipt.seconds.keys() == {"entropy", "mine", "read", "decode", "gather", "write", "wait"}
        assert receipt.bytes_read == plain.bytes_read


def test_a_device_has_the_next_batch_before_it_is_done_with_one(slide: Path, tmp_path: Path) -> None:
    stage = make_stage(StageSpec(target=f"{__name__}:fake_device"))
    assert isinstance(stage, FakeDevice)
    stage.log.clear()
    run(slide, tmp_path, "fake_device")
    batches = 7
    assert stage.log == ["start", *["start", "finish"] * (batches - 1), "finish"]


def test_no_thread_decodes_ahead_where_tasks_fill_the_cores(slide: Path, tmp_path: Path) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    run(slide, tmp_path, "host_twin", tasks=supply.usable_cores())
    started = {thread.name for thread in threading.enumerate() if thread.ident not in before}
    assert "tilestream-decode" not in started


def test_parameters_that_are_no_json_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"parameters of `callable`: got .*not JSON serializable"):
        make_stage(StageSpec(target="callable", params={"target": lambda pixels: pixels}))


def test_a_device_is_not_left_reading_memory_that_is_used_again(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = make_stage(StageSpec(target=f"{__name__}:fake_device"))
    assert isinstance(stage, FakeDevice)
    stage.log.clear()
    looks = iter(range(10))

    def halted() -> None:
        if next(looks) == 3:
            raise halt.Halted("the run was told to stop")

    monkeypatch.setattr(halt, "look", halted)
    with pytest.raises(halt.Halted):
        run(slide, tmp_path, "fake_device")
    assert stage.log == ["start", "start", "finish", "start", "finish", "finish"]
