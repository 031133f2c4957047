"""Everything that needs a device, and the table of what was measured on it: `make gpu`.

Kernels, torch operations and models need numpy, numba-cuda, torch, pytest, pytest-timeout, hypothesis and psutil only:
on a machine that has these, `pip install --no-deps --no-build-isolation -e .` and `python -m tests.gpu.run` do.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.bench.run import RESULTS, facts, write

FOLDER = Path(__file__).resolve().parent
REPO = FOLDER.parents[1]
SUITES = ("tests/kernels", "tests/ops", "tests/models", "tests/torch")
PEERS = ("numba", "numba-cuda", "cuda-core", "numpy", "torch")


def device() -> str:
    """Return the device in words.

    Raises
    ------
    SystemExit
        When there is none, or torch or numba-cuda cannot use it.
    """
    from tilestream.errors import ConfigError
    from tilestream.kernels.language import SIMULATED, cuda, require_device

    try:
        require_device()
    except ConfigError as error:
        raise SystemExit(f"make gpu needs a CUDA device. {error}") from None
    if SIMULATED:
        raise SystemExit("make gpu needs a CUDA device, and NUMBA_ENABLE_CUDASIM chooses the simulator. Unset it.")
    import torch

    if not torch.cuda.is_available():
        raise SystemExit(
            f"make gpu needs a torch that sees the CUDA device; {torch.__version__} does not. Install one."
        )
    properties = torch.cuda.get_device_properties(0)
    driver = ".".join(map(str, cuda.cudadrv.driver.driver.get_version()))
    return (
        f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, compute capability "
        f"{properties.major}.{properties.minor}, CUDA driver {driver}, copy {_copy_rate():.2f} TB/s (read and written)"
    )


def _copy_rate() -> float:
    """Return the bandwidth of a large copy on the device in TB/s: what floors are worked out with."""
    import torch

    from tests.gpu.timing import device_us

    source = torch.empty(2**32, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / device_us(lambda: target.copy_(source), rounds=5, repeat=5) / 1e6


def suite(flags: list[str]) -> int:
    """Return the exit status of the tests that run on the device."""
    environment = {**os.environ, "TILESTREAM_TEST_BACKEND": "cuda"}
    folders = [folder for folder in SUITES if (REPO / folder).is_dir()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--runslow", *folders, *flags]
    return subprocess.run(command, cwd=REPO, env=environment, check=False).returncode


def benchmarks(names: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of the named device benchmarks, and which of them failed: the time of a device is precious."""
    rows, failed = [], []
    for name in names:
        start = time.perf_counter()
        try:
            rows += importlib.import_module(f"tests.gpu.bench_{name}").rows()
        except Exception:  # noqa: BLE001  its traceback is printed, and the run fails at the end
            failed.append(name)
            traceback.print_exc()
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    return rows, failed


def main() -> None:
    """Run the suite and the benchmarks, and write the table."""
    known = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    parser = argparse.ArgumentParser(description="Run what needs a CUDA device and write the table.")
    parser.add_argument("names", nargs="*", help=f"which benchmarks of {', '.join(known)}; all by default")
    parser.add_argument("--no-tests", action="store_true", help="benchmarks only")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the table")
    options, flags = parser.parse_known_args()
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"no device benchmark called {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    about = {**facts(PEERS), "device": device()}
    status = 0 if options.no_tests else suite(flags)
    rows, failed = benchmarks(options.names or known)
    path = write(rows, about, options.results, prefix="gpu-")
    print("\n" + path.read_text() + f"\nwritten to {path} and {path.with_suffix('.json').name}")
    if failed:
        raise SystemExit(f"benchmarks that failed: {', '.join(failed)}")
    raise SystemExit(status)


if __name__ == "__main__":
    main()
