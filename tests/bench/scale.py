"""What takes an hour or so: `make bench-scale`. Memory to 25 Gpx, and an image of a hundred thousand super-tiles."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.bench.bench_memory import JOBS, memory_rows
from tests.bench.bench_units import MANY_UNITS, unit_rows
from tests.bench.run import RESULTS, facts, write

GIGAPIXELS = (1.0, 5.0, 25.0)


def main() -> None:
    """Run all and print and store the table."""
    about, found = facts(), []
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        job: lambda job=job: memory_rows(job, GIGAPIXELS)  # type: ignore[misc]
        for job in JOBS
    }
    for name, measure in {**parts, "super-tiles": lambda: unit_rows(MANY_UNITS)}.items():
        start = time.perf_counter()
        found += measure()
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    path = write(found, about, RESULTS, prefix="scale-")
    print("\n" + path.read_text())
    missed = [row["name"] for row in found if row["ok"] is False]
    if missed:
        raise SystemExit(f"below the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
