"""Joules that a machine has used meanwhile, where its counters can be read.

Processors count in Linux's powercap tree (RAPL, Intel and AMD), which often only root may read; NVIDIA GPUs through
NVML, with the package `nvidia-ml-py`. Both count for the whole machine, whoever uses it, and only for the machine on
which this process runs.

References
----------
Linux kernel, Documentation/power/powercap; NVML, nvmlDeviceGetTotalEnergyConsumption.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

POWERCAP = Path("/sys/class/powercap")
LOOK_S = 30.0
"""How often counters are read: the smallest wraps after 65 kJ, which a socket of 500 W uses in two minutes."""

Reading: TypeAlias = Callable[[], float]
"""Joules by a counter that starts anywhere."""


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What was used."""

    cpu_j: float | None
    """Joules of processors and memory; None where no counter can be read."""
    gpu_j: float | None
    """Joules of all NVIDIA GPUs; None where no counter can be read."""


class Counter:
    """The sum of a counter that starts again at 0.

    Parameters
    ----------
    read : callable
        Returns what it shows.
    most : float
        What it shows at most; infinite where it never wraps.
    """

    def __init__(self, read: Reading, most: float = float("inf")) -> None:
        self._read = read
        self._most = most
        self._last = read()
        self.total = 0.0

    def look(self) -> None:
        """Add what was counted since the last look; it may have wrapped once."""
        now = self._read()
        step = now - self._last
        self.total += step if step >= 0 else step + self._most
        self._last = now


class Joules:
    """Figures of a block that is being measured; `energy` may be asked for at any time, also afterwards."""

    def __init__(self, cpu: list[Counter], gpu: list[Counter]) -> None:
        self._cpu = cpu
        self._gpu = gpu
        self._lock = threading.Lock()

    def look(self) -> None:
        """Read all counters."""
        with self._lock:
            for counter in (*self._cpu, *self._gpu):
                try:
                    counter.look()
                except (OSError, ValueError):  # a device that went away has no more to add
                    continue

    @property
    def energy(self) -> Energy:
        """Return the joules up to the last look."""
        with self._lock:
            cpu, gpu = (sum(counter.total for counter in kind) if kind else None for kind in (self._cpu, self._gpu))
        return Energy(cpu_j=cpu, gpu_j=gpu)


@contextmanager
def measured_energy(powercap: Path = POWERCAP, *, look_s: float = LOOK_S) -> Iterator[Joules]:
    """Yield the meter of a block.

    Parameters
    ----------
    powercap : Path
        Where the kernel shows its counters.
    look_s : float
        How often they are read, in a thread of its own where there are any.

    Yields
    ------
    Joules
        Its `energy` is complete when the block has ended.
    """
    joules = Joules(cpu_counters(powercap), gpu_counters())
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(look_s):
            joules.look()

    if joules.energy == Energy(cpu_j=None, gpu_j=None):
        yield joules
        return
    watcher = threading.Thread(target=watch, name="tilestream-energy", daemon=True)
    watcher.start()
    try:
        yield joules
    finally:
        ended.set()
        watcher.join()
        joules.look()


def cpu_counters(powercap: Path = POWERCAP) -> list[Counter]:
    """Return a counter a processor package, and one a memory that is counted by itself; none that may not be read.

    Parameters
    ----------
    powercap : Path
        Root of the tree. Cores and graphics are part of their package, and `psys` holds all of them; the same package
        may also be shown a second time, as `intel-rapl-mmio`.

    Returns
    -------
    list of Counter
        At their present state.
    """
    counters = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text().strip()
            if not name.startswith(("package", "dram")):
                continue
            most = int((zone / "max_energy_range_uj").read_text()) / 1e6
            counters.append(Counter(_rapl_reading(zone / "energy_uj"), most))
        except (OSError, ValueError):
            continue
    return counters


def _rapl_reading(path: Path) -> Reading:
    return lambda: int(path.read_text()) / 1e6


def gpu_counters() -> list[Counter]:
    """Return a counter a GPU; none without NVML, or for a GPU older than Volta, which has no counter."""
    try:
        import pynvml
    except ImportError:
        return []
    counters = []
    try:
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            counters.append(
                Counter(_nvml_reading(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle, pynvml.NVMLError))
            )
    except (pynvml.NVMLError, OSError):
        return counters
    return counters


def _nvml_reading(read_mj: Callable[[object], int], handle: object, failure: type[Exception]) -> Reading:
    def read() -> float:
        try:
            return read_mj(handle) / 1000
        except failure as error:
            raise OSError(str(error)) from error

    return read
