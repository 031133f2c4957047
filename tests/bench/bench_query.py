"""A query against a large table of vectors as they are stored, beside what users write with NumPy and torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.bench.bench_allocate import fastest_ms
from tests.bench.table import at_least, make_row, rates
from tilestream.relevance.likeness import cosines

ROWS, DIM = 1_000_000, 512
BAR_MS = 150.0
"""Of a query against a million vectors of 512 float16, on two cores."""
NUMPY_BAR = 5.0
TORCH_BAR = 0.8
"""Rate to that of torch's product of half precision, which leaves the length of the vectors and half of the query's
digits out."""
BLOCK = 8192
"""Vectors that the rivals convert at once; all together would take three times the memory of the table."""


def table(rows: int, dim: int = DIM) -> npt.NDArray[np.float16]:
    """Return vectors of chance."""
    few = np.random.default_rng(0).normal(size=(min(rows, 4096), dim)).astype(np.float16)
    return np.ascontiguousarray(np.resize(few, (rows, dim)))


def unit(dim: int = DIM) -> npt.NDArray[np.float32]:
    """Return a query of length 1, `(1, d)`."""
    found = np.random.default_rng(1).normal(size=(1, dim))
    return (found / np.linalg.norm(found)).astype(np.float32)


def by_numpy(vectors: npt.NDArray[np.float16], query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the cosines as users of NumPy do it."""
    parts = []
    for first in range(0, len(vectors), BLOCK):
        block = vectors[first : first + BLOCK].astype(np.float32)
        parts.append(block @ query[0] / np.linalg.norm(block, axis=1))
    return np.concatenate(parts)


def by_torch(vectors: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Return the cosines as users of torch do it."""
    parts = []
    for first in range(0, len(vectors), BLOCK):
        block = vectors[first : first + BLOCK].float()
        parts.append(torch.nn.functional.cosine_similarity(block, query))
    return torch.cat(parts)


def query_rows(count: int, *, rounds: int = 3, bars: tuple[float, float] = (NUMPY_BAR, TORCH_BAR)) -> list[Any]:
    """Return our rate beside those of NumPy, of torch, and of torch's product of half precision alone."""
    vectors, query = table(count), unit()
    tensor, single = torch.from_numpy(vectors), torch.from_numpy(query)
    half = single[0].half()
    ours = cosines(vectors, query)[:, 0]
    np.testing.assert_allclose(ours, by_numpy(vectors, query), atol=1e-5)
    np.testing.assert_allclose(ours, by_torch(tensor, single).numpy(), atol=1e-5)
    work: list[Callable[[], object]] = [
        lambda: cosines(vectors, query),
        lambda: by_numpy(vectors, query),
        lambda: by_torch(tensor, single),
        lambda: tensor @ half,
    ]
    value, plain, torch_rate, half_rate = rates([_counted(one, count) for one in work], rounds=rounds)
    name = f"cosine of {count:,} x {DIM} float16 with a query"
    note = f"rivals convert {BLOCK:,} vectors at once; the same numbers to 1e-5"
    return [
        make_row(name, value, "M vectors/s", rival=("NumPy", plain), bar=at_least(bars[0]), note=note),
        make_row(
            f"{name}, torch", value, "M vectors/s", rival=("cosine_similarity", torch_rate), bar=at_least(bars[0])
        ),
        make_row(
            f"{name}, torch half", value, "M vectors/s", rival=("half product", half_rate), bar=at_least(bars[1]),
            note="of vectors that have length 1 already, with a query rounded to half precision",
        ),
    ]  # fmt: skip


def _counted(work: Callable[[], object], count: int) -> Callable[[], float]:
    def run() -> float:
        work()
        return count / 1e6

    work()
    return run


def whole_row() -> dict[str, Any]:
    """Return how long a query takes against the whole table."""
    vectors, query = table(ROWS), unit()
    taken = fastest_ms(lambda: cosines(vectors, query, threads=2))
    name = f"a query against {ROWS:,} x {DIM} float16"
    return make_row(name, taken, "ms", bar=(0.0, BAR_MS), note="two threads, best of 7")


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    torch.set_num_threads(2)
    return [whole_row(), *query_rows(ROWS // 4)]
