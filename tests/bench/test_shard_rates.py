"""The ratios that random tiles of a store are promised at, at 70 % of their bars: below that is no noise."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.bench.bench_shards import OPENSLIDE_BAR, ZARR_BAR, Stores, make_stores, openslide_row, zarr_row
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return make_stores(tmp_path_factory.mktemp("stores"), 0.05)


def held(measure: Callable[[], dict[str, Any]]) -> None:
    row = until_held(measure)
    assert row["ok"], row


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_tiles_against_zarr_python(stores: Stores, threads: int) -> None:
    held(lambda: zarr_row(stores.portable, threads=threads, rounds=3, bar=SHARE * ZARR_BAR))


@pytest.mark.slow
def test_tiles_against_openslide_on_the_slide(stores: Stores) -> None:
    held(lambda: openslide_row(stores.portable, stores.slide, rounds=3, bar=SHARE * OPENSLIDE_BAR))


@pytest.mark.slow
def test_tiles_of_an_archive_against_zarr_python(stores: Stores) -> None:
    held(lambda: zarr_row(stores.archive, threads=1, rounds=3, bar=SHARE))
