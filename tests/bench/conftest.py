"""Rates are measured while no other test runs."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

FOLDER = Path(__file__).resolve().parent


@pytest.hookimpl(tryfirst=True)  # before the tests are put in order
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(FOLDER) and "slow" in item.keywords:
            item.add_marker("alone")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder on the disk, for which users wait too; those of other tests may be in memory."""
    with TemporaryDirectory() as folder:
        yield Path(folder)
