"""How files that are no input are listed: once, and short."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

MOST_IGNORED = 10


def print_ignored(console: Console, ignored: Sequence[tuple[str, str]]) -> None:
    """Print the files that were passed over with the reason, at most ten.

    Parameters
    ----------
    console : Console
        Where to print.
    ignored : sequence
        Path and reason.
    """
    for path, reason in ignored[:MOST_IGNORED]:
        console.print(Text.assemble(("ignored ", "dim"), f"{path}: {reason}"), soft_wrap=True)
    if len(ignored) > MOST_IGNORED:
        console.print(Text(f"ignored {len(ignored) - MOST_IGNORED:,} more", "dim"))
