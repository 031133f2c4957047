"""The Kubernetes profile without Kubernetes: the resource that is asked for, and what is said of trouble."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import Mock

import pytest
from distributed import LocalCluster

from tilestream.cluster.client import open_client
from tilestream.errors import ConfigError

PROFILE = """
kind: kubernetes
image: registry/tilestream:1
scale: {minimum: 2, maximum: 5}
cores: 4
memory: 16GiB
gpus: 1
namespace: science
volumes: [{claim: slides, path: /data}]
environment: {AWS_REGION: eu-west-1}
pull_secret: key
wait_s: 0.3
"""


class Pod:
    """What kr8s gives."""

    def __init__(self, name: str, status: dict[str, Any]) -> None:
        self.name, self.status = name, status


PODS = [
    Pod("w-1", {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
    Pod("w-2", {"phase": "Pending", "conditions": [{"reason": "Unschedulable", "message": "Insufficient cpu"}]}),
]


class Made(LocalCluster):
    """A cluster without workers, which remembers what was asked."""

    asked: dict[str, Any]
    _instances: ClassVar[set[Any]] = set()

    def __init__(self, **options: Any) -> None:
        type(self).asked = options
        super().__init__(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0")

    def adapt(self, *, minimum: int, maximum: int) -> Any:
        self.asked["adapt"] = (minimum, maximum)


def make_cluster_spec(**options: Any) -> dict[str, Any]:
    """Return as much of what dask-kubernetes 2026.3 returns as is changed."""
    pods = {
        part: {"spec": {"containers": [{"name": part, "image": options["image"]}]}} for part in ("worker", "scheduler")
    }
    pods["worker"]["spec"]["containers"][0] |= {"args": options["worker_command"], "env": options["env"]}
    pods["scheduler"]["spec"]["containers"][0]["args"] = ["dask-scheduler", "--host", "0.0.0.0"]
    return {"metadata": {"name": options["name"]}, "spec": pods, "n_workers": options["n_workers"]}


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    operator = types.ModuleType("dask_kubernetes.operator")
    operator.KubeCluster, operator.make_cluster_spec = Made, make_cluster_spec  # type: ignore[attr-defined]
    kr8s = types.ModuleType("kr8s")
    kr8s.get = lambda *_, **__: iter(PODS)  # type: ignore[attr-defined]
    kr8s.api = lambda: types.SimpleNamespace(version=dict)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_kubernetes", types.ModuleType("dask_kubernetes"))
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", operator)
    monkeypatch.setitem(sys.modules, "kr8s", kr8s)
    path = tmp_path / "mine.yaml"
    path.write_text(PROFILE)
    return path


def test_what_is_asked_for(profile: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_client(str(profile)).__enter__()
    text = str(caught.value)
    assert "no worker within 0.3 s (pod w-1 Pending ImagePullBackOff; pod w-2 Pending Insufficient cpu)" in text
    asked = Made.asked
    assert (asked["namespace"], asked["adapt"], asked["quiet"]) == ("science", (2, 5), True)
    spec = asked["custom_cluster_spec"]
    assert spec["n_workers"] == 2
    worker = spec["spec"]["worker"]["spec"]
    (container,) = worker["containers"]
    command = ["dask", "worker", "--no-nanny", "--preload", "tilestream.cluster.preload"]
    assert container["args"] == [*command, "--nthreads", "4", "--memory-limit", str(16 << 30)]
    limits = {"cpu": "4", "memory": str(16 << 30), "nvidia.com/gpu": "1"}
    assert container["resources"] == {"requests": limits, "limits": limits}
    assert worker["volumes"] == [{"name": "volume-0", "persistentVolumeClaim": {"claimName": "slides"}}]
    assert container["volumeMounts"] == [{"name": "volume-0", "mountPath": "/data"}]
    assert container["env"]["AWS_REGION"] == "eu-west-1"
    assert container["env"]["DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE"] == "False"
    scheduler = spec["spec"]["scheduler"]["spec"]
    assert scheduler["containers"][0]["args"][:2] == ["dask", "scheduler"], "dask has no command `dask-scheduler` now"
    assert scheduler["imagePullSecrets"] == worker["imagePullSecrets"] == [{"name": "key"}]


def test_a_cluster_without_the_operator(profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    of_the_user = Mock()
    monkeypatch.setattr(Made, "_instances", {of_the_user})

    def refuse(self: Made, **options: Any) -> None:
        Made._instances.add(Mock(close=lambda **_: closed.append(options)))
        raise RuntimeError("Are the Dask Custom Resource Definitions installed?")

    monkeypatch.setattr(Made, "__init__", refuse)
    with pytest.raises(ConfigError, match=r"RuntimeError: Are the Dask Custom .*cluster/README\.md"):
        open_client(str(profile)).__enter__()
    assert len(closed) == 1, "what was begun is ended"
    assert Made._instances == {of_the_user}, "dask-kubernetes would end the failed one again at exit"
    of_the_user.close.assert_not_called()


def test_without_the_package(profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[kubernetes\]'"):
        open_client(str(profile)).__enter__()
