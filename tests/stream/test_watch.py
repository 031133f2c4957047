"""Who is taken to hang, by what workers say."""

from __future__ import annotations

from typing import Any

from tilestream.stream.watch import METRIC, SILENT_S, Watch


class Cluster:
    """A client that tells of five workers unless more are asked for, as distributed 2025.12 does."""

    def __init__(self, silent_s: list[float]) -> None:
        self.silent_s = silent_s

    def scheduler_info(self, n_workers: int = 5) -> dict[str, Any]:
        told = self.silent_s if n_workers == -1 else self.silent_s[:n_workers]
        lives = [{"host": "node", "pid": pid, "silent_s": s, "longest_s": 1.0} for pid, s in enumerate(told)]
        return {"workers": {f"tcp://{life['pid']}": {"metrics": {METRIC: life}} for life in lives}}


def test_all_workers_of_a_large_cluster_are_looked_at() -> None:
    watch = Watch(Cluster([0.0] * 9 + [2 * SILENT_S]))  # type: ignore[arg-type]
    assert [hung.address for hung in watch.hung()] == ["tcp://9"]
