"""A process for each device, on a machine that need not have one."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from tilestream.cluster import local
from tilestream.cluster.client import open_client
from tilestream.errors import ConfigError


def seen() -> tuple[str, int, bool]:
    """Return what a worker sees: devices, process, whether anything has looked at them yet."""
    return os.environ["CUDA_VISIBLE_DEVICES"], os.getpid(), "torch" in sys.modules


def test_each_worker_sees_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilestream.cluster.devices.driver_devices", lambda: 3)
    monkeypatch.setattr(local, "cores", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8932f937")
    with open_client("gpus") as client:
        client.wait_for_workers(2, timeout=60)
        found = client.run(seen)
        workers = client.scheduler_info()["workers"]
    assert sorted(device for device, _, _ in found.values()) == ["2", "GPU-8932f937"]
    assert len({process for _, process, _ in found.values()} | {os.getpid()}) == 3
    assert not any(is_touched for _, _, is_touched in found.values())
    for address, (device, _, _) in found.items():
        worker = workers[address]
        assert (worker["name"], worker["resources"], worker["nthreads"]) == (device, {"GPU": 1}, 3)


@pytest.mark.parametrize("variable", [None, "-1"])
def test_no_device(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilestream.cluster.devices.driver_devices", lambda: 0 if variable is None else 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    with pytest.raises(ConfigError, match=r"`--cluster gpus`: got no CUDA device.*`--cluster threads`") as caught:
        open_client("gpus").__enter__()
    assert ("no CUDA device among `-1`" in str(caught.value)) == (variable is not None)


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They would compute on the processor, and nobody would know."""
    monkeypatch.setattr("tilestream.cluster.devices.driver_devices", lambda: 2)
    path = tmp_path / "mine.yaml"
    path.write_text("kind: gpus\ndevices: [0, 7]\n")
    with pytest.raises(ConfigError, match="got only 1 CUDA device among `0,7`"):
        open_client(str(path)).__enter__()


def test_dask_cuda_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[dict[str, Any]] = []

    def start(**options: Any) -> LocalCluster:
        given.append(dict(options))
        options.pop("CUDA_VISIBLE_DEVICES")
        return LocalCluster(n_workers=1, **options)

    module = types.ModuleType("dask_cuda")
    module.LocalCUDACluster = start  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "dask_cuda", module)
    path = tmp_path / "mine.yaml"
    path.write_text("kind: gpus\ndevices: [1, GPU-3]\nthreads: 2\n")
    monkeypatch.setattr("tilestream.cluster.devices.driver_devices", lambda: 4)
    with open_client(str(path)) as client:
        assert list(client.nthreads().values()) == [2]
    assert given[0]["CUDA_VISIBLE_DEVICES"] == ["1", "GPU-3"]
    assert (given[0]["threads_per_worker"], given[0]["resources"]) == (2, {"GPU": 1})
