"""Tiles that can be decoded enter a stage, the others get a status and a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tilestream.errors import StageError
from tilestream.plan.tiles import plan_tiles
from tilestream.pyramid import open_pyramid
from tilestream.stream.batches import Slots, iter_batches, new_outcome, stream_tiles
from tilestream.stream.journal import Journal
from tilestream.stream.work import TileWork
from tilestream.testing.slide import write_slide
from tilestream.types import Shape, StageSpec, SuperTile, TileStatus

EDGE = 256


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slide") / "small.svs"
    write_slide(path, Shape(y=2 * EDGE, x=2 * EDGE), tile_px=EDGE, seed=5)
    return path


def the_unit(path: Path, **options: Any) -> tuple[Any, SuperTile]:
    pyramid = open_pyramid(str(path), cache_bytes=0)
    (unit,) = plan_tiles(pyramid, tile_px=EDGE, where="all", **options).start()
    return pyramid, unit


def tile_place(path: Path, number: int) -> tuple[int, int]:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        return page.dataoffsets[number], page.databytecounts[number]


def test_tiles_are_the_pixels_of_the_image(slide: Path) -> None:
    pyramid, unit = the_unit(slide)
    expected = tifffile.imread(slide)
    (batch,) = iter_batches(pyramid, unit, batch=16, outcome=new_outcome(unit))
    assert batch.pixels.shape == (4, 3, EDGE, EDGE)
    assert batch.valid is None
    for tile, (y, x) in zip(batch.pixels, batch.tile_yx, strict=True):
        np.testing.assert_array_equal(tile.transpose(1, 2, 0), expected[y : y + EDGE, x : x + EDGE])


@pytest.mark.parametrize("how", ["zeros", "next tile"])
def test_a_tile_cut_anywhere_never_reaches_a_stage(slide: Path, tmp_path: Path, how: str) -> None:
    offset, nbytes = tile_place(slide, 1)
    content = slide.read_bytes()
    for cut in range(0, nbytes, 64):
        damaged = bytearray(content)
        filler = bytes(nbytes - cut)
        if how == "next tile":
            other, length = tile_place(slide, 2)
            filler = (content[other : other + length] * (1 + nbytes // length))[: nbytes - cut]
        damaged[offset + cut : offset + nbytes] = filler
        path = tmp_path / f"cut-{cut}.svs"
        path.write_bytes(damaged)
        pyramid, unit = the_unit(path)
        outcome = new_outcome(unit)
        batches = list(iter_batches(pyramid, unit, batch=2, outcome=outcome))
        seen = {tuple(yx) for batch in batches for yx in batch.tile_yx.tolist()}
        intact = how == "next tile" and bytes(damaged) == content
        if not intact:
            assert (0, EDGE) not in seen, f"cut at byte {cut}"
            assert outcome.status.tolist() == [TileStatus.OK, TileStatus.DAMAGED, TileStatus.OK, TileStatus.OK]
            (rows,) = outcome.damaged.values()
            assert rows == [1]


def test_damage_in_the_halo_counts(slide: Path, tmp_path: Path) -> None:
    offset, nbytes = tile_place(slide, 1)
    damaged = bytearray(slide.read_bytes())
    damaged[offset + nbytes // 2 : offset + nbytes] = bytes(nbytes - nbytes // 2)
    path = tmp_path / "damaged.svs"
    path.write_bytes(damaged)
    pyramid, unit = the_unit(path, halo_px=8)
    outcome = new_outcome(unit)
    assert list(iter_batches(pyramid, unit, batch=4, outcome=outcome)) == []
    assert outcome.status.tolist() == [TileStatus.DAMAGED] * 4


def test_reused_memory_gives_the_same_tiles(slide: Path) -> None:
    pyramid, unit = the_unit(slide)
    slots = Slots()
    taken = iter_batches(pyramid, unit, batch=3, outcome=new_outcome(unit), slots=slots)
    again = [batch.pixels.copy() for batch in taken]
    fresh = [b.pixels for b in stream_tiles(pyramid, plan_tiles(pyramid, tile_px=EDGE, where="all"), batch=3)]
    assert len(fresh) == 2
    for one, other in zip(again, fresh, strict=True):
        np.testing.assert_array_equal(one, other)


def test_memory_of_a_batch_is_valid_again_whatever_happened_to_it(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = 2, EDGE, EDGE, 3
    slots = Slots()
    pyramid = open_pyramid(np.ones((EDGE + 64, EDGE), np.uint8))
    (unit,) = plan_tiles(pyramid, tile_px=EDGE, where="all").start()
    (batch,) = iter_batches(pyramid, unit, batch=4, outcome=new_outcome(unit), slots=slots)
    assert batch.valid is not None  # the lower tile reaches out of the image
    assert slots.take(shape, np.dtype("u1"))[1].all()

    def broken(*arguments: Any, **options: Any) -> Any:
        arguments[2][...] = False
        raise OSError("a cable")

    monkeypatch.setattr(type(pyramid), "read_plan", lambda self, level, box, pixels, valid, recent: broken(0, 0, valid))
    with pytest.raises(OSError, match="a cable"):
        list(iter_batches(pyramid, unit, batch=4, outcome=new_outcome(unit), slots=slots))
    assert slots.take(shape, np.dtype("u1"))[1].all()


def test_tiles_without_a_valid_pixel_are_empty_and_others_know_their_share() -> None:
    pyramid = open_pyramid(np.zeros((EDGE + 64, EDGE), np.uint8))
    (unit,) = plan_tiles(pyramid, tile_px=EDGE, where="all").start()
    outcome = new_outcome(unit)
    (batch,) = iter_batches(pyramid, unit, batch=4, outcome=outcome)
    np.testing.assert_allclose(batch.valid_share, [1.0, 0.25])
    assert batch.valid is not None
    far = SuperTile(plan="p", level=unit.level, iy=0, ix=0, first_row=0, tile_yx=np.array([[4096, 4096]]), tile_px=EDGE)
    outcome = new_outcome(far)
    assert list(iter_batches(pyramid, far, batch=4, outcome=outcome)) == []
    assert outcome.status.tolist() == [TileStatus.EMPTY]


class KeptSink:
    """Keeps what it is given."""

    results: dict[str, Any]
    done: set[str]

    def write(self, unit: SuperTile, results: Any) -> dict[str, str]:
        self.results = dict(results)
        return {"part": "checksum"}

    def finish(self, receipts: Any) -> None:
        raise AssertionError("not called here")


def nan_on_second(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    means = pixels.reshape(len(pixels), -1).mean(axis=1, keepdims=True).astype(np.float32)
    means[1:2] = np.nan
    return means


def wrong_shape(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.zeros(len(pixels))


def raises(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    raise ValueError("no such layer")


def test_a_value_that_is_not_finite_is_a_failed_tile(slide: Path, tmp_path: Path) -> None:
    pyramid, unit = the_unit(slide)
    sink = KeptSink()
    journal = Journal(root=tmp_path / "receipts", recipe="r")
    journal.open({})
    spec = StageSpec(target="callable", params={"target": f"{__name__}:nan_on_second", "px": EDGE, "name": "mine"})
    receipt = TileWork(pyramid=pyramid, stages={"mine": spec}, sink=sink, journal=journal)(unit)
    assert sink.results["mine/status"].tolist() == [0, TileStatus.FAILED, 0, 0]
    assert sink.results["status"].tolist() == [0, 0, 0, 0]
    assert np.isnan(sink.results["mine"][1]).all()
    assert receipt.counts["failed"] == 1
    assert receipt.failed == {"`mine`: values that are not finite": (1,)}
    assert journal.receipt(unit.key) == receipt
    assert not list(journal.root.glob("*.lease"))


def one_by_one(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Fail on every batch that holds a tile of which the sum is in BAD."""
    if set(sums(pixels)) & BAD:
        raise ValueError("no such layer")
    return pixels.reshape(len(pixels), -1).mean(axis=1, keepdims=True).astype(np.float32)


def sums(pixels: np.ndarray[Any, Any]) -> list[int]:
    found: list[int] = pixels.sum(axis=(1, 2, 3), dtype=np.int64).tolist()
    return found


BAD: set[int] = set()


def run_stage(path: Path, folder: Path, stage: str) -> tuple[Any, KeptSink]:
    pyramid, unit = the_unit(path)
    sink = KeptSink()
    journal = Journal(root=folder / "receipts", recipe="r")
    journal.open({})
    spec = StageSpec(target="callable", params={"target": f"{__name__}:{stage}", "px": EDGE, "name": "mine"})
    try:
        return TileWork(pyramid=pyramid, stages={"mine": spec}, sink=sink, journal=journal)(unit), sink
    finally:
        assert not list(journal.root.glob("*.lease"))
        sink.done = set(journal.receipts())


@pytest.mark.parametrize(("stage", "reason"), [("wrong_shape", r"\(1,\)"), ("raises", "ValueError: no such layer")])
def test_a_broken_stage_is_one_clear_error(slide: Path, tmp_path: Path, stage: str, reason: str) -> None:
    with pytest.raises(StageError, match=reason):
        run_stage(slide, tmp_path, stage)
    assert not list((tmp_path / "receipts").glob("L*.json"))


def test_only_the_tiles_on_which_a_stage_raises_have_failed(slide: Path, tmp_path: Path, monkeypatch: Any) -> None:
    known = sums(next(stream_tiles(*plan_of(slide))).pixels)
    assert len(set(known)) == 4
    monkeypatch.setattr(f"{__name__}.BAD", {known[1], known[2]})
    receipt, sink = run_stage(slide, tmp_path, "one_by_one")
    assert sink.results["mine/status"].tolist() == [0, TileStatus.FAILED, TileStatus.FAILED, 0]
    assert np.isnan(sink.results["mine"][1:3]).all()
    assert receipt.failed == {"`mine`: ValueError: no such layer": (1, 2)}
    assert receipt.counts["failed"] == 2
    assert Journal(root=tmp_path / "receipts", recipe="r").receipt(receipt.key) == receipt
    monkeypatch.setattr(f"{__name__}.BAD", set())
    whole = run_stage(slide, tmp_path / "again", "one_by_one")[1]
    np.testing.assert_array_equal(sink.results["mine"][[0, 3]], whole.results["mine"][[0, 3]])


def test_a_stage_that_fails_on_every_tile_but_works_leaves_all_of_them_out(
    slide: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    known = sums(next(stream_tiles(*plan_of(slide))).pixels)
    assert 0 not in known
    monkeypatch.setattr(f"{__name__}.BAD", set(known))
    receipt, sink = run_stage(slide, tmp_path, "one_by_one")
    assert sink.results["mine/status"].tolist() == [TileStatus.FAILED] * 4
    assert receipt.counts["failed"] == 4


def plan_of(path: Path) -> tuple[Any, Any]:
    pyramid = open_pyramid(str(path), cache_bytes=0)
    return pyramid, plan_tiles(pyramid, tile_px=EDGE, where="all")
