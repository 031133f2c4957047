"""All benchmarks as one table: `make bench`, or `python -m tests.bench.run supply` for some of them."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from tests.bench.table import markdown

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results"
PEERS = (
    "openslide-python",
    "openslide-bin",
    "tifffile",
    "imagecodecs",
    "numba",
    "numba-cuda",
    "numpy",
    "opencv-python-headless",
    "torch",
    "dask",
    "distributed",
    "zarr",
    "ome-zarr",
    "ngff-zarr",
    "xarray",
)


def modules() -> list[str]:
    """Return the names of all benchmarks, without `bench_`."""
    return sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))


def facts(peers: Sequence[str] = PEERS) -> dict[str, Any]:
    """Return what a reader needs to judge the figures: machine, versions of what is installed, commit, date."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": affinity,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in ("tilestream", *peers) if (version := _version(name))},
        "load_before": round(os.getloadavg()[0], 2),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", *arguments), cwd=FOLDER, capture_output=True, text=True, check=False
        ).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (" with changes" if changed else "")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def write(rows: list[dict[str, Any]], about: dict[str, Any], folder: Path, *, prefix: str = "") -> Path:
    """Write the table as JSON and Markdown and return the path of the latter.

    Parameters
    ----------
    rows : list of dict
        As `make_row` gives them.
    about : dict
        As `facts` gives it.
    folder : Path
        Where; made when it is not there.
    prefix : str
        What the names of the files begin with.

    Returns
    -------
    Path
        `<prefix><date>.md`; the JSON is beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / (prefix + about["date"][:16].replace(" ", "-").replace(":", ""))
    stem.with_suffix(".json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    device = f"{about['device']}; " if "device" in about else ""
    head = (
        f"# Benchmarks of {about['date']}\n\n{device}commit {about['commit']}; {about['cpu']}, {about['cores']} cores, "
        f"{about['memory_gib']} GiB, {about['system']}; Python {about['python']}; {versions}. "
        f"Load before the run: {about['load_before']}.\n\n"
    )
    path = stem.with_suffix(".md")
    path.write_text(head + markdown(rows) + "\n")
    return path


def main() -> None:
    """Run the named benchmarks, or all, and print and store the table."""
    parser = argparse.ArgumentParser(description="Run the benchmarks and write the table.")
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(modules())}; all by default")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the table")
    options = parser.parse_args()
    unknown = set(options.names) - set(modules())
    if unknown:
        parser.error(f"no benchmark called {', '.join(sorted(unknown))}; there are: {', '.join(modules())}")
    about, rows, pictures = facts(), [], []
    for name in options.names or modules():
        start = time.perf_counter()
        module = importlib.import_module(f"tests.bench.bench_{name}")
        rows += module.rows()
        pictures += module.draw(options.results) if hasattr(module, "draw") else []
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    path = write(rows, about, options.results)
    print("\n" + path.read_text() + f"\nwritten to {path} and {path.with_suffix('.json').name}")
    for picture in pictures:
        print(f"drawn: {picture}")
    missed = [row["name"] for row in rows if row["ok"] is False]
    if missed:
        raise SystemExit(f"below the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
