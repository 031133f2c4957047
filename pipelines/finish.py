"""The last step of an image: its stores, its outline and what the report shows of it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.cache.tally import by_tier
from tilestream.codecs.durable import write_durable
from tilestream.errors import OutputError, StageError
from tilestream.metrics import Meter, collect
from tilestream.pipelines.cutting import Ending
from tilestream.pipelines.places import Places
from tilestream.pipelines.reading import decoded_px
from tilestream.pipelines.report_picture import HEAT_PX, THUMBNAIL_PX, make_picture
from tilestream.plan.geojson import read_geojson, to_geojson
from tilestream.plan.outline import mask_outline
from tilestream.plan.selection import Selection
from tilestream.pyramid.display import display_pixels
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sinks.chainfacts import read_chain_facts
from tilestream.sinks.features import FeatureSink
from tilestream.sinks.raster import build_raster
from tilestream.sources.stamps import Stamp, require_unchanged
from tilestream.stream.journal import FINISH, Journal
from tilestream.stream.work import Again, Busy
from tilestream.types import ImageInfo, Receipt, Region

PICTURE = "picture.json"


@dataclass(frozen=True, kw_only=True)
class FinishImage:
    """Turns the receipts of an image into its outputs; picklable, runs on a worker, may be run again at any time."""

    key: str
    """Name of the input."""
    out: Path
    """Folder of all outputs."""
    pyramid: Pyramid
    """The image."""
    sink: FeatureSink
    """Holds its parts, and knows the plan."""
    ending: Ending
    """Says when all of its units are done."""
    notes: tuple[str, ...]
    """What the plan says."""
    journal: Journal
    """Holds its receipts."""
    stamps: tuple[Stamp, ...] = ()
    """Files of the image as they were when it was opened."""
    planned: Mapping[str, int] = field(default_factory=dict)
    """What planning has counted: bytes asked for, pixels decoded."""
    plan_s: float = 0.0
    """Time that planning has taken."""
    image_bytes: int | None = None
    """Size of the image's files; None where it is not known."""

    def __call__(self) -> Mapping[str, Any] | Busy | Again:
        """Return the summary of the finished image; the last thing written is that it is finished.

        Returns
        -------
        Mapping, Busy or Again
            `Busy` while another run finishes it, `Again` when units have to be done once more since their outputs are
            missing or altered.

        Raises
        ------
        SourceError
            When a file of the image was changed during the run.
        """
        lease = self.journal.claim(FINISH)
        if lease is None:
            return Busy(key=FINISH)
        with lease:
            return self.journal.summary() or self._finish()

    def _finish(self) -> Mapping[str, Any] | Again:
        started = time.perf_counter()
        receipts = self.journal.receipts()
        places = Places.of(self.out, self.key)
        require_unchanged(self.stamps)
        whole = self.ending.whole(self.sink, receipts)
        if whole is None:  # receipts were removed by hand, or by a run that begins anew
            return Again(keys=("some super-tiles",))
        if others := receipts.keys() - {receipt.key for receipt in whole.receipts}:
            self.journal.reopen(others)
        return replace(self, sink=whole.sink)._finish_whole(whole.receipts, places, started)

    def _finish_whole(self, receipts: Sequence[Receipt], places: Places, started: float) -> Mapping[str, Any] | Again:
        require_a_result(receipts)
        try:
            self.sink.finish(receipts)
        except OutputError:
            lost = self.sink.lost(receipts)
            if not lost:
                raise
            self.journal.reopen(lost)
            return Again(keys=lost)
        # Both are functions of the features that now lie there: an older one of ours is out of date.
        build_raster(places.features, places.entropy, replace=True)
        with collect() as meter:  # of our own stores nothing counts that is read
            thumbnail = self.pyramid.thumbnail(THUMBNAIL_PX)
        self._draw(thumbnail, places)
        require_unchanged(self.stamps)
        summary = self._summary(receipts, meter)
        summary["seconds"]["finish"] = time.perf_counter() - started
        self.journal.close(receipts, summary)
        return summary

    def _draw(self, thumbnail: Region, places: Places) -> None:
        info, plan = self.pyramid.info, self.sink.plan
        cells, cell_yx = _heat_map(places.entropy) if plan.rows else (None, (0, 0))
        polygons = read_geojson(str(places.outline), info)[0] if places.outline.exists() else ()
        step_yx = [plan.grid.step_px * scale for scale in plan.level.scale_yx]
        origin_yx = [start * scale for start, scale in zip(plan.grid.origin_yx, plan.level.scale_yx, strict=True)]
        picture = make_picture(
            display_pixels(thumbnail, self.pyramid.channels, kind=self.pyramid.kind),
            cells,
            shape=info.shape,
            cells_yxhw=(origin_yx[0], origin_yx[1], cell_yx[0] * step_yx[0], cell_yx[1] * step_yx[1]),
            outline=[list(ring.coords) for polygon in polygons for ring in (polygon.exterior, *polygon.interiors)],
            mpp=info.mpp,
        )
        picture.save(self.journal.place.path / PICTURE)

    def _summary(self, receipts: Sequence[Receipt], meter: Meter) -> dict[str, Any]:
        info, plan, places = self.pyramid.info, self.sink.plan, Places.of(self.out, self.key)
        counts: Counter[str] = Counter()
        for receipt in receipts:
            counts.update(receipt.counts)
        damaged = merge_damage(receipts)
        chains = read_chain_facts(places.features, self.sink.chains)
        staged = [one for one in chains if one.regions is not None]
        outputs = [path for path in (places.features, places.entropy, places.outline) if path.exists()]
        return {
            "format": info.format,
            "shape_yx": list(info.shape.yx),
            "mpp": info.mpp,
            "crs": info.crs,
            "datetime": info.datetime,
            "tile_px": plan.grid.tile_px,
            "plan_mpp": None if plan.mpp_yx is None else float(np.sqrt(plan.mpp_yx[0] * plan.mpp_yx[1])),
            "tiles": plan.rows,
            "tiles_damaged": sum(map(len, damaged.values())),
            "tiles_failed": counts["failed"],
            "tiles_empty": counts["empty"],
            "regions": max((one.regions or 0 for one in staged), default=0),
            "regions_failed": sum(sum(map(len, one.failed.values())) for one in staged),
            "damaged": {reason: list(rows) for reason, rows in damaged.items()},
            "failed": {reason: list(rows) for reason, rows in merge_failed(receipts).items()},
            # What planning and drawing have read belongs to the image too: a coarse level can be most of a small file.
            "bytes_read": sum(receipt.bytes_read for receipt in receipts)
            + sum(drawn.get("bytes_read", 0) for drawn in (self.planned, meter.counts)),
            "image_bytes": self.image_bytes,
            "image_px": info.shape.area,
            "tokens": {str(number): depth.tokens for number, depth in enumerate(plan.depths) if depth.tokens},
            "pixels_decoded": decoded_px((self.planned, meter.counts, *(receipt.counts for receipt in receipts))),
            "seconds": {"plan": self.plan_s, **add_seconds(receipts)},
            "supertiles_total": len(receipts),
            "cache": by_tier(counts),
            "outputs": [path.relative_to(self.out).as_posix() for path in outputs],
            "notes": list(dict.fromkeys((*info.notes, *self.notes, *(note for one in chains for note in one.notes)))),
        }


def write_outline(selection: Selection | None, image: ImageInfo, path: Path) -> None:
    """Write what a plan has selected as annotations that QuPath edits; nothing for a plan of all tiles.

    Parameters
    ----------
    selection : Selection, optional
        What was selected.
    image : ImageInfo
        The image.
    path : Path
        GeoJSON file.
    """
    if selection is not None:
        document = to_geojson(mask_outline(selection), image)
        write_durable(path, json.dumps(document, separators=(",", ":")).encode())


def merge_damage(receipts: Sequence[Receipt]) -> dict[str, tuple[int, ...]]:
    """Return the feature rows of damaged tiles by reason, over all receipts."""
    return _merged(receipt.damaged for receipt in receipts)


def merge_failed(receipts: Sequence[Receipt]) -> dict[str, tuple[int, ...]]:
    """Return the feature rows of tiles on which a stage has failed by stage and reason, over all receipts."""
    return _merged(receipt.failed for receipt in receipts)


def _merged(parts: Iterable[Mapping[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    merged: dict[str, list[int]] = {}
    for part in parts:
        for reason, rows in part.items():
            merged.setdefault(reason, []).extend(rows)
    return {reason: tuple(sorted(rows)) for reason, rows in sorted(merged.items())}


def require_a_result(receipts: Sequence[Receipt]) -> None:
    """Raise when no tile has a vector and a stage is to blame: an image of nothing would look like a result.

    Parameters
    ----------
    receipts : sequence of Receipt
        All of an image.

    Raises
    ------
    StageError
        With the most frequent reason. Where tiles are only damaged or empty, that is what the image is.
    """
    failed = merge_failed(receipts)
    rows = {row for found in failed.values() for row in found}
    others = sum(receipt.counts.get("empty", 0) + sum(map(len, receipt.damaged.values())) for receipt in receipts)
    if not rows or len(rows) + others < sum(receipt.tiles for receipt in receipts):
        return
    reason = max(failed, key=lambda reason: len(failed[reason]))
    raise StageError.of(
        "every tile that could be decoded",
        got=f"{reason} ({len(failed[reason])} of {len(rows)} tiles)",
        expected="vectors for some of them",
        do="Correct the encoder; then give --no-resume, or another --out.",
    )


def add_seconds(receipts: Sequence[Receipt]) -> dict[str, float]:
    """Return the time by step, summed over all receipts."""
    total: Counter[str] = Counter()
    for receipt in receipts:
        total.update(receipt.seconds)
    return dict(total)


def _heat_map(entropy: Path) -> tuple[npt.NDArray[np.float32], tuple[int, int]]:
    raster = open_pyramid(str(entropy), cache_bytes=0)
    region = raster.thumbnail(HEAT_PX)
    cells = np.where(region.valid, region.pixels[0], np.float32("nan"))
    return cells.astype(np.float32), raster.levels[0].shape.yx
