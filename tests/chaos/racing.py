"""Processes that race for one output: `python -m tests.chaos.racing COUNT JOB SOURCE OUT [JOB SOURCE OUT …]`.

JOB is `embed` or `ingest`. For each in turn COUNT processes are forked, which is cheap once everything is imported,
each with a client of its own, so that nothing but the files says who does what. Their numbers are written out, and when
all have ended their exit codes. Each unit is a line of OUT.log when its receipt is
about to be written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import scipy.ndimage  # noqa: F401  (loaded where it is used first, which would be in each process)

from tests.pipelines.faults.ingesting import small_units
from tests.pipelines.faults.runs import embed
from tilestream.cluster.client import open_client
from tilestream.pipelines.ingest import build_pyramid
from tilestream.stream.journal import Journal
from tilestream.types import Receipt


def run(job: str, source: Path, out: Path) -> None:
    """Do the job as if nobody else did."""
    with open_client("threads:1") as client:
        if job == "embed":
            (row,) = embed(client, source, out).rows
            assert row.status == "done", row.reason
        else:
            build_pyramid(source, out / "x.zarr", client=client)


def race(job: str, source: Path, out: Path) -> None:
    """Run in this process, which was forked for it."""
    commit = Journal.commit

    def committed(self: Journal, receipt: Receipt) -> None:
        with out.with_suffix(".log").open("a") as lines:  # short ones of several processes are never mixed
            lines.write(f"{receipt.key}\n")
        commit(self, receipt)  # after it: a process killed in between has its unit counted twice, and none is missing

    Journal.commit = committed  # type: ignore[method-assign]
    if job == "ingest":
        small_units()
    run(job, source, out)


def say(numbers: Iterable[int]) -> None:
    """Write a line to whoever started this."""
    sys.stdout.write(" ".join(map(str, numbers)) + "\n")
    sys.stdout.flush()


def main() -> None:
    count, *races = sys.argv[1:]
    for job, source, out in zip(races[::3], races[1::3], races[2::3], strict=True):
        children = []
        for _ in range(int(count)):
            child = os.fork()
            if not child:
                race(job, Path(source), Path(out))
                os._exit(0)
            children.append(child)
        say(children)
        ends = [os.waitpid(child, 0)[1] for child in children]
        say(map(os.waitstatus_to_exitcode, ends))


if __name__ == "__main__":
    main()
