"""Devices are counted as CUDA would see them, and CUDA is not touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tilestream.cluster import devices
from tilestream.cluster.client import default_profile

UUID = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
SLICE = "MIG-41b3359c-e721-56e5-8009-12e5797ed514"


@pytest.mark.parametrize(
    ("variable", "visible"),
    [
        (None, ("0", "1", "2", "3")),
        ("", ()),
        ("-1", ()),
        ("2,0", ("2", "0")),
        (" 1, 3 ", ("1", "3")),
        ("0,9,1", ("0",)),  # CUDA hides what comes after an entry that names no device
        ("1,-1,2", ("1",)),
        ("1,1", ("1",)),
        ("NoDevFiles", ()),
        (UUID, (UUID,)),
        (f"{SLICE},{UUID}", (SLICE, UUID)),
    ],
)
def test_what_cuda_would_see(variable: str | None, visible: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "driver_devices", lambda: 4)
    environ = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    assert devices.visible_devices(environ) == visible


def test_without_a_driver_nothing_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "NVML", "libnosuch.so.1")
    assert devices.driver_devices() == 0
    assert devices.visible_devices({"CUDA_VISIBLE_DEVICES": "0"}) == ()


DRIVER = """
int nvmlInit_v2(void) { return INIT; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
"""


@pytest.mark.parametrize(("init", "count"), [(0, 3), (9, 0)])
def test_the_driver_is_asked_by_its_own_library(
    init: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, library = tmp_path / "nvml.c", tmp_path / "nvml.so"
    source.write_text(DRIVER)
    compiler = subprocess.run(["cc", "--version"], capture_output=True, check=False).returncode
    if compiler:
        pytest.skip("no compiler")
    subprocess.run(["cc", f"-DINIT={init}", "-shared", "-fPIC", source, "-o", library], check=True)
    monkeypatch.setattr(devices, "NVML", str(library))
    assert devices.driver_devices() == count


@pytest.mark.parametrize(
    ("is_for_device", "visible", "profile"), [(True, ("0",), "gpus"), (True, (), "threads"), (False, ("0",), "threads")]
)
def test_the_default_profile(
    is_for_device: bool, visible: tuple[str, ...], profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilestream.cluster.client.visible_devices", lambda: visible)
    assert default_profile(is_for_device=is_for_device) == profile


def test_counting_imports_no_cuda() -> None:
    code = (
        "import sys; from tilestream.cluster.devices import visible_devices; visible_devices();"
        "print([name for name in ('torch', 'numba', 'cupy', 'cuda.bindings') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "[]\n"
