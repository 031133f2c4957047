"""What a command tells on standard error whatever the speed of the machine."""

from __future__ import annotations

import re

_OF_SLOW_RUNS = re.compile(r"time |\d[\d,]*/\d[\d,]* images, ")


def told(stderr: str) -> list[str]:
    """Return the lines without those of a run that takes seconds: how far it is, and what held it up."""
    return [line for line in stderr.splitlines() if line.strip() and not _OF_SLOW_RUNS.match(line)]
