"""A small slide made by code, and the command line called in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tilestream.cli import app
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

Call = Callable[..., Result]


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    return write_slide(folder / "made.svs", Shape(y=1200, x=1500), seed=3)


@pytest.fixture
def call() -> Call:
    """Run a command in this process; what it raises passes through, as a traceback would."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    return run
