"""Counters of a made powercap tree and a made NVML."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from tilestream.energy import Energy, cpu_counters, measured_energy

MOST_UJ = 1_000_000


def write_zone(root: Path, zone: str, name: str, energy_uj: int) -> Path:
    folder = root / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{MOST_UJ}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder / "energy_uj"


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_without_counters_nothing_is_told(tmp_path: Path) -> None:
    before = threading.active_count()
    with measured_energy(tmp_path / "none") as joules:
        assert threading.active_count() == before
    assert joules.energy == Energy(cpu_j=None, gpu_j=None)


def test_packages_and_memory_are_added_and_their_parts_are_not(tmp_path: Path) -> None:
    counters = {
        name: write_zone(tmp_path, zone, name, 100)
        for zone, name in (
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:0:1", "dram"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:2", "psys"),
            ("intel-rapl-mmio:0", "package-0 again"),
        )
    }
    with measured_energy(tmp_path) as joules:
        for counter in counters.values():
            counter.write_text("500100")
    assert joules.energy.cpu_j == pytest.approx(3 * 0.5)


def test_a_counter_that_starts_again_goes_on(tmp_path: Path) -> None:
    counter = write_zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    with measured_energy(tmp_path) as joules:
        counter.write_text("100000")
        joules.look()
        assert joules.energy.cpu_j == pytest.approx(0.2)
        counter.write_text("50000")
    assert joules.energy.cpu_j == pytest.approx(0.2 + 0.95)


def test_counters_are_read_while_the_block_runs(tmp_path: Path) -> None:
    counter = write_zone(tmp_path, "intel-rapl:0", "package-0", 0)
    with measured_energy(tmp_path, look_s=0.001) as joules:
        for shown in (600_000, 200_000, 800_000):  # twice around, which two looks alone would miss
            before = joules.energy.cpu_j
            counter.write_text(str(shown))
            while joules.energy.cpu_j == before:
                threading.Event().wait(0.001)
    assert joules.energy.cpu_j == pytest.approx(1.8)


def test_a_counter_that_may_not_be_read_is_none(tmp_path: Path) -> None:
    write_zone(tmp_path, "intel-rapl:0", "package-0", 0).unlink()
    write_zone(tmp_path, "intel-rapl:1", "package-1", 0).write_text("not a number")
    assert cpu_counters(tmp_path) == []


def test_gpus_count_in_millijoules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {0: 1000, 1: 5000}
    nvml = ModuleType("pynvml")
    nvml.NVMLError = RuntimeError  # type: ignore[attr-defined]
    nvml.nvmlInit = lambda: None  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetCount = lambda: len(shown)  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetHandleByIndex = lambda index: index  # type: ignore[attr-defined]
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda handle: shown[handle]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with measured_energy(tmp_path) as joules:
        shown.update({0: 3500, 1: 6000})
    assert joules.energy == Energy(cpu_j=None, gpu_j=3.5)
