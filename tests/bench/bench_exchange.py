"""Vectors of one slide read from our store, and from files that we write for others, beside TRIDENT's own layout."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np

from tests.bench.table import at_least, make_row, rates
from tests.sinks.build import make_image, make_plan, make_sink, make_units
from tilestream.pipelines.exchange import exchange_config, run_exchange
from tilestream.sinks.featureread import StoredFeatures
from tilestream.types import Receipt

TILES, DIM = 15_000, 1536
"""Patches of a slide at 20x, and values of a vector of the large encoders."""
BAR = 5.0
"""Times TRIDENT's layout, chunks of one row."""
TILE_PX = 64


def rows() -> list[dict[str, Any]]:
    """Return the rows of the table."""
    with TemporaryDirectory() as folder:
        return read_rows_of(Path(folder), tiles=TILES, dim=DIM, rounds=5)


def read_rows_of(folder: Path, *, tiles: int, dim: int, rounds: int, bar: float = BAR) -> list[dict[str, Any]]:
    """Return how many vectors a second are read whole, from each layout.

    Parameters
    ----------
    folder : Path
        For the files.
    tiles, dim : int
        Vectors and their length.
    rounds : int
        How often each is read.
    bar : float
        Least ratio.

    Returns
    -------
    list of dict
        One row for our store, one for the HDF5 file that an export writes.
    """
    store, vectors = make_store(folder / "in", tiles=tiles, dim=dim)
    run_exchange([str(folder / "in")], exchange_config(out=str(folder / "job"), to="trident"))
    (exported,) = (folder / "job").rglob("features_uni/*.h5")
    theirs = write_trident(folder / "theirs.h5", vectors)

    def of_store() -> float:
        return float(len(StoredFeatures.open(store, "s").read("uni")))

    def of_file(path: Path) -> float:
        with h5py.File(path, "r") as file:
            return float(len(file["features"][:]))

    np.testing.assert_array_equal(StoredFeatures.open(store, "s").read("uni"), vectors)
    with h5py.File(exported, "r") as file:
        np.testing.assert_array_equal(file["features"][:], vectors)
    ours, file_rate, rival = rates([of_store, lambda: of_file(exported), lambda: of_file(theirs)], rounds=rounds)
    who, what = "TRIDENT's layout, chunks (1, d)", f"{len(vectors):,} x {dim} float32"
    return [
        make_row(f"{what} from our store", ours, "vectors/s", rival=(who, rival), bar=at_least(bar)),
        make_row(f"{what} from export --to trident", file_rate, "vectors/s", rival=(who, rival), bar=at_least(bar)),
    ]


def make_store(folder: Path, *, tiles: int, dim: int) -> tuple[Path, np.ndarray]:
    """Return a feature store of about so many tiles, and its vectors, which no codec can make small."""
    edge = round(tiles**0.5) * TILE_PX
    image = make_image(height=edge, width=edge)
    encoders = (("uni", tuple(map(str, range(dim)))),)
    sink = make_sink(folder, image=image, plan=make_plan(image, super_tile_px=4096), rel="s", encoders=encoders)
    random = np.random.default_rng(0)
    receipts, parts = [], []
    for unit in make_units(sink.plan):
        n = len(unit.tile_yx)
        values = random.normal(size=(n, dim)).astype(np.float32)
        results = {"status": np.zeros(n, np.uint8), "uni": values, "uni/status": np.zeros(n, np.uint8)}
        results |= {name: np.ones(n, np.float32) for name in sink.scalars}
        outputs = sink.write(unit, results)
        receipts.append(Receipt(key=unit.key, recipe=sink.recipe_digest, outputs=outputs, tiles=n))
        parts.append(values)
    sink.finish(receipts)
    return sink.root, np.concatenate(parts)


def write_trident(path: Path, vectors: np.ndarray) -> Path:
    """Write vectors as TRIDENT does: a dataset that grows, in chunks of one row."""
    with h5py.File(path, "w") as file:
        dim = vectors.shape[1]
        features = file.create_dataset("features", vectors.shape, "float32", chunks=(1, dim), maxshape=(None, dim))
        features[:] = vectors
    return path
