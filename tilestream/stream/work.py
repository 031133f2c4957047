"""What a worker does with one super-tile: read, stages, write, receipt."""

from __future__ import annotations

import inspect
import json
import math
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilestream.cache.tally import NAMES as CACHE_COUNTS
from tilestream.errors import ConfigError
from tilestream.metrics import Meter, collect, timed
from tilestream.pyramid.keeping import DECODED
from tilestream.pyramid.pyramid import Pyramid
from tilestream.registry import STAGES, resolve, weights_stamp
from tilestream.sources.stamps import Stamp, require_unchanged
from tilestream.stream import halt
from tilestream.stream.attempts import Done, RunningStage, Started, black_batch, vectors_of, waited_for
from tilestream.stream.batches import Outcome, new_outcome
from tilestream.stream.faults import hold_if_lost
from tilestream.stream.journal import Journal
from tilestream.stream.supply import decode_threads, supplied, usable_cores
from tilestream.types import (
    Array,
    Batch,
    DeviceStage,
    ImageInfo,
    Receipt,
    Sink,
    Stage,
    StageSpec,
    SuperTile,
    TileStatus,
)


@dataclass(frozen=True, kw_only=True)
class Busy:
    """Another run holds the lease of the unit; ask again later."""

    key: str
    """Key of the super-tile."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A unit that another run has finished meanwhile."""

    receipt: Receipt
    """Its receipt, as it lay on disk."""


@dataclass(frozen=True, kw_only=True)
class Again:
    """Units whose outputs are not what their receipts say, found when the image was to be finished."""

    keys: tuple[str, ...]
    """Their keys; their receipts are gone."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A unit, or the opening or finish of an image, that raised; returned, since a worker's log is not a report."""

    reason: str
    """The error's text."""
    expected: bool = True
    """Whether it is one of our own errors; False prints the traceback in the report."""
    trace: str = ""
    """Traceback of an error that nobody foresaw."""


class Work(Protocol):
    """Does any unit of one image; picklable and small."""

    @property
    def journal(self) -> Journal:
        """Return what takes the receipts and gives the leases."""

    def __call__(self, unit: Any) -> Receipt | Found | Busy:
        """Return the receipt of a unit."""


def once(journal: Journal, key: str, run: Callable[[], Receipt]) -> Receipt | Found | Busy:
    """Return the receipt of a unit, done by this call unless another run has done it or is at it.

    Parameters
    ----------
    journal : Journal
        Holds the receipts and gives the leases.
    key : str
        Key of the unit.
    run : callable
        Does it and commits its receipt.

    Returns
    -------
    Receipt, Found or Busy
        `Found` when another run has finished it meanwhile, `Busy` when another run is at it.
    """
    # First without a lease: of several runs each comes by all that the others have done. On object storage a claim asks
    # no more of the service than this look.
    done = journal.receipt(key) if journal.place.is_local else None
    if done is not None:
        return Found(receipt=done)
    lease = journal.claim(key)
    if lease is None:
        return Busy(key=key)
    with lease, halt.working_on(journal.place.url):
        done = journal.receipt(key)
        return Found(receipt=done) if done is not None else run()


@dataclass(frozen=True, kw_only=True)
class TileWork:
    """Runs stages on the tiles of any unit of one image; picklable and small."""

    pyramid: Pyramid
    """The image."""
    stages: Mapping[str, StageSpec]
    """Stage by the name under which its vectors are stored."""
    sink: Sink
    """Takes the rows."""
    means: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    """Scalars that are means of some values of a stage's vectors: stage and positions by their name."""
    scored: str | None = None
    """Scalar, or stage of one output, that receipts carry as scores, by which a plan goes on; None for other plans."""
    journal: Journal
    """Takes the receipts and gives the leases."""
    batch: int = 64
    """Most tiles that enter a stage together."""
    stamps: tuple[Stamp, ...] = ()
    """Files of the image as they were when it was opened."""
    tasks: int = sys.maxsize
    """Tasks that share the cores of a machine; threads decode ahead on those that are left. By default none are."""

    def __call__(self, unit: SuperTile) -> Receipt | Found | Busy:
        """Return the receipt of the unit.

        Parameters
        ----------
        unit : SuperTile
            What to do.

        Returns
        -------
        Receipt, Found or Busy
            `Found` when another run has finished it meanwhile, `Busy` when another run is at it.

        Raises
        ------
        SourceError
            When a file of the image was changed during the run.
        StageError
            When a stage is broken, rather than some of the tiles.
        """
        return once(self.journal, unit.key, lambda: self._run(unit))

    def _run(self, unit: SuperTile) -> Receipt:
        hold_if_lost()
        with collect() as meter:
            try:
                results, outcome = self._results(unit)
            finally:  # after reading: no pixel is younger than the look, which explains much of what reading raises
                require_unchanged(self.stamps)
            with timed("write"):
                outputs = self.sink.write(unit, results)
            meter.counts["failed"] = sum(
                int(np.count_nonzero(results[f"{name}/status"] == TileStatus.FAILED)) for name in self.stages
            )
        receipt = _receipt(unit, self.journal.recipe, outputs, outcome, meter)
        if self.scored is not None:
            receipt = replace(receipt, scores=_scores(results[self.scored]))
        self.journal.commit(receipt)
        return receipt

    def _results(self, unit: SuperTile) -> tuple[dict[str, Array], Outcome]:
        n = len(unit.tile_yx)
        outcome = new_outcome(unit)
        running = {name: _running(name, spec, self.pyramid.info) for name, spec in self.stages.items()}
        vectors = {name: np.full((n, dim), np.nan, np.float32) for name, (_, dim) in running.items()}

        def keep(name: str, done: Done) -> None:
            if done.found is None:
                outcome.fail(f"`{name}`: {done.reason}", done.batch.rows.tolist())
            else:
                vectors[name][done.batch.rows - unit.first_row] = done.found

        self._run_stages(unit, outcome, [stage for stage, _ in running.values()], keep)
        share = np.ones(n, np.float32) if unit.share is None else unit.share
        results: dict[str, Array] = {"status": outcome.status, "valid": outcome.valid_share, "tissue": share}
        results |= unit.known
        for name, found in vectors.items():
            results[name], results[f"{name}/status"] = found, _judged(name, found, unit, outcome)
        for name, (of, columns) in self.means.items():
            results[name] = vectors[of][:, columns].mean(axis=1, dtype=np.float64).astype(np.float32)
        return results, outcome

    def _run_stages(
        self, unit: SuperTile, outcome: Outcome, stages: Sequence[RunningStage], keep: Callable[[str, Done], None]
    ) -> None:
        """Run all stages on all batches; those on a device begin first and one batch ahead of the others."""
        device = next((one.stage for one in stages if one.is_on_device and isinstance(one.stage, DeviceStage)), None)
        ordered = sorted(stages, key=lambda one: not one.is_on_device)
        threads = decode_threads(cores=usable_cores(), tasks=self.tasks, on_device=device is not None)
        under_way: deque[tuple[Batch, list[Started]]] = deque()
        source = supplied(self.pyramid, unit, outcome, batch=self.batch, threads=threads, device=device)
        with source as supply, waited_for(under_way):
            while True:
                halt.look()
                batch = supply.take()
                if batch is not None:
                    under_way.append((batch, [one.start(batch) for one in ordered]))
                if len(under_way) > (1 if device is not None and batch is not None else 0):
                    oldest, started = under_way[0]
                    for one, begun in zip(ordered, started, strict=True):
                        for done in one.finish(begun):
                            keep(one.name, done)
                    under_way.popleft()
                    supply.give_back(oldest)
                elif batch is None:
                    break
        black = black_batch(self.pyramid.info, tile_px=unit.tile_px, halo_px=unit.halo_px)
        for one in stages:
            one.require_alive(black)


def _running(name: str, spec: StageSpec, image: ImageInfo) -> tuple[RunningStage, int]:
    stage = make_stage(spec)
    dim = len(stage.output_names(image))
    return RunningStage(name=name, stage=stage, accept=vectors_of(name, dim)), dim


def _judged(name: str, vectors: Array, unit: SuperTile, outcome: Outcome) -> npt.NDArray[np.uint8]:
    """Return the status of a stage's tiles, and clear what is not finite in one of its values."""
    status = outcome.status.copy()
    bad = ~np.isfinite(vectors).all(axis=1) & (status == TileStatus.OK)
    vectors[bad], status[bad] = np.nan, TileStatus.FAILED
    told = {row for reason, rows in outcome.failed.items() if reason.startswith(f"`{name}`: ") for row in rows}
    silent = [row for row in (np.flatnonzero(bad) + unit.first_row).tolist() if row not in told]
    outcome.fail(f"`{name}`: values that are not finite", silent)
    return status


def _scores(values: Array) -> tuple[float | None, ...]:
    """Return one score a tile, None for one that has none since it is empty, damaged or failed."""
    return tuple(value if math.isfinite(value) else None for value in values.reshape(-1).tolist())


def make_stage(spec: StageSpec) -> Stage:
    """Return the stage of a spec; made once a process and kept, since weights can be large.

    Parameters
    ----------
    spec : StageSpec
        Target and parameters.

    Returns
    -------
    Stage
        The same object for the same spec, until the file of its weights changes.

    Raises
    ------
    ConfigError
        When it cannot be made in this process, or has parameters that cannot travel.
    """
    try:
        params = json.dumps(dict(spec.params), sort_keys=True)
    except TypeError as error:
        raise ConfigError.of(
            f"parameters of `{spec.target}`",
            got=str(error),
            expected="JSON values, which reach every worker and belong to the recipe",
            do="Name a file or a number instead of the object, and make it in the callable.",
        ) from error
    return _stage(spec.target, params, weights_stamp(spec.params))


@lru_cache(maxsize=16)
def _stage(target: str, params: str, stamp: tuple[int, int] | None) -> Stage:
    del stamp  # a part of the key
    factory = resolve(target, table=STAGES, group="tilestream.stages")
    given = json.loads(params)
    try:
        inspect.signature(factory).bind(**given)
    except TypeError as error:
        raise ConfigError.of(
            f"parameters of `{target}`",
            got=f"{sorted(given)} ({error})",
            expected=f"some of {list(inspect.signature(factory).parameters)}",
            do="Leave out what it does not take.",
        ) from error
    made: Stage = factory(**given)
    return made


def _receipt(unit: SuperTile, recipe: str, outputs: Mapping[str, str], outcome: Outcome, meter: Meter) -> Receipt:
    seconds = dict(meter.seconds)
    # Supply contains reading and decoding; what is left of it is gathering, so that the parts add up.
    seconds["gather"] = max(0.0, seconds.pop("supply", 0.0) - seconds.get("read", 0.0) - seconds.get("decode", 0.0))
    return Receipt(
        key=unit.key,
        recipe=recipe,
        outputs=dict(outputs),
        tiles=len(unit.tile_yx),
        damaged={reason: tuple(sorted(rows)) for reason, rows in outcome.damaged.items()},
        failed={reason: tuple(sorted(rows)) for reason, rows in outcome.failed.items()},
        counts={
            "empty": int(np.count_nonzero(outcome.status == TileStatus.EMPTY)),
            "failed": meter.counts.get("failed", 0),
            **{name: meter.counts[name] for name in ("batch_halved",) if name in meter.counts},
            **{
                name: amount
                for name, amount in meter.counts.items()
                if name in CACHE_COUNTS or name.startswith(DECODED)
            },
        },
        bytes_read=meter.counts.get("bytes_read", 0),
        seconds={name: round(value, 6) for name, value in seconds.items()},
        worker=f"{socket.gethostname()}:{os.getpid()}",
    )
