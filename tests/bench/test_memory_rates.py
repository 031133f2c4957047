"""Memory is the same for a quarter of a gigapixel and for five times that; `make bench-scale` goes to 25."""

import pytest

from tests.bench.bench_memory import memory_rows
from tests.bench.table import until_held


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("job", ["embed", "map", "ingest"])
def test_memory_does_not_grow_with_the_image(job: str) -> None:
    # a sparse slide is embedded with more memory at work than a full one, and its archive is decoded for its mask
    rows = until_held(lambda: memory_rows(job, (0.25, 1.25), is_sparse=job == "map"), attempts=2)
    assert all(row["ok"] for row in rows), rows
