"""Workers as Kubernetes pods, through the Dask operator; it holds the scheduler too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dask.utils import parse_bytes

from tilestream.cluster.profile import Profile
from tilestream.cluster.quiet import PRELOAD, environment
from tilestream.errors import ConfigError

if TYPE_CHECKING:
    from distributed.deploy.cluster import Cluster

NAME = "tilestream-{user}-{uuid}"
"""Name of a cluster where a profile gives none."""
CLOSE_S = 10
"""How long the end of a cluster may take that has failed to start."""
SCHEDULER = ["dask", "scheduler", "--host", "0.0.0.0"]
"""dask-kubernetes 2026.3 still names a command `dask-scheduler`, which dask no longer has."""
SCHEDULER_RESOURCES = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}
"""A scheduler keeps the tasks of a window and no pixels."""


def start_kubernetes(profile: Profile) -> Cluster:
    """Return a cluster whose workers are pods.

    Parameters
    ----------
    profile : Profile
        Fields of kind `kubernetes`.

    Returns
    -------
    KubeCluster
        Its scheduler runs; to be closed, which deletes the pods.

    Raises
    ------
    ConfigError
        When dask-kubernetes is missing, or the cluster or its operator does not do what is asked.
    """
    try:
        import kr8s
        from dask_kubernetes.operator import KubeCluster, make_cluster_spec
    except ImportError as error:
        raise ConfigError.of(
            f"`--cluster {profile.given}`",
            got=str(error),
            expected="the package dask-kubernetes",
            do="Run `pip install -e '.[kubernetes]'` in the clone.",
        ) from error
    spec = make_cluster_spec(
        name=_name(profile),
        image=profile.fields["image"],
        n_workers=_first(profile),
        env=environment(profile.get("environment")),
        worker_command=worker_command(profile),
    )
    others = set(KubeCluster._instances)  # of the user's own
    try:
        kr8s.api().version()  # whether there is a cluster that knows us, before one is asked for anything
        cluster: Cluster = KubeCluster(
            custom_cluster_spec=fitted(spec, profile),
            namespace=profile.get("namespace"),
            resource_timeout=math.ceil(profile.get("wait_s", 900)),
            quiet=True,
        )
    except Exception as error:
        _drop(KubeCluster, others)
        # whatever the API server, the operator or a pod refuses is one clear line
        raise ConfigError.of(
            f"`--cluster {profile.given}`",
            got=f"{type(error).__name__}: {' '.join(str(error).split())}",
            expected="a Kubernetes cluster with the Dask operator that runs the image",
            do="Try `kubectl get daskclusters` and `kubectl get events`; cluster/README.md says what is needed.",
        ) from error
    return cluster


def _drop(made: Any, others: set[Any]) -> None:
    """End what has failed to start: dask-kubernetes keeps it, and would print how it fails to end it at exit."""
    for cluster in set(made._instances) - others:
        with suppress(Exception):
            cluster.close(timeout=CLOSE_S)
        made._instances.discard(cluster)


def worker_command(profile: Profile) -> list[str]:
    """Return the command of a worker's container.

    Parameters
    ----------
    profile : Profile
        Says threads and memory, where they are not what the pod has.

    Returns
    -------
    list of str
        The operator adds the name and the address of the scheduler.
    """
    command = ["dask", "worker", "--no-nanny", "--preload", PRELOAD]  # a pod that fails is started again by Kubernetes
    if profile.get("cores"):
        command += ["--nthreads", str(profile.fields["cores"])]
    if profile.get("memory"):
        command += ["--memory-limit", str(parse_bytes(profile.fields["memory"]))]
    return command


def fitted(spec: dict[str, Any], profile: Profile) -> dict[str, Any]:
    """Return the description of a cluster with the resources and volumes of a profile.

    Parameters
    ----------
    spec : dict
        As `dask_kubernetes.operator.make_cluster_spec` makes it; changed in place.
    profile : Profile
        Fields of kind `kubernetes`.

    Returns
    -------
    dict
        A `DaskCluster` resource.
    """
    worker, scheduler = spec["spec"]["worker"]["spec"], spec["spec"]["scheduler"]["spec"]
    scheduler["containers"][0] |= {"args": SCHEDULER, "resources": SCHEDULER_RESOURCES}
    worker["containers"][0]["resources"] = _resources(profile)
    volumes = profile.get("volumes", [])
    named = [(f"volume-{number}", volume["claim"], volume["path"]) for number, volume in enumerate(volumes)]
    worker["volumes"] = [{"name": name, "persistentVolumeClaim": {"claimName": claim}} for name, claim, _ in named]
    worker["containers"][0]["volumeMounts"] = [{"name": name, "mountPath": path} for name, _, path in named]
    if profile.get("pull_secret"):
        for pod in (worker, scheduler):
            pod["imagePullSecrets"] = [{"name": profile.fields["pull_secret"]}]
    return spec


def explain_pods(profile: Profile, cluster: Cluster) -> str:
    """Return how it stands with the pods of a cluster, as far as Kubernetes says it.

    Parameters
    ----------
    profile : Profile
        Says the namespace.
    cluster : KubeCluster
        Knows its name.

    Returns
    -------
    str
        Phase of each pod, and what its container waits for.
    """
    import kr8s

    try:
        selector = {"dask.org/cluster-name": cluster.name}
        pods = list(kr8s.get("pods", namespace=profile.get("namespace"), label_selector=selector))
    except Exception as error:  # noqa: BLE001 - it only explains: what it was asked about stays the error
        return f"pods not known: {type(error).__name__}"
    states = [f"pod {pod.name} {_state(pod.status)}" for pod in pods] or ["no pod was made"]
    return f"{'; '.join(states[:3])}{' …' if len(states) > 3 else ''}"


def _state(status: Mapping[str, Any]) -> str:
    waiting = [container.get("state", {}).get("waiting") or {} for container in status.get("containerStatuses", [])]
    reasons = [found["reason"] for found in waiting if "reason" in found]
    unmet = [found["message"] for found in status.get("conditions", []) if found.get("reason") == "Unschedulable"]
    return f"{status.get('phase', 'unknown')} {', '.join(reasons + unmet)}".strip()


def _resources(profile: Profile) -> dict[str, dict[str, str]]:
    """Return what a worker's pod asks for and may use: the same, so that it is never evicted for another's sake."""
    asked: dict[str, str] = {}
    if profile.get("cores"):
        asked["cpu"] = str(profile.fields["cores"])
    if profile.get("memory"):
        asked["memory"] = str(parse_bytes(profile.fields["memory"]))
    if profile.get("gpus"):
        asked["nvidia.com/gpu"] = str(profile.fields["gpus"])
    return {"requests": asked, "limits": dict(asked)}


def _first(profile: Profile) -> int:
    scale = profile.fields["scale"]
    return int(scale) if isinstance(scale, int) else int(scale["minimum"])


def _name(profile: Profile) -> str:
    import getpass
    import uuid

    # the names of Kubernetes are lower case letters, digits and dashes
    user = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in getpass.getuser().lower())
    return str(profile.get("name") or NAME.format(user=user.strip("-"), uuid=uuid.uuid4().hex[:8]))
