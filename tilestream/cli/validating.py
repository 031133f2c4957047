"""What `tilestream info --validate` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tilestream.cli.lines import print_line

if TYPE_CHECKING:
    from tilestream.pipelines.validate import Validation

_STYLES = {"valid": "green", "invalid": "red"}
_INDENT = 15


def print_validation(validation: Validation, console: Console | None = None) -> None:
    """Print the verdicts on an image, one a line with what was found below it.

    Parameters
    ----------
    validation : Validation
        What `validate_image` returns.
    console : Console, optional
        Where to print; standard output by default.
    """
    console = console or Console(highlight=False)
    for verdict in validation.verdicts:
        word = f"{verdict.outcome:<{_INDENT}}"
        print_line(console, (word, _STYLES.get(verdict.outcome, "dim")), f"{verdict.check} ({verdict.by})")
        for head, texts in (("", verdict.problems), ("note ", verdict.notes)):
            for line in (line for text in texts for line in text.splitlines() if line.strip()):
                print_line(console, " " * _INDENT, (head, "yellow"), line)


def validation_document(validation: Validation) -> dict[str, Any]:
    """Return the verdicts as JSON values.

    Parameters
    ----------
    validation : Validation
        What `validate_image` returns.

    Returns
    -------
    dict
        `path`, `exit_code` and `validation`, a list of verdicts.
    """
    return {
        "path": validation.path,
        "exit_code": validation.exit_code,
        "validation": [asdict(verdict) for verdict in validation.verdicts],
    }
