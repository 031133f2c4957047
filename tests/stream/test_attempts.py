"""One stage on batches: what is halved, what is remembered, and what is given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.models.test_handcrafted import batch_of, image_of
from tilestream.errors import ConfigError, StageError
from tilestream.metrics import collect
from tilestream.stream import attempts
from tilestream.stream.attempts import RunningStage, black_batch, vectors_of
from tilestream.types import Batch, Pending

PIXELS = np.arange(1, 9, dtype=np.uint8).reshape(8, 1, 1, 1)


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_most", {})


class Told:
    """A stage that does what it is told, and remembers the sizes of its batches."""

    def __init__(self, check: Callable[[Any], None] = lambda pixels: None) -> None:
        self.check = check
        self.sizes: list[int] = []

    def __call__(self, batch: Batch) -> Any:
        self.sizes.append(len(batch.rows))
        self.check(batch.pixels)
        return batch.pixels[:, :, 0, 0].astype(np.float32)


def new(stage: Any) -> RunningStage:
    return RunningStage(name="told", stage=stage, accept=vectors_of("told", 1))


def run(stage: Any, pixels: Any = PIXELS) -> tuple[dict[int, float], dict[int, str], RunningStage]:
    """Return vectors and reasons by row."""
    one = new(stage)
    done = one.finish(one.start(batch_of(pixels)))
    vectors = {int(r): float(v) for d in done if d.found is not None for r, v in zip(d.batch.rows, d.found[:, 0], strict=True)}  # fmt: skip # noqa: E501
    reasons = {int(r): d.reason for d in done if d.found is None for r in d.batch.rows}
    assert sorted([*vectors, *reasons]) == list(range(len(pixels)))
    return vectors, reasons, one


def raising(error: Exception, bad: set[int]) -> Callable[[Any], None]:
    def check(pixels: Any) -> None:
        if bad & set(pixels.ravel().tolist()):
            raise error

    return check


def test_tiles_to_blame_are_found_by_halves() -> None:
    stage = Told(raising(ValueError("no"), {3}))
    vectors, reasons, _ = run(stage)
    assert reasons == {2: "ValueError: no"}
    assert vectors == {row: row + 1 for row in range(8) if row != 2}
    assert stage.sizes == [8, 4, 2, 2, 1, 1, 4]


def memory_for(most: int) -> Callable[[Any], None]:
    def check(pixels: Any) -> None:
        if len(pixels) > most:
            raise MemoryError

    return check


def test_a_batch_too_large_for_memory_is_halved_and_the_size_is_remembered() -> None:
    stage = Told(memory_for(2))
    with collect() as meter:
        vectors, reasons, _ = run(stage)
        assert run(stage)[0] == vectors
    assert (vectors, reasons) == ({row: row + 1 for row in range(8)}, {})
    assert stage.sizes == [8, 4, 2, 2, 2, 2, *[2] * 4]
    assert meter.counts == {"batch_halved": 2}
    odd = Told(memory_for(1))
    assert run(odd, PIXELS[:5])[0] == {row: row + 1 for row in range(5)}
    assert odd.sizes == [5, 3, 2, 1, 1, 1, 1, 1]


def test_no_memory_for_one_tile_is_an_error_and_no_failed_tile() -> None:
    with pytest.raises(StageError, match=r"memory for stage `told`: got MemoryError"):
        run(Told(memory_for(0)))


def test_errors_of_the_configuration_are_passed_on() -> None:
    with pytest.raises(ConfigError, match="weights"):
        run(Told(raising(ConfigError("weights are not there"), {1})))


def test_a_device_that_is_lost_ends_the_unit() -> None:
    with pytest.raises(StageError, match="illegal memory access"):
        run(Told(raising(RuntimeError("CUDA error: an illegal memory access was encountered"), {5})))


def test_a_stage_that_fails_on_the_black_tile_too_is_broken() -> None:
    black = black_batch(image_of(("grey",)), tile_px=1)
    _, reasons, one = run(Told(raising(ValueError("no"), set(range(1, 9)))))
    assert len(reasons) == 8
    one.require_alive(black)
    _, _, one = run(Told(raising(ValueError("no"), {0, 3})))
    with pytest.raises(StageError, match="ValueError: no, on 1 of 8 tiles of a super-tile and now on a black one"):
        one.require_alive(black)
    with pytest.raises(StageError, match=r"got ValueError: no, on one black tile \(1, 1, 1, 1\) of uint8"):
        one.require(black)


@pytest.mark.parametrize("found", [np.zeros((8, 2)), np.zeros(8), np.zeros((7, 1)), [["a"]] * 8, None])
def test_outputs_of_another_shape_or_type_count_as_raised(found: Any) -> None:
    class Wrong:
        def __call__(self, batch: Batch) -> Any:
            return found

    _, reasons, _ = run(Wrong())
    assert len(reasons) == 8


class Device:
    """Computes when it is asked for the result, as a device does meanwhile."""

    device = "cuda:0"

    def __init__(self, fail_at: set[int]) -> None:
        self.fail_at = fail_at
        self.under_way: list[int] = []

    def allocate(self, nbytes: int) -> Any:
        return np.empty(nbytes, np.uint8)

    def start(self, batch: Batch) -> Pending:
        self.under_way.append(len(batch.rows))

        def finished() -> Any:
            if self.fail_at & set(batch.pixels.ravel().tolist()):
                raise MemoryError
            return batch.pixels[:, :, 0, 0].astype(np.float32)

        return finished


def test_several_batches_are_under_way_on_a_device_and_an_error_belongs_to_its_own() -> None:
    def batches() -> Iterator[Batch]:
        yield batch_of(PIXELS[:4])
        yield batch_of(PIXELS[4:])

    stage = Device(fail_at=set())
    one = new(stage)
    started = [one.start(batch) for batch in batches()]
    assert stage.under_way == [4, 4]
    stage.fail_at = {7, 8}
    assert_array_equal(one.finish(started[0])[0].found, PIXELS[:4, :, 0, 0])
    with pytest.raises(StageError, match="memory for stage"):
        one.finish(started[1])
