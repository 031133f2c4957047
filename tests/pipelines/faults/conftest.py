"""A small slide, clusters that live as long as a file of tests, and what an undisturbed run makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from tests.pipelines.faults.runs import embed, stores
from tilestream.cluster.client import open_client
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("in") / "made.svs", Shape(y=1200, x=1500), seed=3)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with open_client("threads:2") as opened:
        yield opened


@pytest.fixture
def processes() -> Iterator[Client]:
    """Two worker processes of a test's own: a nanny may not start again what the test before has killed."""
    with open_client("local:2") as opened:
        opened.wait_for_workers(2, timeout=60)
        yield opened


@pytest.fixture(scope="module")
def whole(slide: Path, client: Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run makes."""
    out = tmp_path_factory.mktemp("whole")
    assert embed(client, slide, out).rows[0].status == "done"
    return stores(out)
