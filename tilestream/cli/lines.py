"""Lines of text: wrapped between words on a terminal, whole anywhere else, so that they can be searched."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

MOST_IGNORED = 10


def print_line(console: Console, *parts: str | Text | tuple[str, str]) -> None:
    """Print one line.

    Parameters
    ----------
    console : Console
        Where to print.
    *parts : str, Text or (str, str)
        Texts, or texts with a style; brackets in them mean nothing.
    """
    console.print(Text.assemble(*parts), soft_wrap=not console.is_terminal)


def without_subject(reason: str, key: str) -> str:
    """Return a reason without the path that it begins with, for a line that has named the input already.

    Parameters
    ----------
    reason : str
        Text of an error.
    key : str
        Relative path of the input.

    Returns
    -------
    str
        The rest of the reason; all of it when it is about another file.
    """
    subject = re.match(r"`([^`]*)`: ", reason)
    return reason[subject.end() :] if subject and subject[1].endswith(key) else reason


def print_ignored(console: Console, ignored: Sequence[tuple[str, str]], *, rest: str) -> None:
    """Print the files that were passed over with the reason, at most ten.

    Parameters
    ----------
    console : Console
        Where to print.
    ignored : sequence
        Path and reason.
    rest : str
        Where all of them are listed.
    """
    for path, reason in ignored[:MOST_IGNORED]:
        print_line(console, ("ignored ", "dim"), f"{path}: {reason}")
    if len(ignored) > MOST_IGNORED:
        print_line(console, ("ignored ", "dim"), f"{len(ignored) - MOST_IGNORED:,} more: see {rest}")
