"""What benchmarks need of the process that measures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits

from tests.parallel import RATES
from tilestream.kernels.bands import cores


@pytest.fixture(autouse=True)
def _rivals_have_all_cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give numerical libraries their threads where rates are measured; `make test` takes them from all others."""
    if not request.path.name.endswith(RATES):
        yield
        return
    import torch

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # of the processes that a benchmark starts
    before = torch.get_num_threads()
    with threadpool_limits(limits=cores()):
        torch.set_num_threads(cores())
        yield
    torch.set_num_threads(before)
