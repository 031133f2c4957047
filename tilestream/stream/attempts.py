"""One stage on the batches of one unit: begun early, halved when memory is short, and only guilty tiles left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from tilestream.errors import StageError, TilestreamError
from tilestream.metrics import count, stage_step, timed
from tilestream.stream.faults import Fault, fault_of, lost, reason_of
from tilestream.types import Array, Batch, DeviceStage, ImageInfo, Pending, Stage

Accept: TypeAlias = Callable[[Array, Batch], Array]
"""Returns what a stage gave for a batch as it is kept; raises `StageError` where it cannot be that."""

Started: TypeAlias = list[tuple[Batch, Pending]]
"""A batch that a stage has begun with, in pieces that it has memory for."""

_most: dict[str, int] = {}
"""Stage → most tiles that this process has memory for."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of some tiles."""

    batch: Batch
    """The tiles."""
    found: Array | None
    """What the stage gave; None for a tile on which it raises."""
    reason: str = ""
    """Why there is nothing."""


@dataclass(kw_only=True)
class RunningStage:
    """Runs one stage for one task and counts what it cannot do.

    A batch on which the stage raises is halved until the tiles are found that are to blame. So is one that there is no
    memory for; that size is remembered for the process. Vectors stay the same to the bit where the stage gives a tile
    the same vector in any batch.
    """

    name: str
    """Its name, under which seconds are told."""
    stage: Stage
    """The stage."""
    accept: Accept
    """Looks at what it gives."""
    _tried: int = field(default=0, init=False)
    _failed: int = field(default=0, init=False)
    _reason: str = field(default="", init=False)

    @property
    def is_on_device(self) -> bool:
        """Return whether it computes beside the host in this process."""
        return isinstance(self.stage, DeviceStage) and self.stage.device != "cpu"

    def start(self, batch: Batch) -> Started:
        """Begin with a batch, whose memory must stay as it is until `finish` has returned."""
        return [(piece, self._begin(piece)) for piece in _pieces(batch, _most.get(self._key, len(batch.rows)))]

    def finish(self, started: Started) -> list[Done]:
        """Return what became of the tiles of a batch that was begun.

        Parameters
        ----------
        started : list
            What `start` has returned; each once, in that order. What was taken of it is taken out.

        Returns
        -------
        list of Done
            Together all tiles of the batch.

        Raises
        ------
        StageError
            When there is no memory for one tile, or the process cannot use its device any more.
        """
        done: list[Done] = []
        while started:
            batch, pending = started.pop(0)
            try:
                with timed(stage_step(self.name)):
                    found = self.accept(pending(), batch)
            except Exception as error:  # noqa: BLE001 - whatever a user's callable raises has to be told by tile
                done += self._again(batch, error)
            else:
                self._tried += len(batch.rows)
                done.append(Done(batch=batch, found=found))
        return done

    def require_alive(self, black: Batch) -> None:
        """Raise when the stage has failed on a tile and fails on a black one too: then it is the stage.

        Parameters
        ----------
        black : Batch
            One black tile of the size and type of the others; every stage has done one when it was planned with.

        Raises
        ------
        StageError
            With the reason of the last tile. Where the black tile is done the others are to blame, be it all of them.
        """
        if self._failed:
            told = f"{self._reason}, on {self._failed} of {self._tried} tiles of a super-tile"
            self.require(black, told=f"{told} and now on a black one")

    def require(self, black: Batch, told: str = "") -> None:
        """Raise `StageError` unless the stage does a black tile.

        Parameters
        ----------
        black : Batch
            One black tile.
        told : str
            What to say that was got, instead of what the black tile gives.
        """
        (done,) = self.finish(self.start(black))
        if done.found is None:
            _, channels, height, width = black.pixels.shape
            what = f"one black tile (1, {channels}, {height}, {width}) of {black.pixels.dtype}"
            raise StageError.of(
                f"stage `{self.name}`",
                got=told or f"{done.reason}, on {what}",
                expected="a result for each tile",
                do=f"Run the callable on {what} by itself.",
            )

    @cached_property
    def _key(self) -> str:
        return f"{self.name} {self.stage!r}"

    def _begin(self, batch: Batch) -> Pending:
        try:
            with timed(stage_step(self.name)):
                if isinstance(self.stage, DeviceStage):
                    return self.stage.start(batch)
                found = self.stage(batch)
        except Exception as error:  # noqa: BLE001 - told where the result is taken
            return _raises(error)
        return lambda: found

    def _again(self, batch: Batch, error: Exception) -> list[Done]:
        """Return what becomes of a batch that raised, in halves; a single tile is failed."""
        if isinstance(error, TilestreamError) and not isinstance(error, StageError):
            raise error
        fault, tiles = fault_of(error), len(batch.rows)
        if fault is Fault.LOST:
            raise lost(reason_of(error)) from error
        if tiles == 1:
            return [self._fail(batch, error, fault)]
        half = -(-tiles // 2)
        if fault is Fault.MEMORY:
            count("batch_halved")
            _most[self._key] = min(half, _most.get(self._key, half))
        return [done for piece in _pieces(batch, half) for done in self.finish(self.start(piece))]

    def _fail(self, batch: Batch, error: Exception, fault: Fault) -> Done:
        reason = reason_of(error)
        if fault is Fault.MEMORY:
            raise StageError.of(
                f"memory for stage `{self.name}`",
                got=reason,
                expected=f"room for one tile {batch.pixels.shape[1:]}",
                do="Run fewer tasks in a process, or take a smaller tile or model.",
            ) from error
        self._tried, self._failed, self._reason = self._tried + 1, self._failed + 1, reason
        return Done(batch=batch, found=None, reason=reason)


@contextmanager
def waited_for(under_way: Iterable[tuple[Batch, Sequence[Started]]]) -> Iterator[None]:
    """Wait, where the block raises, for the batches that were begun: a device may still read their memory.

    Parameters
    ----------
    under_way : iterable
        Batches, each with what its stages have begun; looked at when the block has ended.

    Yields
    ------
    None
        Nothing.
    """
    try:
        yield
    except BaseException:
        for _, begun in under_way:
            for _, pending in (piece for started in begun for piece in started):
                with suppress(Exception):
                    pending()
        raise


def _pieces(batch: Batch, most: int) -> list[Batch]:
    """Return a batch in pieces of at most so many tiles, views of its memory."""
    tiles = len(batch.rows)
    if tiles <= most:
        return [batch]
    return [_part(batch, slice(first, first + most)) for first in range(0, tiles, most)]


def _part(batch: Batch, part: slice) -> Batch:
    return replace(
        batch,
        pixels=batch.pixels[part],
        valid=None if batch.valid is None else batch.valid[part],
        valid_share=batch.valid_share[part],
        rows=batch.rows[part],
        tile_yx=batch.tile_yx[part],
    )


def _raises(error: Exception) -> Pending:
    def pending() -> Array:
        raise error

    return pending


def black_batch(image: ImageInfo, *, tile_px: int, halo_px: int = 0) -> Batch:
    """Return one black tile, on which every stage has to work.

    Parameters
    ----------
    image : ImageInfo
        Says channels and type.
    tile_px : int
        Edge of the core.
    halo_px : int
        Overlap on each side.

    Returns
    -------
    Batch
        Of one tile, all valid.
    """
    edge_px = tile_px + 2 * halo_px
    return Batch(
        pixels=np.zeros((1, edge_px, edge_px, len(image.channels)), image.dtype).transpose(0, 3, 1, 2),
        valid=None,
        valid_share=np.ones(1, np.float32),
        rows=np.zeros(1, np.int64),
        tile_yx=np.zeros((1, 2), np.int64),
        halo_px=halo_px,
    )


def vectors_of(name: str, dim: int) -> Accept:
    """Return what looks at the vectors of a stage.

    Parameters
    ----------
    name : str
        The stage.
    dim : int
        Length of its vectors.

    Returns
    -------
    callable
        Gives float32 vectors `(n, dim)`; raises `StageError` for anything else.
    """

    def accept(found: Array, batch: Batch) -> Array:
        vectors = np.asarray(found, np.float32)
        if vectors.shape != (len(batch.rows), dim):
            raise StageError.of(
                f"output of stage `{name}`",
                got=f"shape {vectors.shape}",
                expected=f"({len(batch.rows)}, {dim})",
                do="Return one vector a tile, all of one length.",
            )
        return vectors

    return accept


__all__ = ["Done", "RunningStage", "Started", "black_batch", "vectors_of", "waited_for"]
