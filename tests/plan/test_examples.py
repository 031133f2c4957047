"""Examples in docstrings are right."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["plan.tokens", "stream.tokenbatch"])
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"tilestream.{name}"))
    assert (found.failed, found.attempted > 0) == (0, True)
