"""Windows of decoded tiles: threads of this process fill the next one while tiles are taken from the present one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tilestream.sources.stamps import Stamp, require_unchanged
from tilestream.stream.batches import Slots, UnitReader, new_outcome
from tilestream.torch.order import EpochOrder, Piece
from tilestream.torch.records import PlannedImage
from tilestream.types import Array, Batch, TileStatus

MOST_TILES = 128
"""Tiles that one thread reads at a time: a quarter of a usual window, so that several threads share one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedPiece:
    """The tiles of a piece that could be decoded."""

    image: int
    """Place in the list of images."""
    batch: Batch | None
    """The tiles; None where there is none."""
    at: npt.NDArray[np.int64]
    """`(tiles of the piece,)` place in `batch`; -1 for a tile that is left out."""
    left_out: Counter[str]
    """Tiles that are left out, by reason."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Decoded tiles in the order of the line."""

    pieces: Sequence[DecodedPiece]
    """What was read."""
    piece_of: npt.NDArray[np.int64]
    """`(tiles,)` piece of each tile."""
    at: npt.NDArray[np.int64]
    """`(tiles,)` place in the batch of the piece; -1 for a tile that is left out."""


class WindowReader:
    """Reads the windows of one share, one ahead; to be closed.

    Parameters
    ----------
    images : sequence of PlannedImage
        The images.
    order : EpochOrder
        Says what is in a window.
    threads : int
        Threads that decode.
    stamps : sequence of tuple of Stamp
        Files of each image as they were when training began.

    Notes
    -----
    Two windows of pixels are in memory, used again and again: fresh pages would cost as much as copying does.
    """

    def __init__(
        self, images: Sequence[PlannedImage], order: EpochOrder, threads: int, stamps: Sequence[tuple[Stamp, ...]]
    ) -> None:
        self._images = images
        self._stamps = stamps
        self._order = order
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tilestream-decode")
        self._memory: list[Array] = [np.empty(0, np.uint8)] * 2
        self._pending: dict[int, list[Future[DecodedPiece]]] = {}
        self._turn = 0

    def take(self, number: int) -> Window:
        """Return a window and begin with the one after it; the window taken before is overwritten.

        Parameters
        ----------
        number : int
            Which; after the last comes the first again.

        Returns
        -------
        Window
            Its tiles.
        """
        self._begin(number)
        pieces = [future.result() for future in self._pending.pop(number)]
        if self._order.windows > 1:
            self._begin((number + 1) % self._order.windows)
        return Window(
            pieces=pieces,
            piece_of=np.repeat(np.arange(len(pieces)), [len(piece.at) for piece in pieces]),
            at=np.concatenate([piece.at for piece in pieces]),
        )

    def close(self) -> None:
        """Wait for the threads; what they have not begun is left."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, number: int) -> None:
        if number in self._pending:
            return
        self._pending.clear()  # of another window than the next: nobody wants it
        pieces = self._order.pieces(number, MOST_TILES)
        tile_bytes = _tile_bytes(self._images[0])
        needed = sum(len(piece.tiles) for piece in pieces) * tile_bytes
        self._turn = 1 - self._turn
        if self._memory[self._turn].size < needed:
            self._memory[self._turn] = np.empty(needed, np.uint8)
        memory, first = self._memory[self._turn], 0
        futures = []
        for piece in pieces:
            own = memory[first : first + len(piece.tiles) * tile_bytes]
            image, stamps = self._images[piece.image], self._stamps[piece.image]
            futures.append(self._pool.submit(_decode, image, piece, own, stamps))
            first += own.size
        self._pending[number] = futures


def _tile_bytes(image: PlannedImage) -> int:
    grid, pyramid = image.plan.grid, image.pyramid
    return (grid.tile_px + 2 * grid.halo_px) ** 2 * len(pyramid.channels) * pyramid.dtype.itemsize


def _decode(
    image: PlannedImage, piece: Piece, memory: npt.NDArray[np.uint8], stamps: tuple[Stamp, ...]
) -> DecodedPiece:
    unit = image.plan.unit(piece.iy, piece.ix)
    own = slice(piece.tiles.start, piece.tiles.stop)
    part = replace(
        unit,
        first_row=unit.first_row + own.start,
        tile_yx=unit.tile_yx[own],
        share=None if unit.share is None else unit.share[own],
        corner_yx=None if unit.corner_yx is None else unit.corner_yx[own],
    )
    outcome = new_outcome(part)
    reader = UnitReader(image.pyramid, part, outcome)
    try:
        batch = reader.read(0, len(part.tile_yx), Slots(lambda nbytes: memory[:nbytes]))
    finally:  # after reading: no pixel is younger than the look, which explains much of what reading raises
        reader.close()
        require_unchanged(stamps)
    at = np.full(len(part.tile_yx), -1, np.int64)
    if batch is not None:
        at[batch.rows - part.first_row] = np.arange(len(batch.rows))
    left_out: Counter[str] = Counter()
    for reason, rows in outcome.damaged.items():
        left_out[reason] += len(rows)
    left_out["no valid pixel"] += int(np.count_nonzero(outcome.status == TileStatus.EMPTY))
    return DecodedPiece(image=piece.image, batch=batch, at=at, left_out=+left_out)
