"""Tiles that can be decoded enter a stage, the others get a status and a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

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
    assert journal.receipt(unit.key) == receipt
    assert not list(journal.root.glob("*.lease"))


@pytest.mark.parametrize(("stage", "reason"), [("wrong_shape", r"\(4,\)"), ("raises", "ValueError: no such layer")])
def test_a_broken_stage_is_one_clear_error(slide: Path, tmp_path: Path, stage: str, reason: str) -> None:
    from tilestream.errors import StageError

    pyramid, unit = the_unit(slide)
    journal = Journal(root=tmp_path / "receipts", recipe="r")
    journal.open({})
    spec = StageSpec(target="callable", params={"target": f"{__name__}:{stage}", "px": EDGE})
    with pytest.raises(StageError, match=reason):
        TileWork(pyramid=pyramid, stages={"mine": spec}, sink=KeptSink(), journal=journal)(unit)
    assert journal.receipts() == {}
    assert not list(journal.root.glob("*.lease"))
