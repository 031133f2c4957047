"""One pass over the tiles of an epoch: a thread puts batches together ahead of whoever trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, Self

import numpy as np
import torch

from tilestream.errors import ConfigError, DamagedError
from tilestream.sources.stamps import Stamp
from tilestream.torch.order import EpochOrder
from tilestream.torch.records import PlannedImage, TileBatch
from tilestream.torch.sending import CudaSender, HostSender, new_sender
from tilestream.torch.windows import Window, WindowReader
from tilestream.types import Array

AHEAD = 2
"""Batches that wait for whoever trains."""
LOOK_S = 0.1
"""How often a thread looks whether it is still wanted."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """How far an epoch has gone: where the first tile stands that was not shown."""

    batch: int = 0
    """Batches shown."""
    window: int = 0
    """The window."""
    tile: int = 0
    """Place in its shuffled order."""
    repeated: int = 0
    """Tiles shown a second time, in place of those left out."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Tiles that could not be shown, by reason."""
    is_again: bool = False
    """Whether all tiles were shown, and they come a second time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FeedSupply:
    """Where tiles and labels come from; the same in all epochs."""

    images: Sequence[PlannedImage]
    """The images."""
    labels: Sequence[Array] | None
    """As `labels_of` gives them."""
    stamps: Sequence[tuple[Stamp, ...]]
    """Files of each image as they were when training began."""
    threads: int
    """Threads that decode."""


@dataclass(frozen=True)
class _Made:
    """A batch, and the place behind it."""

    batch: TileBatch
    wait: Callable[[], None]
    place: Place


@dataclass(frozen=True)
class _Ended:
    """Nothing comes any more."""

    error: BaseException | None


class TileFeed:
    """The batches of one epoch from some place on; an iterator.

    Parameters
    ----------
    supply : FeedSupply
        Where tiles and labels come from.
    order : EpochOrder
        Which tiles, in which order.
    place : Place
        Where to begin.
    device : torch.device
        Where batches are wanted.
    transform : callable, optional
        Applied to each batch.
    """

    def __init__(
        self,
        supply: FeedSupply,
        order: EpochOrder,
        place: Place,
        *,
        device: torch.device,
        transform: Callable[[TileBatch], Any] | None,
    ) -> None:
        self.order = order
        self.place = place
        self._transform = transform
        self._is_over = False
        self._queue: Queue[_Made | _Ended] = Queue(AHEAD)
        self._stop = Event()
        maker = _Maker(supply, order, new_sender(device))
        new_reader = partial(WindowReader, supply.images, order, supply.threads, supply.stamps)
        work = partial(_serve, maker, place, new_reader, self._queue, self._stop)
        # a daemon: an interpreter that ends does not wait for batches that nobody takes
        self._thread = Thread(target=work, name="tilestream-feed", daemon=True)
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._is_over:
            raise StopIteration
        if self._stop.is_set():
            raise ConfigError.of(
                "an iteration over a `TileDataset`",
                got="one that another has taken the place of",
                expected="one at a time",
                do="Make a second data set to go through the tiles twice at once.",
            )
        found = self._queue.get()
        if isinstance(found, _Ended):
            self._is_over = True
            self.close()
            if found.error is not None:
                raise found.error
            raise StopIteration
        found.wait()
        self.place = found.place
        return found.batch if self._transform is None else self._transform(found.batch)

    def close(self) -> None:
        """End the threads; the place stays."""
        self._stop.set()
        self._thread.join()

    def __del__(self) -> None:
        if hasattr(self, "_stop"):
            self._stop.set()  # the thread sees it by itself; nothing is waited for here


class _Maker:
    """Puts batches together, in one thread."""

    def __init__(self, supply: FeedSupply, order: EpochOrder, sender: HostSender | CudaSender) -> None:
        self._images = supply.images
        self._labels = supply.labels
        self._order = order
        self._sender = sender

    def make(self, place: Place, reader: WindowReader) -> Iterator[_Made]:
        """Yield all batches from a place on."""
        draft, order = self._draft(), self._order
        # a place behind the last window: with `keep`, tiles that were left out can be missing from the last batches
        while place.batch < order.batches and place.window < order.windows:
            window, shown = reader.take(place.window), order.shuffled(place.window)
            place = _counted(place, window)
            while place.tile < len(shown) and place.batch < order.batches:
                place = _filled(draft, place, window, shown)
                if draft.is_full:
                    place = replace(place, batch=place.batch + 1)
                    yield self._made(draft, place)
                    draft = self._draft()
            place = replace(place, window=place.window + 1, tile=0)
            if place.window < order.windows or place.batch >= order.batches:
                continue
            if order.ends == "keep":  # what was left out is not replaced
                if draft.filled:
                    yield self._made(draft, replace(place, batch=place.batch + 1))
                return
            if place.is_again and not place.repeated:
                raise _nothing(place)
            place = replace(place, window=0, is_again=True)

    def _draft(self) -> _Draft:
        pyramid, grid = self._images[0].pyramid, self._images[0].plan.grid
        n, edge = self._order.batch, grid.tile_px + 2 * grid.halo_px
        return _Draft(
            pixels=self._sender.buffer((n, edge, edge, len(pyramid.channels)), pyramid.dtype.newbyteorder("=")),
            image=np.empty(n, np.int64),
            row=np.empty(n, np.int64),
            yx=np.empty((n, 2), np.int64),
            valid_share=np.empty(n, np.float32),
        )

    def _made(self, draft: _Draft, place: Place) -> _Made:
        n = draft.filled
        known = [draft.image[:n], draft.row[:n], draft.yx[:n], draft.valid_share[:n]]
        if self._labels is not None:
            pairs = zip(draft.image[:n].tolist(), draft.row[:n].tolist(), strict=True)
            own = [(self._labels[image], row) for image, row in pairs]
            known.append(np.stack([labels[row if len(labels) > 1 else 0] for labels, row in own]))
        sent = self._sender.send(draft.pixels[:n], *known)
        image, row, yx, valid_share, *label = sent.others
        batch = TileBatch(
            pixels=sent.pixels,
            label=label[0] if label else None,
            image=image,
            row=row,
            yx=yx,
            valid_share=valid_share,
            seed=self._order.seed_of(place.batch - 1),
        )
        return _Made(batch, sent.wait, place)


@dataclass
class _Draft:
    """A batch that is being filled."""

    pixels: Array
    image: Array
    row: Array
    yx: Array
    valid_share: Array
    filled: int = 0

    @property
    def is_full(self) -> bool:
        return self.filled == len(self.pixels)

    def add(self, window: Window, tile: int) -> None:
        piece, at, n = window.pieces[window.piece_of[tile]], window.at[tile], self.filled
        assert piece.batch is not None
        self.pixels[n] = piece.batch.pixels[at].transpose(1, 2, 0)
        self.image[n], self.row[n], self.yx[n] = piece.image, piece.batch.rows[at], piece.batch.tile_yx[at]
        self.valid_share[n] = piece.batch.valid_share[at]
        self.filled += 1


def _filled(draft: _Draft, place: Place, window: Window, shown: Array) -> Place:
    """Return the place behind the tiles that a draft has taken from a window."""
    number, repeated = place.tile, place.repeated
    while number < len(shown) and not draft.is_full:
        if window.at[shown[number]] >= 0:
            draft.add(window, int(shown[number]))
            repeated += place.is_again
        number += 1
    return replace(place, tile=number, repeated=repeated)


def _counted(place: Place, window: Window) -> Place:
    """Return a place that knows what a window leaves out; each is counted once, when it is entered."""
    if place.is_again or place.tile:
        return place
    left_out = sum((piece.left_out for piece in window.pieces), Counter(place.left_out))
    return replace(place, left_out=dict(sorted(left_out.items())))


def _nothing(place: Place) -> DamagedError:
    reasons = "; ".join(f"{count} tiles: {reason}" for reason, count in list(place.left_out.items())[:3])
    return DamagedError(f"none of the tiles that this process is to show can be read ({reasons})")


def _serve(
    maker: _Maker, place: Place, new_reader: Callable[[], WindowReader], queue: Queue[_Made | _Ended], stop: Event
) -> None:
    """Put batches into a queue until there are no more, or nobody wants them."""
    error: BaseException | None = None
    try:
        with closing(new_reader()) as reader:
            for made in maker.make(place, reader):
                if not _put(queue, made, stop):
                    return
    except BaseException as raised:  # noqa: BLE001 - it is raised where batches are taken
        error = raised
    _put(queue, _Ended(error), stop)


def _put(queue: Queue[_Made | _Ended], item: _Made | _Ended, stop: Event) -> bool:
    while not stop.is_set():
        try:
            queue.put(item, timeout=LOOK_S)
        except Full:
            continue
        return True
    return False
