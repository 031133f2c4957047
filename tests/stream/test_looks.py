"""The engine looks at who is there: what a slow answer says, and from when on workers are missed."""

from __future__ import annotations

import pytest

from tilestream.stream import engine
from tilestream.stream.engine import Engine


class Cluster:
    """Answers as late as it is told to, by a clock of its own."""

    status = "running"

    def __init__(self) -> None:
        self.now, self.takes_s, self.workers = 100.0, 0.0, {"worker": 2}

    def monotonic(self) -> float:
        return self.now

    def nthreads(self) -> dict[str, int]:
        self.now += self.takes_s
        return self.workers


def test_workers_are_missed_from_the_first_answer_that_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    monkeypatch.setattr(engine, "time", cluster)
    run = Engine(cluster, lambda event: None)
    monkeypatch.setattr(run._watch, "hung", list)
    cluster.takes_s = 40
    assert run._look() == ""
    cluster.takes_s, cluster.workers = 0, {}
    assert run._look() == "", "of the 40 s that the answer before took nothing is known"
    cluster.now += 29
    assert run._look() == ""
    cluster.now += 2
    assert run._look().startswith("the cluster has had no worker for 31 s. Start workers again")
    cluster.workers = {"another": 2}
    cluster.now += 2
    assert run._look() == ""
    cluster.workers = {}
    cluster.now += 100
    assert run._look() == "", "it came, and has gone just now"
