"""What a worker does with one tile of a store of fields: read it, fit a field, measure that, write it; the receipt."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from tilestream.codecs.constanttile import KIND as CONSTANT
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.metadata import is_fill
from tilestream.codecs.tilecodec import TileCodec, unpack_tile
from tilestream.codecs.tilequality import level_errors, weighed_error
from tilestream.metrics import Meter, collect, timed
from tilestream.models.runners import one_torch_thread
from tilestream.pipelines.compress_layout import FieldPlan, reduced_level
from tilestream.pipelines.compress_measure import measures_of
from tilestream.pipelines.ingest_work import IngestWork, Member, unit_seconds
from tilestream.pyramid.pyramid import Pyramid
from tilestream.relevance.emphasis import Emphasis
from tilestream.sinks.fieldstore import valid_layout
from tilestream.sinks.layout import halved
from tilestream.sinks.members import StoreUnit
from tilestream.sinks.omelabels import VALID
from tilestream.sinks.pyramid import LevelWriter
from tilestream.sinks.tiling import Tiling
from tilestream.sources.stamps import require_unchanged
from tilestream.stream import halt
from tilestream.stream.faults import hold_if_lost
from tilestream.types import Array, Box, Receipt, Shape

FIT, MEASURE = "fit", "measure"
"""Steps of a tile that take time, beside those of any other store."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep a fit on the thread that calls it, where torch may be what computes it: tasks are what runs in parallel."""
    with one_torch_thread() if find_spec("torch") is not None else nullcontext():
        yield


@dataclass(frozen=True, kw_only=True)
class FieldMember(Member):
    """An image that is stored as fields."""

    @property
    def plan(self) -> FieldPlan:
        """Return its tiles."""
        return FieldPlan(layout=self.writer.layout)


@dataclass(frozen=True, kw_only=True)
class TilePixels:
    """The pixels that a field is fitted to."""

    pixels: Array
    """`(c, y, x)`, 0 where not valid."""
    valid: npt.NDArray[np.bool_] | None
    """`(y, x)`; None where everything is valid."""
    damage: tuple[str, ...] = ()
    """Reason of each damaged block."""


def read_tile(pyramid: Pyramid, box: Box) -> TilePixels:
    """Return the pixels of a tile, as they are stored or reduced from what is.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    box : Box
        The tile, cut to the image; its level need not be stored.

    Returns
    -------
    TilePixels
        Memory is that of the tile, and of one part of what it is reduced from.
    """
    source = reduced_level(pyramid.info, box.level)
    pixels = np.empty((*box.shape.yx, len(pyramid.channels)), pyramid.dtype)
    valid = np.ones(box.shape.yx, np.bool_)
    filled = pyramid.read_plan(source, replace(box, level=source.stored), pixels, valid)
    is_whole = filled.is_whole
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        valid &= np.isfinite(pixels).all(axis=2)
        pixels[~valid], is_whole = 0, False
    return TilePixels(
        pixels=pixels.transpose(2, 0, 1), valid=None if is_whole or valid.all() else valid, damage=filled.damage
    )


@dataclass(frozen=True, kw_only=True)
class CompressWork(IngestWork):
    """Writes any tile of a store of fields; picklable and small."""

    codec: TileCodec
    """What makes bytes of pixels."""
    tiling: Tiling
    """Of the image."""
    emphasis: Emphasis | None = None
    """How much errors count where; None = alike."""

    @property
    def mask(self) -> LevelWriter:
        """Return the writer of the image's validity, where a reader needs it."""
        layout = valid_layout(self.image.info, tiling=self.tiling)
        return LevelWriter(place=self.staging, prefix=f"labels/{VALID.name}/", layout=layout)

    def _run(self, unit: StoreUnit) -> Receipt:
        hold_if_lost()
        plan = FieldPlan(layout=self.image.writer.layout)
        with collect() as meter:
            try:
                with timed("supply"):
                    tile = read_tile(self.image.pyramid, plan.box(unit))
            finally:
                require_unchanged(self.stamps)
            halt.look()  # a fit takes long: not one more when the run was told to stop
            outputs, measures = self._put(unit, tile, meter)
        receipt = Receipt(
            key=unit.key,
            recipe=self.journal.recipe,
            outputs=outputs,
            tiles=1,
            damaged={reason: (plan.row(unit),) for reason in tile.damage},
            counts={name: n for name, n in meter.counts.items() if name != "bytes_read"},
            bytes_read=meter.counts.get("bytes_read", 0),
            seconds=unit_seconds(meter),
            measures=measures,
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )
        self.journal.commit(receipt)
        return receipt

    def _put(self, unit: StoreUnit, tile: TilePixels, meter: Meter) -> tuple[dict[str, str], dict[str, float]]:
        """Write a tile and its mask; return the checksum of each object, and what the receipt tells of it."""
        valid, answered = tile.valid, self.tiling.answered(unit.level)
        if valid is not None and not valid.any():
            meter.counts["empty"] = int(not tile.damage)
            return self._put_mask(unit, _nowhere(valid, answered)), measures_of((), first=unit.level, nbytes=0)
        writer, weights = self.image.writer, self._weights(unit)
        with timed(FIT), one_thread():
            data = self.codec.encode(tile.pixels, valid, roi=weights)
        stored = unpack_tile(data)
        with timed(MEASURE):
            levels = Levels.of(tile.pixels, valid, levels=answered)
            errors = level_errors(stored, levels)
            weighed = None if weights is None or unit.level else weighed_error(stored, levels, weights)
        meter.counts["constant" if stored.kind == CONSTANT else "fitted"] = 1
        with timed("store"):
            outputs = self._put_mask(unit, levels.valid)
            if valid is None and is_fill(tile.pixels, writer.layout.fill_value):
                data = b""  # absent, which means just that
            else:
                name = writer.name(FieldPlan(layout=writer.layout).level(unit), unit.iy, unit.ix)
                outputs[name] = self.staging.put(name, data)
        return outputs, measures_of(errors, first=unit.level, nbytes=len(data), weighed=weighed)

    def _weights(self, unit: StoreUnit) -> npt.NDArray[np.float32] | None:
        if self.emphasis is None:
            return None
        return self.emphasis.weights(FieldPlan(layout=self.image.writer.layout).box(unit))

    def _put_mask(self, unit: StoreUnit, valid: Sequence[npt.NDArray[np.bool_] | None]) -> dict[str, str]:
        """Write where a tile is valid, on each level that it answers for."""
        mask, outputs = self.mask, dict[str, str]()
        for number, part in enumerate(valid, unit.level):
            if part is not None and number < len(mask.layout.levels):
                level = mask.layout.levels[number]
                outputs |= mask.write(level, unit.iy, unit.ix, part.view(np.uint8)[..., None])
        return outputs


def _nowhere(valid: npt.NDArray[np.bool_], levels: int) -> list[npt.NDArray[np.bool_]]:
    """Return the levels of a tile nothing of which is valid."""
    shape = Shape(y=valid.shape[0], x=valid.shape[1])
    return [np.zeros(halved(shape, number).yx, np.bool_) for number in range(levels)]
