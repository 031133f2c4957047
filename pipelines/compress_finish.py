"""The last step of a store of fields: what it says of itself when all its tiles are there, and the report's picture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tilestream.cache.tally import by_tier
from tilestream.codecs.metadata import encode_json, group_metadata
from tilestream.pipelines.compress_measure import Sums
from tilestream.pipelines.compress_work import CompressWork
from tilestream.pipelines.finish import PICTURE, add_seconds, merge_damage
from tilestream.pipelines.ingest_finish import FinishStore
from tilestream.pipelines.report_html import PSNR_LABEL
from tilestream.pipelines.report_picture import THUMBNAIL_PX, make_picture
from tilestream.pyramid.display import display_pixels
from tilestream.sinks.fieldstore import chunk_maps, field_record, field_root
from tilestream.sinks.store import display_windows
from tilestream.stream.work import Again, Busy
from tilestream.types import Array, Receipt

QUALITY = "quality"
"""Entry of our own record of a store of fields, see `Sums.record`."""


@dataclass(frozen=True, kw_only=True)
class FinishFields(FinishStore):
    """Turns the receipts of tiles into the store, and into what the report shows of it."""

    output: str
    """Path of the store in the folder of all outputs."""
    image_bytes: int | None = None
    """Size of the image's files; None where it is not known."""
    told: tuple[str, ...] = ()
    """What a user should know besides the notes of the image."""
    planned: Mapping[str, float] = field(default_factory=dict)
    """Seconds and bytes that planning has taken."""

    def __call__(self) -> Mapping[str, Any] | Busy | Again:
        """Return the summary of the finished store, after a picture of it was drawn for the report."""
        receipts = list(self.work.journal.receipts().values())
        done = super().__call__()
        if isinstance(done, Mapping) and receipts:
            self._draw(receipts)
        return done

    def root(self, written: Set[str], damage: Sequence[str]) -> bytes:
        """Return the `zarr.json` of the root, with what the store costs and how close it is to the image.

        Parameters
        ----------
        written : set of str
            Paths of all objects that hold pixels or validity.
        damage : sequence of str
            Reason of each damaged block.

        Returns
        -------
        bytes
            The last thing that is written.
        """
        work, info = self._work, self.work.image.info
        layout = work.image.writer.layout
        documents = {**self.documents, **self.label_documents(written)}
        more = {
            **self.more,
            QUALITY: self._quality(list(work.journal.receipts().values())),
            "shards": chunk_maps(layout, written),
            "damage": list(damage),
        }
        digest = work.journal.recipe
        record = field_record(info, work.codec, tiling=work.tiling, recipe_digest=digest, more=more)
        windows = display_windows(info, self._coarsest() if info.dtype != np.uint8 else None)
        attributes = field_root(info, layout, record=record, windows=windows)
        return encode_json(group_metadata(attributes, consolidated=dict(sorted(documents.items()))))

    def summary(self, receipts: Sequence[Receipt]) -> dict[str, Any]:
        """Return what a report shows of the store.

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
        image, plan = work.image.pyramid.info, work.image.plan
        damaged = merge_damage(receipts)
        counts: Counter[str] = Counter()
        for receipt in receipts:
            counts.update(receipt.counts)
        return {
            "format": image.format,
            "shape_yx": list(image.shape.yx),
            "mpp": image.mpp,
            "crs": image.crs,
            "datetime": image.datetime,
            "tile_px": work.tiling.tile_px,
            "tiles": len(plan),
            "tiles_damaged": len({row for rows in damaged.values() for row in rows}),
            "tiles_empty": counts["empty"],
            "damaged": {reason: list(rows) for reason, rows in damaged.items()},
            "bytes_read": int(self.planned.get("bytes", 0)) + sum(receipt.bytes_read for receipt in receipts),
            "image_bytes": self.image_bytes,
            "seconds": {"plan": self.planned.get("seconds", 0.0), **add_seconds(receipts)},
            "supertiles_total": len(plan),
            "cache": by_tier(counts),
            "coded": {
                "codec": work.codec.name,
                "fitted": counts["fitted"],
                "constant": counts["constant"],
                **self._bound(),
                **self._quality(receipts),
            },
            "outputs": [self.output],
            "notes": [*image.notes, *self.told],
        }

    @property
    def _work(self) -> CompressWork:
        if not isinstance(self.work, CompressWork):
            raise TypeError(f"{type(self.work).__name__} fits no fields")
        return self.work

    def _quality(self, receipts: Sequence[Receipt]) -> dict[str, Any]:
        info = self.work.image.info
        levels = self._work.tiling.levels
        found = Sums.of(receipts).record(levels=levels, dtype=info.dtype, pixels=info.shape.area)
        decoder = self._work.codec.settings.get("decoder")  # in the metadata of the store, which no tile counts
        return {**found, "decoder_bytes": len(decoder)} if decoder else found

    def _bound(self) -> dict[str, Any]:
        """Return the largest error that any sample of a stored level may have, where the codec bounds it."""
        most = self._work.codec.settings.get("max_error")
        return {} if most is None else {"max_error": most}

    def _coarsest(self) -> Array:
        """Return a picture of the image as floats, NaN where not valid; of the store it would have to be decoded."""
        crop = self.work.image.pyramid.thumbnail(THUMBNAIL_PX)
        pixels = crop.pixels.transpose(1, 2, 0).astype(np.float64)
        pixels[~crop.valid] = np.nan
        return pixels

    def _draw(self, receipts: Sequence[Receipt]) -> None:
        """Keep a picture of the image under the PSNR of each tile of its finest array."""
        journal = self.work.journal.place
        if not journal.is_local:
            return
        pyramid, level = self.work.image.pyramid, self.work.image.writer.layout.levels[0]
        cells, whole = np.full(level.shards.yx, np.nan, np.float32), Sums.of(receipts)
        for receipt in receipts:
            array, y, x = _place(receipt.key)
            psnr = Sums.of([receipt]).psnr(array, pyramid.dtype, span_of=whole)
            if array == level.index and psnr is not None and math.isfinite(psnr):
                cells[y, x] = psnr
        height, width = (float(count * edge) for count, edge in zip(level.shards.yx, level.chunk.yx, strict=True))
        picture = make_picture(
            display_pixels(pyramid.thumbnail(THUMBNAIL_PX), pyramid.channels, kind=pyramid.kind),
            cells,
            shape=pyramid.info.shape,
            cells_yxhw=(0.0, 0.0, height, width),
            mpp=pyramid.info.mpp,
        )
        replace(picture, heat_label=PSNR_LABEL).save(journal.path / PICTURE)


def _place(key: str) -> tuple[int, int, int]:
    """Return array, row and column of a tile from its key, `L4-make0-y1-x2`."""
    level, _, y, x = key.split("-")
    return int(level[1:]), int(y[1:]), int(x[1:])
