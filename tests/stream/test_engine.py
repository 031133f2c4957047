"""The window, with work that needs no image."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster, get_worker

from tilestream.cluster.client import open_client
from tilestream.cluster.quiet import QUIET
from tilestream.errors import ConfigError, StageError
from tilestream.stream import engine, running, tasks
from tilestream.stream.engine import Engine, Event, Prepared, Ready
from tilestream.stream.journal import Journal
from tilestream.stream.work import Busy, Failure
from tilestream.types import PlanLevel, Receipt, Shape, SuperTile

LEVEL = PlanLevel(stored=0, shape=Shape(y=64, x=64), scale_yx=(1.0, 1.0))


def unit(number: int) -> SuperTile:
    return SuperTile(
        plan="p", level=LEVEL, iy=0, ix=number, first_row=number, tile_yx=np.zeros((1, 2), np.int64), tile_px=8
    )


@dataclass(frozen=True)
class CountedPlan:
    n: int
    opens: tuple[tuple[str, int], ...] = ()
    digest: str = "p"

    def __len__(self) -> int:
        return self.n

    def start(self) -> Iterator[SuperTile]:
        return (unit(number) for number in range(self.n))

    def after(self, receipt: Receipt) -> Iterator[SuperTile]:
        return (unit(number) for key, number in self.opens if key == receipt.key)


@dataclass(frozen=True)
class StuckPlan(CountedPlan):
    last: int = 0

    def after(self, receipt: Receipt) -> Iterator[SuperTile]:
        if self.last and receipt.key != unit(self.last).key:
            return iter(())
        raise StageError.of(f"receipt of unit {receipt.key}", got="x", expected="y", do="Try.")


@dataclass(frozen=True)
class LoggedWork:
    journal: Journal
    fail_at: int | None = None
    seconds: float = 0.0

    def __call__(self, task: SuperTile) -> Receipt | Busy:
        lease = self.journal.claim(task.key)
        if lease is None:
            return Busy(key=task.key)
        with lease:
            if task.ix == self.fail_at:
                raise StageError.of("stage `x`", got="nothing", expected="something", do="Try.")
            time.sleep(self.seconds)
            receipt = Receipt(key=task.key, recipe=self.journal.recipe, outputs={}, tiles=1)
            self.journal.commit(receipt)
            return receipt


@dataclass(frozen=True)
class Finish:
    journal: Journal

    def __call__(self) -> int:
        return len(self.journal.receipts())


@dataclass(frozen=True)
class FakeJob:
    key: str
    root: Path
    plan: CountedPlan
    fail_at: int | None = None
    seconds: float = 0.0
    broken: str = ""

    def prepare(self) -> Any:
        if self.broken == "known":
            raise ConfigError.of("`x`", got="a", expected="b", do="Do.")
        if self.broken == "unknown":
            raise ZeroDivisionError("surprise")
        if self.broken == "skip":
            return "nothing to do"
        journal = Journal(root=self.root / self.key, recipe="r")
        journal.open({"made": "by a test"})
        work: Any = LoggedWork(journal, self.fail_at, self.seconds)
        return Prepared(plan=self.plan, work=work, finish=Finish(journal))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with open_client("threads:2") as opened:
        yield opened


def run(client: Client, *jobs: FakeJob, window: int | None = None) -> list[Event]:
    events: list[Event] = []
    Engine(client, events.append, window).run(jobs)
    return events


def test_every_unit_of_every_job_runs_once_and_jobs_finish(client: Client, tmp_path: Path) -> None:
    jobs = [FakeJob(f"image {n}", tmp_path, CountedPlan(n)) for n in (0, 1, 7, 30)]
    events = run(client, *jobs)
    for job in jobs:
        mine = [event for event in events if event.job == job]
        assert Counter(event.kind for event in mine) == Counter(prepared=1, unit=job.plan.n, finished=1) - Counter()
        assert mine[-1].kind == "finished"
        assert mine[-1].result == job.plan.n
        keys = [event.receipt.key for event in mine if event.receipt is not None]
        assert len(set(keys)) == job.plan.n


def test_a_second_run_reuses_every_receipt(client: Client, tmp_path: Path) -> None:
    job = FakeJob("a", tmp_path, CountedPlan(5, opens=(("L0-y0-x4", 5), ("L0-y0-x5", 6))))
    assert Counter(event.kind for event in run(client, job))["unit"] == 7
    again = run(client, job)
    assert [event.kind for event in again] == ["prepared", "finished"]
    assert len(again[0].reused) == 7


def test_units_opened_by_a_receipt_run_after_it(client: Client, tmp_path: Path) -> None:
    plan = CountedPlan(2, opens=(("L0-y0-x1", 2), ("L0-y0-x2", 3)))
    keys = [event.receipt.key for event in run(client, FakeJob("a", tmp_path, plan)) if event.receipt is not None]
    assert sorted(keys) == ["L0-y0-x0", "L0-y0-x1", "L0-y0-x2", "L0-y0-x3"]
    assert keys.index("L0-y0-x1") < keys.index("L0-y0-x2") < keys.index("L0-y0-x3")


def test_a_plan_that_cannot_go_on_with_a_receipt_fails_its_image_alone(client: Client, tmp_path: Path) -> None:
    jobs = [FakeJob("stuck", tmp_path, StuckPlan(20)), FakeJob("good", tmp_path, CountedPlan(9))]
    for _ in range(2):  # once with new receipts, once with those that lie there
        ended = {event.job.key: event for event in run(client, *jobs) if event.kind in ("finished", "failed")}
        assert ended["good"].kind == "finished"
        failure = ended["stuck"].failure
        assert failure is not None
        assert failure.reason.startswith("receipt of unit L0-y0-x")


def test_a_unit_that_fails_behind_such_a_receipt_is_no_matter(client: Client, tmp_path: Path) -> None:
    jobs = [FakeJob(f"stuck {n}", tmp_path, StuckPlan(40, last=n), fail_at=n + 1) for n in range(5, 17)]
    assert Counter(event.kind for event in run(client, *jobs))["failed"] == len(jobs)  # short units share turns


def test_what_the_last_finished_unit_opens_is_done_too(client: Client, tmp_path: Path) -> None:
    run(client, FakeJob("a", tmp_path, CountedPlan(2)))
    events = run(client, FakeJob("a", tmp_path, CountedPlan(2, opens=(("L0-y0-x1", 2), ("L0-y0-x2", 3)))))
    assert [event.receipt.key for event in events if event.kind == "unit"] == ["L0-y0-x2", "L0-y0-x3"]
    assert events[-1].result == 4


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"broken": "known"}, "`x`: got a, expected b. Do."),
        ({"broken": "unknown"}, "ZeroDivisionError: surprise"),
        ({"fail_at": 3}, "stage `x`: got nothing"),
    ],
)
def test_a_failing_image_does_not_stop_the_others(
    client: Client, tmp_path: Path, bad: dict[str, Any], reason: str
) -> None:
    jobs = [FakeJob("a", tmp_path, CountedPlan(4)), FakeJob("bad", tmp_path, CountedPlan(9), **bad)]
    jobs.append(FakeJob("z", tmp_path, CountedPlan(4)))
    events = run(client, *jobs)
    last = {event.job.key: event for event in events}
    assert last["a"].kind == last["z"].kind == "finished"
    assert last["bad"].kind == "failed"
    assert reason in last["bad"].failure.reason
    assert bool(last["bad"].failure.trace) == (bad.get("broken") == "unknown")


def test_a_job_with_nothing_left_is_skipped(client: Client, tmp_path: Path) -> None:
    (event,) = run(client, FakeJob("a", tmp_path, CountedPlan(3), broken="skip"))
    assert event.kind == "skipped"
    assert event.result == "nothing to do"


def test_the_window_bounds_what_is_submitted(client: Client, tmp_path: Path) -> None:
    live = 0
    most = 0
    submit: Callable[..., Any] = client.submit

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal live, most
        live += 1
        most = max(most, live)
        future = submit(*arguments, **options)

        def ended(_: Any) -> None:
            nonlocal live
            live -= 1

        future.add_done_callback(ended)
        return future

    client.submit = counted  # type: ignore[method-assign]
    try:
        run(client, FakeJob("a", tmp_path, CountedPlan(40), seconds=0.002), window=3)
    finally:
        del client.submit
    assert most <= 3


@pytest.mark.parametrize(("seconds", "is_shared"), [(0.0, True), (tasks.TASK_S / 2 + 0.05, False)])
def test_short_units_share_tasks_until_the_image_comes_to_its_end(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, is_shared: bool
) -> None:
    sizes: list[int] = []
    submit: Callable[..., Any] = client.submit

    def noted(function: Any, *arguments: Any, **options: Any) -> Any:
        if function is tasks.in_turn:
            sizes.append(len(arguments[1]))
        return submit(function, *arguments, **options)

    monkeypatch.setattr(client, "submit", noted)
    n = 200 if is_shared else 6
    events = run(client, FakeJob("a", tmp_path, CountedPlan(n), seconds=seconds))
    keys = [event.receipt.key for event in events if event.receipt is not None]
    assert len(keys) == len(set(keys)) == n
    assert events[-1].result == n
    if is_shared:
        assert max(sizes) == running.MOST_UNITS
        assert sizes[-4:] == [1] * 4
    else:
        assert set(sizes) == {1}


def test_a_task_leaves_what_it_has_no_time_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "report_life", lambda: None)
    done: list[int] = []

    def work(one: SuperTile) -> int:
        done.append(one.ix)
        time.sleep(0.6 * tasks.TASK_S)
        if one.ix == 7:
            raise StageError("no")
        return one.ix

    assert tasks.in_turn(work, [unit(number) for number in range(5)]).results == (0, 1)
    *before, last = tasks.in_turn(work, [unit(7), unit(8)]).results
    assert not before
    assert isinstance(last, Failure)
    assert done == [0, 1, 7]


def test_units_that_a_task_had_no_time_for_are_done_later(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first units take no time, so that tasks are given many of those that take long."""
    monkeypatch.setattr(tasks, "TASK_S", 0.02)
    job = FakeJob("a", tmp_path, CountedPlan(120), seconds=0.011)
    monkeypatch.setattr(running.Running, "took", lambda self, seconds, units: setattr(self, "unit_s", 1e-4))
    events = run(client, job)
    keys = [event.receipt.key for event in events if event.receipt is not None]
    assert sorted(keys) == sorted(unit(number).key for number in range(120))


def test_the_next_image_is_prepared_as_soon_as_the_one_at_work_has_begun(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    submit: Callable[..., Any] = client.submit

    def noted(*arguments: Any, key: str, **options: Any) -> Any:
        steps.append(key.split("-")[1])
        return submit(*arguments, key=key, **options)

    monkeypatch.setattr(client, "submit", noted)
    run(client, *(FakeJob(name, tmp_path, CountedPlan(3)) for name in "abc"), window=1)
    first = ["prepare", "unit", "prepare", "unit", "unit", "finish"]
    assert steps == [*first, *first[1:], "unit", "unit", "unit", "finish"]


@dataclass(frozen=True)
class UnevenWork:
    journal: Journal

    def __call__(self, task: SuperTile) -> Receipt:
        time.sleep({4: 2.0, 5: 0.05}.get(task.ix, 0.3))
        return Receipt(key=task.key, recipe="r", outputs={}, tiles=1, worker=get_worker().address)


@dataclass(frozen=True)
class UnevenJob(FakeJob):
    def prepare(self) -> Prepared:
        return replace(super().prepare(), work=UnevenWork(Journal(root=self.root / self.key, recipe="r")))


def test_nothing_waits_behind_a_long_unit_while_another_worker_is_idle(tmp_path: Path) -> None:
    with (
        dask.config.set(QUIET),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0", memory_limit=0
        ) as cluster,
        Client(cluster) as two,
    ):
        events = run(two, UnevenJob("a", tmp_path, CountedPlan(8)))
    receipts = [event.receipt for event in events if event.receipt is not None]
    (long,) = (receipt for receipt in receipts if receipt.key == "L0-y0-x4")
    after = receipts[receipts.index(long) + 1 :]
    assert all(receipt.worker != long.worker for receipt in after)


def test_a_unit_leased_by_a_living_process_is_waited_for(client: Client, tmp_path: Path) -> None:
    job = FakeJob("a", tmp_path, CountedPlan(2))
    journal = job.prepare().work.journal
    lease = journal.claim("L0-y0-x1")
    kinds: list[str] = []

    def on_event(event: Event) -> None:
        kinds.append(event.kind)
        if event.kind == "unit" and kinds.count("unit") == 1:
            lease.__exit__()

    with lease:
        Engine(client, on_event).run([job])
    assert kinds == ["prepared", "unit", "unit", "finished"]


def test_the_more_units_others_hold_the_longer_each_is_left_alone(client: Client, tmp_path: Path) -> None:
    """Every idle member of an array asks the file server for each of them."""
    made, one = Engine(client, print), engine.Running(FakeJob("a", tmp_path, CountedPlan(1)))
    started = time.monotonic()
    for number in range(4 * engine.MOST_ASKED):
        made._receive(one, unit(number), Busy(key=""))
    waits = [at - started for at, _ in one.busy]
    assert engine.BUSY_WAIT_S <= waits[0] < 2 * engine.BUSY_WAIT_S
    assert waits[-1] > 3.5 * engine.BUSY_WAIT_S


def test_a_lease_of_a_dead_process_is_taken_at_once(tmp_path: Path) -> None:
    journal = Journal(root=tmp_path, recipe="r")
    lease = journal.claim("L0-y0-x0")
    assert lease is not None
    assert journal.claim("L0-y0-x0") is None
    path = tmp_path / "L0-y0-x0.lease"
    owner = json.loads(path.read_text())
    path.write_text(json.dumps({**owner, "started": owner["started"] - 100}))
    assert journal.claim("L0-y0-x0") is not None


def test_a_lease_of_another_host_lives_until_its_heartbeat_stops(tmp_path: Path) -> None:
    journal = Journal(root=tmp_path, recipe="r")
    path = tmp_path / "L0-y0-x0.lease"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0}))
    assert journal.claim("L0-y0-x0") is None
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    assert journal.claim("L0-y0-x0") is not None


@dataclass(frozen=True)
class HeavyWork:
    """Work that travels once a worker, one unit of which ends the process when it is done first."""

    journal: Journal
    flag: Path
    data: Any = field(repr=False)

    def __call__(self, task: SuperTile) -> Receipt:
        if task.ix == 1 and not self.flag.exists():
            self.flag.touch()
            os._exit(1)
        receipt = Receipt(key=task.key, recipe=self.journal.recipe, outputs={}, tiles=1)
        self.journal.commit(receipt)
        return receipt


def test_work_that_goes_down_with_the_only_worker_is_sent_again(tmp_path: Path) -> None:
    journal = Journal(root=tmp_path / "receipts", recipe="r")
    journal.open({"made": "by a test"})
    work: Any = HeavyWork(journal, tmp_path / "flag", np.zeros(2 * engine.LARGE_BYTES, np.uint8))
    prepared = Prepared(plan=CountedPlan(4), work=work, finish=Finish(journal))
    events: list[Event] = []
    with open_client("local:1") as processes:
        Engine(processes, events.append).run([Ready(key="large", prepared=prepared)])
    assert (events[-1].kind, events[-1].result) == ("finished", 4), events[-1].failure
