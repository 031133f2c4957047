"""One ingest as a process of its own: `python -m tests.pipelines.faults.ingesting SRC DST LOG [DIES_AFTER]`.

Chunks have 16 px, so that a small image has many units. Each finished unit is a line of LOG. After DIES_AFTER of them
the process is killed as the power button kills it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from threading import Lock

from tilestream.pipelines.ingest import build_pyramid
from tilestream.sinks import layout
from tilestream.stream.journal import Journal


def small_units() -> None:
    """Let an image of a few hundred pixels have several tiers of units."""
    layout.CHUNK_PX = ((float("inf"), 16),)
    layout.LAST_PX = 4


def main() -> None:
    source, root, log, *dies = sys.argv[1:]
    left = int(dies[0]) if dies else -1
    small_units()
    commit, alone = Journal.commit, Lock()

    def committed(self, receipt):
        nonlocal left
        with alone:  # two threads commit
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            commit(self, receipt)
        with Path(log).open("a") as lines:
            lines.write(f"{receipt.key}\n")

    Journal.commit = committed
    build_pyramid(source, root)


if __name__ == "__main__":
    main()
