"""What a worker does with one piece of a map, and the last step of its store."""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tilestream.cache.tally import by_tier
from tilestream.errors import StageError
from tilestream.metrics import Meter, collect
from tilestream.pipelines.finish import PICTURE, add_seconds, merge_damage, merge_failed
from tilestream.pipelines.ingest_finish import FinishStore
from tilestream.pipelines.ingest_work import IngestWork, Member, unit_seconds
from tilestream.pipelines.report_picture import HEAT_PX, THUMBNAIL_PX, make_picture
from tilestream.plan.dense import DenseGrid
from tilestream.pyramid.display import display_pixels
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sinks.members import StoreUnit
from tilestream.sources.stamps import require_unchanged
from tilestream.stream.dense import DensePart, DenseStage, map_box
from tilestream.stream.faults import hold_if_lost
from tilestream.stream.mapform import MapForm
from tilestream.stream.work import Again, Busy, make_stage
from tilestream.types import ImageInfo, Receipt, StageSpec

TILES = "L0-make0-"
"""How the keys of units begin that run tiles; all others make coarser levels."""


@dataclass(frozen=True, kw_only=True)
class MapMember(Member):
    """A map, and the image that it is made of."""

    described: ImageInfo
    """The map as an image."""

    @property
    def info(self) -> ImageInfo:
        """Return what is stored."""
        return self.described


@dataclass(frozen=True, kw_only=True)
class MapWork(IngestWork):
    """Writes any unit of the store of a map; picklable and small."""

    spec: StageSpec
    """How the stage is made."""
    grid: DenseGrid
    """Its tiles."""
    form: MapForm
    """How the map is stored."""
    batch: int = 64
    """Most tiles that enter the stage together."""
    tasks: int = sys.maxsize
    """Tasks that share the cores of a machine; threads decode ahead on those that are left. By default none are."""

    def _run(self, unit: StoreUnit) -> Receipt:
        if unit.tier:
            return super()._run(unit)
        hold_if_lost()
        dense = DenseStage(stage=make_stage(self.spec), grid=self.grid, form=self.form, batch=self.batch)
        with collect() as meter:
            try:
                part = map_box(self.image.pyramid, dense, self.image.plan.box(unit), tasks=self.tasks)
            finally:
                require_unchanged(self.stamps)
            outputs = {} if part.is_void else self.put(self.image, unit, part.base)
        receipt = Receipt(
            key=unit.key,
            recipe=self.journal.recipe,
            outputs=outputs,
            tiles=part.tiles,
            damaged=part.damaged,
            failed=part.failed,
            counts=_counts(part, meter),
            bytes_read=meter.counts.get("bytes_read", 0),
            seconds=unit_seconds(meter),
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )
        self.journal.commit(receipt)
        return receipt


def _counts(part: DensePart, meter: Meter) -> dict[str, int]:
    # a tile with values around a few that are not finite has a result
    own = {"empty": part.empty, "failed": part.lost, "computed": part.computed}
    return {**{name: n for name, n in meter.counts.items() if name != "bytes_read"}, **own}


@dataclass(frozen=True, kw_only=True)
class MapFinish(FinishStore):
    """Turns the receipts of a map into its store, and into what the report shows of it."""

    tiles: int = 0
    """Tiles of the plan."""
    units: int = 0
    """Pieces of work that run tiles."""
    output: str = ""
    """Path of the store in the folder of all outputs."""
    notes: tuple[str, ...] = ()
    """What the plan says."""
    planned: Mapping[str, float] = field(default_factory=dict)
    """Seconds and bytes that planning has taken."""

    def __call__(self) -> Mapping[str, Any] | Busy | Again:
        """Return the summary of the finished store, after a picture of it was drawn for the report."""
        require_a_map(receipts_of_tiles(list(self.work.journal.receipts().values())))
        done = super().__call__()
        if isinstance(done, Mapping):
            self._draw()
        return done

    def summary(self, receipts: Sequence[Receipt]) -> dict[str, Any]:
        """Return what a report shows of the map.

        Parameters
        ----------
        receipts : sequence of Receipt
            All of them.

        Returns
        -------
        dict
            JSON values.
        """
        work = self._work
        image, plan = work.image.pyramid.info, work.grid.plan
        counts: Counter[str] = Counter()
        for receipt in receipts:
            counts.update(receipt.counts)
        damaged, failed = merge_damage(receipts_of_tiles(receipts)), merge_failed(receipts)
        holed = len({row for rows in failed.values() for row in rows}) - counts["failed"]
        notes = (f"{holed:,} tiles have pixels without a finite value, which are nodata",) if holed else ()
        return {
            "format": image.format,
            "shape_yx": list(image.shape.yx),
            "mpp": image.mpp,
            "crs": image.crs,
            "datetime": image.datetime,
            "is_map": True,
            "tile_px": plan.grid.tile_px,
            "plan_mpp": None if plan.mpp_yx is None else float(np.sqrt(plan.mpp_yx[0] * plan.mpp_yx[1])),
            "tiles": self.tiles,
            "tiles_damaged": len({row for rows in damaged.values() for row in rows}),
            "tiles_failed": counts["failed"],
            "tiles_empty": counts["empty"],
            "damaged": {reason: list(rows) for reason, rows in damaged.items()},
            "failed": {reason: list(rows) for reason, rows in failed.items()},
            "bytes_read": int(self.planned.get("bytes", 0)) + sum(receipt.bytes_read for receipt in receipts),
            "seconds": {"plan": self.planned.get("seconds", 0.0), **add_seconds(receipts)},
            "supertiles_total": self.units,
            "cache": by_tier(counts),
            "outputs": [self.output],
            "notes": list(dict.fromkeys((*image.notes, *self.notes, *notes))),
        }

    @property
    def _work(self) -> MapWork:
        if not isinstance(self.work, MapWork):
            raise TypeError(f"{type(self.work).__name__} makes no map")
        return self.work

    def _draw(self) -> None:
        """Keep a picture of the image under the first channel of its map."""
        journal = self.work.journal.place
        if not journal.is_local:
            return
        pyramid = self.work.image.pyramid
        stored = open_pyramid(self.place.url, options=self.place.options, cache_bytes=0)
        region = stored.thumbnail(HEAT_PX)
        image, channels = pyramid.info, self.work.image.info.channels
        channel = channels[0]
        values = region.pixels[0] * np.float32(channel.scale) + np.float32(channel.offset)
        cells = np.where(region.valid, values, np.float32("nan"))
        thumbnail = display_pixels(pyramid.thumbnail(THUMBNAIL_PX), pyramid.channels, kind=pyramid.kind)
        picture = make_picture(thumbnail, cells, shape=image.shape, mpp=image.mpp)
        replace(picture, heat_label=channel.name, heat_channels=len(channels)).save(journal.path / PICTURE)


def receipts_of_tiles(receipts: Sequence[Receipt]) -> list[Receipt]:
    """Return the receipts of units that run tiles."""
    return [receipt for receipt in receipts if receipt.key.startswith(TILES)]


def require_a_map(receipts: Sequence[Receipt]) -> None:
    """Raise when a map would hold nothing and the stage is to blame.

    Parameters
    ----------
    receipts : sequence of Receipt
        Of units that run tiles.

    Raises
    ------
    StageError
        With the most frequent reason. Where tiles are only damaged or empty, that is what the image is.
    """
    lost = sum(receipt.counts.get("failed", 0) for receipt in receipts)
    damaged = {row for rows in merge_damage(receipts).values() for row in rows}
    others = sum(receipt.counts.get("empty", 0) for receipt in receipts) + len(damaged)
    if not lost or lost + others < sum(receipt.tiles for receipt in receipts):
        return
    failed = merge_failed(receipts)
    reason = max(failed, key=lambda reason: len(failed[reason]))
    raise StageError.of(
        "every tile that could be decoded",
        got=f"{reason} ({len(failed[reason])} tiles)",
        expected="a map of some of them",
        do="Correct the stage; then give --no-resume, or another --out.",
    )
