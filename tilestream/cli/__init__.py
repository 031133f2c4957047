"""The command line: options in, one `run_*` of the pipelines, and what it found on the terminal."""

from tilestream.cli.app import app as app
from tilestream.cli.app import main as main

__all__ = ["app", "main"]
