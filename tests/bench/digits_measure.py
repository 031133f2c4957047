"""What each way of reading a test canvas finds, answers, decodes and takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from tests.bench.baselines import BUDGETS, FLAT, FULL, PLANNERS, STAGED, THUMBNAIL, Term, fine_tiles, planners_of, terms
from tests.bench.canvas_file import BLOCK_PX
from tests.bench.contestants import one_core
from tests.bench.digits_answers import accuracy
from tests.bench.digits_counted import Counted, CountedSource, Place
from tests.bench.digits_fields import dropping_order, longest_kept
from tests.bench.digits_reader import CELLS, Reader, Seen, cell_labels, look_at
from tests.bench.digits_seed import Prepared, coarse_evidence, read_all
from tilestream.plan.tokenplan import TokenPlan
from tilestream.pyramid.pyramid import Pyramid
from tilestream.stream.batches import stream_tiles

TIMED = 0.10
"""Share at which all ways are run from opening the file to the answers; at others the evidence of the full pass is
looked up, which is the same but for rounding, and blocks are those of the plan and of the coarse look."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One way at one budget on one canvas."""

    seed: int
    """Of the canvas."""
    way: str
    """Name."""
    share: float
    """Of the tiles of level 0 that could be chosen; 1 for the full pass, 0 for the thumbnail."""
    recall: float
    """Share of the digits that matter which lie in fine tiles that were read."""
    accuracy: float
    """Share of the fields that were answered rightly."""
    pixels: float
    """Share of the pixels of level 0 that as many were decoded as, the coarse look included."""
    bytes_read: int
    """Of the file, the coarse look included."""
    seconds: float | None
    """From opening the file to the evidence of its tiles, one core; None where it was not run."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A canvas with what is asked of it."""

    prepared: Prepared
    """Its networks and thresholds."""
    file: Counted
    """It."""
    reader: Reader
    """Of fine tiles."""
    matters: npt.NDArray[np.int64]
    """`(y, x)` digits that matter by tile."""
    ways: Mapping[str, Term]
    """What says where to look."""

    @classmethod
    def of(cls, prepared: Prepared) -> Bench:
        """Return the bench of a seed."""
        labels = cell_labels(prepared.test)
        rows, columns = (edge // CELLS for edge in labels.matters.shape)
        return cls(
            prepared=prepared,
            file=Counted(prepared.file),
            reader=prepared.network("reader"),
            matters=labels.by_tile(labels.matters).sum((1, 2)).reshape(rows, columns),
            ways=terms(prepared.scorers, tile_px=BLOCK_PX, seed=prepared.seed),
        )

    def row(
        self, way: str, share: float, evidence: Floats, read: npt.NDArray[np.bool_], blocks: list[Place],
        seconds: float | None,
    ) -> Measured:  # fmt: skip
        """Return what was measured of a way."""
        prepared = self.prepared
        return Measured(
            seed=prepared.seed,
            way=way,
            share=share,
            recall=float(self.matters[read].sum() / self.matters.sum()),
            accuracy=accuracy(evidence * read[..., None], prepared.thresholds[FULL], prepared.test.answers),
            pixels=len(blocks) / self.matters.size,
            bytes_read=self.file.bytes_of(blocks),
            seconds=seconds,
        )


def measure(prepared: Prepared, *, is_first: bool = True) -> list[Measured]:
    """Return what all ways find on the test canvas of a seed; takes one core.

    The first one of a process tries all ways once before: what is compiled at its first use is no matter of a way.
    """
    bench, threads = Bench.of(prepared), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_core():
            bench.file.path.read_bytes()  # no way waits for the disk
            if is_first:
                _warm_up(bench)
            seen, full = _full(bench)
            found = [full, _thumbnail(bench)]
            for name in bench.ways:
                found += _way(bench, name, seen.evidence)
            found += _staged(bench, seen, full)
    finally:
        torch.set_num_threads(threads)
    return found


def _warm_up(bench: Bench) -> None:
    """Compile what is compiled at its first use."""
    pyramid, _ = bench.file.open()
    for term in bench.ways.values():
        plan = PLANNERS[FLAT](pyramid, term, share=4 / bench.matters.size, tile_px=BLOCK_PX)
        _look(bench, pyramid, plan)


def _full(bench: Bench) -> tuple[Seen, Measured]:
    start = time.perf_counter()
    pyramid, source = bench.file.open()
    seen = read_all(pyramid, bench.reader, bench.prepared.test.targets)
    seconds = time.perf_counter() - start
    everything = np.ones(bench.matters.shape, np.bool_)
    return seen, bench.row(FULL, 1.0, seen.evidence, everything, source.asked, seconds)


def _staged(bench: Bench, seen: Seen, full: Measured) -> list[Measured]:
    """Return what staged dropping keeps of the tiles that the full pass has read: all are decoded for it."""
    network = bench.prepared.network("staged")
    start = time.perf_counter()
    scores = dropping_order(network, seen.features)
    seconds = (full.seconds or np.nan) + time.perf_counter() - start
    blocks = [(0, int(iy), int(ix)) for iy, ix in np.ndindex(bench.matters.shape)]
    return [
        bench.row(
            STAGED, share, seen.evidence, longest_kept(scores, share), blocks, seconds if share == TIMED else None
        )
        for share in BUDGETS
    ]


def _thumbnail(bench: Bench) -> Measured:
    reader = bench.prepared.network("thumbnail")
    start = time.perf_counter()
    pyramid, source = bench.file.open()
    evidence = coarse_evidence(pyramid, reader, bench.prepared.test.targets)
    seconds = time.perf_counter() - start
    nothing = np.zeros(bench.matters.shape, np.bool_)
    found = bench.row(THUMBNAIL, 0.0, evidence, nothing, source.asked, seconds)
    return replace(
        found, accuracy=accuracy(evidence, bench.prepared.thresholds[THUMBNAIL], bench.prepared.test.answers)
    )


def _way(bench: Bench, name: str, evidence: Floats) -> list[Measured]:
    """Return one way at all budgets."""
    found = []
    pyramid, source = bench.file.open()
    scores = bench.ways[name](pyramid)
    looked = list(source.asked)
    for planner in planners_of(name):
        for share in BUDGETS:
            plan = PLANNERS[planner](pyramid, scores, share=share, tile_px=BLOCK_PX)
            read = fine_tiles(plan, bench.matters.shape)
            blocks, seconds = sorted({*looked, *_blocks(plan, pyramid)}), None
            if share == TIMED:
                seconds, source, seen = _run(bench, bench.ways[name], planner)
                _require_alike(seen, evidence, read, source, blocks)
                blocks = source.asked
            found.append(bench.row(name + planner, share, evidence, read, blocks, seconds))
    return found


def _run(bench: Bench, term: Term, planner: str) -> tuple[float, CountedSource, Floats]:
    """Return the seconds that a way takes as a user has it, what it read, and the evidence."""
    start = time.perf_counter()
    pyramid, source = bench.file.open()
    plan = PLANNERS[planner](pyramid, term, share=TIMED, tile_px=BLOCK_PX)
    seen = _look(bench, pyramid, plan)
    return time.perf_counter() - start, source, seen


def _look(bench: Bench, pyramid: Pyramid, plan: TokenPlan) -> Floats:
    """Return the evidence of the fine tiles of a plan, `(y, x, 2)`; coarser ones are decoded too, and hold none."""
    found = np.zeros((*bench.matters.shape, 2), np.float32)
    fine = plan.tokens[:, 0] == 0
    for batch in stream_tiles(pyramid, plan, batch=64, reuse=True):
        if fine[batch.rows[0]]:
            at = batch.tile_yx // BLOCK_PX
            seen = look_at(bench.reader, batch.pixels, bench.prepared.test.targets)
            found[at[:, 0], at[:, 1]] = seen.evidence
    return found


def _blocks(plan: TokenPlan, pyramid: Pyramid) -> list[Place]:
    """Return the blocks that the tiles of a plan lie in."""
    found = []
    for level, y, x, _ in plan.tokens.tolist():
        at = plan.level_of(level)
        block, shape = pyramid.levels[at.stored].block.y, pyramid.levels[at.stored].shape
        ratio = int(at.ratio_yx[0])
        top, left, edge = (y >> level) * ratio, (x >> level) * ratio, BLOCK_PX * ratio
        for iy in range(top // block, -(-min(top + edge, shape.y) // block)):
            for ix in range(left // block, -(-min(left + edge, shape.x) // block)):
                found.append((at.stored, iy, ix))
    return found


def _require_alike(
    seen: Floats, evidence: Floats, read: npt.NDArray[np.bool_], source: CountedSource, blocks: list[Place]
) -> None:
    """Raise unless a run has seen what was looked up, and asked for the blocks that were counted."""
    if not np.allclose(seen, evidence * read[..., None], rtol=1e-2, atol=1e-5):
        raise RuntimeError("tiles read by a plan say something else than the same tiles of the full pass")
    if sorted(set(source.asked)) != blocks:
        raise RuntimeError(f"{len(source.asked)} blocks were decoded, {len(blocks)} were counted")
