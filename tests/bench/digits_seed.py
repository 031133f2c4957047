"""One seed of the digits benchmark made ready: canvases on disk, scorer and classifiers trained, thresholds chosen.

Train, tune and test canvases hold different digits. Nothing is chosen by a test canvas: networks learn from the train
canvas, and thresholds come from the tune canvas.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.bench.baselines import FROM_FIELDS, FULL, LEARNED, THUMBNAIL
from tests.bench.canvas import MOST_TARGETS, Canvas
from tests.bench.canvas_file import BLOCK_PX, write_canvas
from tests.bench.digits_answers import best_threshold
from tests.bench.digits_fields import FieldTransformer, compose, train_on_fields, train_transformer
from tests.bench.digits_reader import CELLS, FEATURES, Reader, Seen, cell_labels, look_at, train_reader
from tilestream.plan.tiles import plan_tiles
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.stream.batches import stream_tiles
from tilestream.torch import ScorerSettings, train_scorer
from tilestream.types import Box

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
    tune: tuple[int, int] = (6, 8)
    """Of the tune canvas."""
    train: tuple[int, int] = (4, 4)
    """Of the train canvas, in which every second cell holds a digit of any class."""
    most_targets: int = MOST_TARGETS
    """Most digits that matter in a field of tune and test canvas."""
    epochs: int = 6
    """Of the classifier; half as many of the one of the coarse level."""
    scorer_epochs: int = 6
    """Of the scorer that learns from labels of tiles; with more it knows its 900 digits better, and others less, as was
    seen on canvases of other seeds."""
    fields: int = 120
    """Fields whose answers the other one learns from; the transformer gets four times as many."""
    field_epochs: int = 8
    """Of that scorer; half as many of the transformer."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a measurement needs; picklable."""

    seed: int
    """Of everything."""
    test: Canvas
    """The canvas that is asked about."""
    file: Path
    """It."""
    scorers: dict[str, Path]
    """Scorers of coarse tiles by what they learned from."""
    weights: dict[str, dict[str, Any]]
    """Of the classifier of fine tiles, `reader`; of the same network trained on the coarse level, `thumbnail`; and of
    the transformer that drops tokens, `staged`."""
    thresholds: dict[str, float]
    """Least evidence of a field for an answer other than none, chosen on the tune canvas: for the classifier of fine
    tiles by the full pass, and so for all ways that choose among these, and for the coarse one."""

    def network(self, name: str) -> Any:
        """Return a trained network of `weights`."""
        network = FieldTransformer() if name == "staged" else Reader()
        network.load_state_dict(self.weights[name])
        return network.eval()


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
    labels, fine, coarse = cell_labels(train), _tiles(known, 0), _tiles(known, COARSE)
    reader = train_reader(fine, labels, seed=seed, epochs=size.epochs)
    thumbnail = train_reader(coarse, labels, seed=seed, epochs=-(-size.epochs // 2))
    seen = look_at_all(reader, fine, train.targets)
    scorers = {name: folder / f"scorer-{seed}-{i}.safetensors" for i, name in enumerate((LEARNED, FROM_FIELDS))}
    learn_where_to_look(known, train, seed=seed, epochs=size.scorer_epochs).save(scorers[LEARNED])
    settings = {"seed": seed, "epochs": size.field_epochs, "k": 16, "held_out": 0.1}
    few = compose(labels, count=size.fields, seed=seed)
    train_on_fields(few, coarse, seen.evidence, settings=settings).save(scorers[FROM_FIELDS])
    many = compose(labels, count=4 * size.fields, seed=seed)
    transformer = train_transformer(many, seen.features, seed=seed, epochs=-(-size.field_epochs // 2))
    files["train"].unlink()
    prepared = Prepared(
        seed=seed,
        test=replace(test),  # without its drawings
        file=files["test"],
        scorers=scorers,
        weights={
            "reader": reader.state_dict(),
            "thumbnail": thumbnail.state_dict(),
            "staged": transformer.state_dict(),
        },
        thresholds={},
    )
    prepared.thresholds.update(_thresholds(open_pyramid(files["tune"], cache_bytes=0), tune, prepared))
    files["tune"].unlink()
    return prepared


def _thresholds(pyramid: Pyramid, tune: Canvas, prepared: Prepared) -> dict[str, float]:
    full = read_all(pyramid, prepared.network("reader"), tune.targets).evidence
    coarse = coarse_evidence(pyramid, prepared.network("thumbnail"), tune.targets)
    return {FULL: best_threshold(full, tune.answers), THUMBNAIL: best_threshold(coarse, tune.answers)}


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
    settings = ScorerSettings(seed=seed, epochs=epochs, batch=128, held_out=0.1, weight_decay=0.05)
    about = {"downsample": float(1 << COARSE)}
    return train_scorer(np.concatenate(tiles), np.concatenate(labels), settings=settings, about=about)


def look_at_all(reader: Reader, tiles: Bytes, targets: tuple[int, int]) -> Seen:
    """Return what the classifier says of tiles, batch by batch."""
    found = [look_at(reader, tiles[i : i + 64], targets) for i in range(0, len(tiles), 64)]
    return Seen(
        evidence=np.concatenate([one.evidence for one in found]),
        features=np.concatenate([one.features for one in found]),
    )


def read_all(pyramid: Pyramid, reader: Reader, targets: tuple[int, int]) -> Seen:
    """Return what all fine tiles say, `(y, x, …)`: the full pass."""
    plan = plan_tiles(pyramid, tile_px=BLOCK_PX, where="all")
    grid = plan.grid.shape.yx
    found = Seen(evidence=np.zeros((*grid, 2), np.float32), features=np.zeros((*grid, FEATURES), np.float32))
    for batch in stream_tiles(pyramid, plan, batch=64, reuse=True):
        y, x = (batch.tile_yx // BLOCK_PX).T
        seen = look_at(reader, batch.pixels, targets)
        found.evidence[y, x], found.features[y, x] = seen.evidence, seen.features
    return found


def coarse_evidence(pyramid: Pyramid, reader: Reader, targets: tuple[int, int]) -> Floats:
    """Return what the coarse level alone says of each tile, `(y, x, 2)`."""
    tiles = _tiles(pyramid, COARSE)
    edges = _edges(pyramid, COARSE)
    return look_at_all(reader, tiles, targets).evidence.reshape(
        edges["height"] // TILE_PX, edges["width"] // TILE_PX, 2
    )


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
