"""What docstrings show is what comes out."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["gaze", "fovea"])
def test_examples_of_docstrings(name) -> None:
    found = doctest.testmod(importlib.import_module(f"tilestream.fovea.{name}"))
    assert found.attempted
    assert not found.failed
