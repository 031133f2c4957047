"""Rates are measured while no other test runs."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent


@pytest.hookimpl(tryfirst=True)  # before the tests are put in order
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(FOLDER) and "slow" in item.keywords:
            item.add_marker("alone")
