"""One seed of the digits benchmark made ready: canvases on disk, scorer and classifiers trained, thresholds chosen.

Train, tune and test canvases hold different digits. Nothing is chosen by a test canvas: networks learn from the train
canvas, and thresholds come from the tune canvas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.bench.baselines import BUDGETS, FLAT, FULL, LEARNED, PLANNERS, THUMBNAIL, TREE, Term, fine_tiles, terms
from tests.bench.canvas import MOST_TARGETS, Canvas
from tests.bench.canvas_file import BLOCK_PX, write_canvas
from tests.bench.digits_answers import best_threshold
from tests.bench.digits_reader import CELLS, Reader, cell_labels, evidence_of, train_reader
from tilestream.plan.tiles import plan_tiles
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.stream.batches import stream_tiles
from tilestream.torch import ScorerSettings, train_scorer
from tilestream.types import Box

Choice = tuple[str, float]
"""Name of a way to choose tiles, and the share that is read."""
COARSE = 4
"""Level of the coarse look: a sixteenth, 0.4 % of the pixels."""
TILE_PX = BLOCK_PX >> COARSE

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a run is."""

    test: tuple[int, int] = (8, 8)
    """Rows and columns of the test canvas in fields of 4096²."""
    tune: tuple[int, int] = (4, 8)
    """Of the tune canvas."""
    train: tuple[int, int] = (4, 4)
    """Of the train canvas, in which every second cell holds a digit of any class."""
    most_targets: int = MOST_TARGETS
    """Most digits that matter in a field of tune and test canvas."""
    epochs: int = 6
    """Of the classifier."""
    scorer_epochs: int = 10
    """Of the scorer."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a measurement needs; picklable."""

    seed: int
    """Of everything."""
    test: Canvas
    """The canvas that is asked about."""
    file: Path
    """It."""
    scorer: Path
    """Scorer of coarse tiles."""
    weights: dict[str, Any]
    """Of the classifier of fine tiles."""
    thumbnail: dict[str, Any]
    """Of the same network, trained on the coarse level."""
    thresholds: dict[Choice, float]
    """Least evidence of a field for an answer other than none, chosen on the tune canvas for each way and budget."""


def prepare(seed: int, folder: Path, size: Size) -> Prepared:
    """Return a seed with its canvases written and its networks trained; takes one thread.

    Parameters
    ----------
    seed : int
        Of everything.
    folder : Path
        Where files go.
    size : Size
        Of canvases and trainings.

    Returns
    -------
    Prepared
        Everything but the measurement.
    """
    torch.set_num_threads(1)
    train, tune, test = (
        Canvas(
            seed=seed,
            part=part,
            rows=rows,
            columns=columns,
            density=density,
            most_targets=size.most_targets,
            all_classes=part == "train",
        )
        for part, (rows, columns), density in (
            ("train", size.train, 0.5),
            ("tune", size.tune, Canvas.density),
            ("test", size.test, Canvas.density),
        )
    )
    files = {c.part: write_canvas(folder / f"{c.part}-{seed}.tif", c, threads=1) for c in (train, tune, test)}
    known = open_pyramid(files["train"], cache_bytes=0)
    labels = cell_labels(train)
    reader = train_reader(_tiles(known, 0), labels, seed=seed, epochs=size.epochs)
    coarse = train_reader(_tiles(known, COARSE), labels, seed=seed, epochs=size.epochs)
    scorer = folder / f"scorer-{seed}.safetensors"
    learn_where_to_look(known, train, seed=seed, epochs=size.scorer_epochs).save(scorer)
    files["train"].unlink()
    ways = terms(scorer, tile_px=BLOCK_PX, seed=seed)
    return Prepared(
        seed=seed,
        test=replace(test),  # without its drawings
        file=files["test"],
        scorer=scorer,
        weights=reader.state_dict(),
        thumbnail=coarse.state_dict(),
        thresholds=_thresholds(open_pyramid(files["tune"], cache_bytes=0), tune, (reader, coarse), ways),
    )


def _thresholds(
    pyramid: Pyramid, tune: Canvas, readers: tuple[Reader, Reader], ways: Mapping[str, Term]
) -> dict[Choice, float]:
    evidence = read_all(pyramid, readers[0], tune.targets)
    found: dict[Choice, float] = {(FULL, 1.0): best_threshold(evidence, tune.answers)}
    found[THUMBNAIL, 0.0] = best_threshold(coarse_evidence(pyramid, readers[1], tune.targets), tune.answers)
    for name, way in ways.items():
        scores = way(pyramid)
        for planner in (FLAT, TREE) if name == LEARNED else (FLAT,):
            for share in BUDGETS:
                chosen = fine_tiles(
                    PLANNERS[planner](pyramid, scores, share=share, tile_px=BLOCK_PX), evidence.shape[:2]
                )
                found[name + planner, share] = best_threshold(evidence * chosen[..., None], tune.answers)
    return found


def learn_where_to_look(pyramid: Pyramid, canvas: Canvas, *, seed: int, epochs: int) -> Any:
    """Return a scorer of coarse tiles trained on which of them hold a digit that matters.

    Tiles are cut at four places half a tile apart: a digit is then seen in each of their quarters.
    """
    picture = pyramid.read(Box(level=COARSE, y=0, x=0, **_edges(pyramid, COARSE)))[0]
    matters, half = cell_labels(canvas).matters, TILE_PX // CELLS
    tiles, labels = [], []
    for y in range(CELLS):
        for x in range(CELLS):
            rows, columns = ((n - at) // CELLS * CELLS for n, at in zip(matters.shape, (y, x), strict=True))
            part = picture[y * half : (y + rows) * half, x * half : (x + columns) * half]
            tiles.append(_cut(part, TILE_PX))
            labels.append(_cut(matters[y : y + rows, x : x + columns], CELLS).any((1, 2, 3)))
    settings = ScorerSettings(seed=seed, epochs=epochs, batch=128, held_out=0.1)
    about = {"downsample": float(1 << COARSE)}
    return train_scorer(np.concatenate(tiles), np.concatenate(labels), settings=settings, about=about)


def reader_of(weights: dict[str, Any]) -> Reader:
    """Return a trained classifier."""
    reader = Reader()
    reader.load_state_dict(weights)
    return reader.eval()


def read_all(pyramid: Pyramid, reader: Reader, targets: tuple[int, int]) -> Floats:
    """Return the evidence of all fine tiles, `(y, x, 2)`: the full pass."""
    plan = plan_tiles(pyramid, tile_px=BLOCK_PX, where="all")
    found = np.zeros((*plan.grid.shape.yx, 2), np.float32)
    for batch in stream_tiles(pyramid, plan, batch=64, reuse=True):
        at = batch.tile_yx // BLOCK_PX
        found[at[:, 0], at[:, 1]] = evidence_of(reader, batch.pixels, targets)
    return found


def coarse_evidence(pyramid: Pyramid, reader: Reader, targets: tuple[int, int]) -> Floats:
    """Return what the coarse level alone says of each tile, `(y, x, 2)`."""
    tiles = _tiles(pyramid, COARSE)
    found = np.concatenate([evidence_of(reader, tiles[i : i + 64], targets) for i in range(0, len(tiles), 64)])
    edges = _edges(pyramid, COARSE)
    return found.reshape(edges["height"] // TILE_PX, edges["width"] // TILE_PX, 2)


def _tiles(pyramid: Pyramid, level: int) -> Bytes:
    """Return all tiles of a level, `(n, 1, edge, edge)`, row by row; each covers 256 px of level 0."""
    return np.concatenate(list(_rows(pyramid, level)))


def _rows(pyramid: Pyramid, level: int) -> Iterator[Bytes]:
    edge, edges = BLOCK_PX >> level, _edges(pyramid, level)
    step = max(edge, BLOCK_PX)
    for y in range(0, edges["height"], step):
        box = Box(level=level, y=y, x=0, height=min(step, edges["height"] - y), width=edges["width"])
        yield _cut(pyramid.read(box)[0], edge)


def _edges(pyramid: Pyramid, level: int) -> dict[str, int]:
    shape = pyramid.levels[level].shape
    return {"height": shape.y, "width": shape.x}


def _cut(picture: npt.NDArray[Any], edge: int) -> npt.NDArray[Any]:
    """Return an image as `(n, 1, edge, edge)` tiles, row by row."""
    rows, columns = (n // edge for n in picture.shape)
    tiles = picture.reshape(rows, edge, columns, edge).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(tiles.reshape(-1, 1, edge, edge))
