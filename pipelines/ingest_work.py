"""What a worker does with one piece of a store: copy stored tiles, or make levels from pixels; then the receipt."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.metadata import encode_json
from tilestream.codecs.place import Place
from tilestream.errors import DamagedError
from tilestream.metrics import Meter, collect, timed
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.pyramid.reducing import MEAN, Reducer
from tilestream.pyramid.supertile import Base, Made, levels_of_base, read_base
from tilestream.sinks.layout import TIER, StoreLevel, mask_layout
from tilestream.sinks.members import StorePlan, StoreUnit
from tilestream.sinks.omelabels import VALID
from tilestream.sinks.pyramid import LevelWriter
from tilestream.sources.stamps import Stamp, require_unchanged
from tilestream.stream.journal import Journal
from tilestream.stream.work import Busy, Found, once
from tilestream.types import Box, EncodedSource, ImageInfo, Receipt

COPIED_BYTES = 4 << 20
"""About how much of a shard is read at once: enough for few requests and long ones, and little memory."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One image of a store: the image itself, or a class raster on the same grid."""

    pyramid: Pyramid
    """What is read."""
    writer: LevelWriter
    """What takes it."""

    @property
    def plan(self) -> StorePlan:
        """Return the units of its arrays."""
        return StorePlan(layout=self.writer.layout)

    @property
    def info(self) -> ImageInfo:
        """Return what is stored."""
        return self.pyramid.info


@dataclass(frozen=True, kw_only=True)
class IngestWork:
    """Writes any unit of one store; picklable and small."""

    image: Member
    """The image."""
    labels: tuple[Member, ...] = ()
    """Its class rasters."""
    staging: Place
    """Folder of the store under construction."""
    journal: Journal
    """Takes the receipts and gives the leases."""
    mask_documents: Mapping[str, Any] = field(default_factory=dict)
    """Metadata of the mask's groups and arrays by path; written when there is a mask."""
    stamps: tuple[Stamp, ...] = ()
    """Files of the image as they were when it was opened."""
    reducer: Reducer = MEAN
    """How levels of the image are made; those of its class rasters are modes."""

    def __call__(self, unit: StoreUnit) -> Receipt | Found | Busy:
        """Return the receipt of the unit.

        Parameters
        ----------
        unit : StoreUnit
            What to do.

        Returns
        -------
        Receipt, Found or Busy
            As `once` gives it.

        Raises
        ------
        SourceError
            When a file of the image was changed during the run.
        """
        return once(self.journal, unit.key, lambda: self._run(unit))

    def _run(self, unit: StoreUnit) -> Receipt:
        with collect() as meter:
            try:
                outputs, damage = self.write(unit)
            finally:
                require_unchanged(self.stamps)
        receipt = Receipt(
            key=unit.key,
            recipe=self.journal.recipe,
            outputs=outputs,
            tiles=1,
            damaged=dict.fromkeys(damage, (0,)),
            counts=dict(meter.counts),
            bytes_read=meter.counts.get("bytes_read", 0),
            seconds=unit_seconds(meter),
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )
        self.journal.commit(receipt)
        return receipt

    def write(self, unit: StoreUnit) -> tuple[dict[str, str], tuple[str, ...]]:
        """Write the outputs of a unit.

        Parameters
        ----------
        unit : StoreUnit
            What to do.

        Returns
        -------
        dict and tuple of str
            Checksum of each object by its path in the store, and the reason of each damaged block.
        """
        if unit.step == "copy":
            return self._copy(unit)
        outputs: dict[str, str] = {}
        damage: tuple[str, ...] = ()
        for member in (self.image, *self.labels):
            box = member.plan.box(unit)
            with timed("supply"):
                base = self.base(member, unit.tier, self.around(member, unit.tier, box))
            outputs |= self.put(member, unit, base, box)
            damage += base.damage
        return outputs, damage

    def around(self, member: Member, tier: int, box: Box) -> Box:
        """Return a box of a base with the pixels that the levels of its tier depend on."""
        if member.info.kind == "labels":
            return box
        return self.reducer.around(box, max(member.plan.made(tier), default=0))

    def levels(self, member: Member, tier: int, base: Base, box: Box | None = None) -> list[Made]:
        """Return the levels that a tier makes of its base.

        Parameters
        ----------
        member : Member
            The image, or one of its class rasters.
        tier : int
            Which base.
        base : Base
            Pixels and validity.
        box : Box, optional
            Where the base is that of `around` this box: what is wanted of it.

        Returns
        -------
        list of Made
            The base first.
        """
        core = None
        if box is not None:
            wide, (height, width) = self.around(member, tier, box), base.pixels.shape[:2]
            top, left = box.y - wide.y, box.x - wide.x
            core = Box(y=top, x=left, height=min(box.height, height - top), width=min(box.width, width - left))
        levels = max(member.plan.made(tier), default=0)
        return levels_of_base(base, levels, reducer=self.reducer, core=core, first=TIER * tier)

    def put(self, member: Member, unit: StoreUnit, base: Base, box: Box | None = None) -> dict[str, str]:
        """Write all levels that a unit makes of its base.

        Parameters
        ----------
        member : Member
            The image, or one of its class rasters.
        unit : StoreUnit
            Whose base it is.
        base : Base
            Pixels and validity.
        box : Box, optional
            As for `levels`.

        Returns
        -------
        dict
            Checksum of each object by its path in the store.
        """
        outputs: dict[str, str] = {}
        levels = member.plan.made(unit.tier)
        with timed("levels"):
            made = self.levels(member, unit.tier, base, box)
        for times, level in levels.items():
            outputs |= member.writer.write(level, unit.iy, unit.ix, made[times].pixels)
            valid = made[times].valid
            if member is self.image and base.void is None and valid is not None:
                outputs |= self._write_mask(level, unit, valid)
        return outputs

    @property
    def mask(self) -> LevelWriter:
        """Return the writer of the image's validity, used where no value of its samples says it."""
        layout = mask_layout(self.image.writer.layout)
        return LevelWriter(place=self.staging, prefix=f"labels/{VALID.name}/", layout=layout)

    def base(
        self, member: Member, tier: int, box: Box, readers: Mapping[tuple[str, int], Pyramid] | None = None
    ) -> Base:
        """Return the pixels that levels of a tier are made from.

        Parameters
        ----------
        member : Member
            The image, or one of its class rasters.
        tier : int
            0 reads the source, further ones what is stored by then.
        box : Box
            In pixels of the base.
        readers : Mapping, optional
            What is stored by prefix and level, where the caller has opened it.

        Returns
        -------
        Base
            Pixels and validity.
        """
        level = member.writer.layout.base(tier)
        if not tier or level is None:
            return read_base(member.pyramid, box)
        base = read_base(self._open(member.writer, level, readers), box)
        if member is not self.image or base.void is not None or not self.has_mask(level):
            return base
        valid = read_base(self._open(self.mask, level, readers), box).pixels[..., 0] != 0
        return base if valid.all() else replace(base, valid=valid)

    def _open(self, writer: LevelWriter, level: int, readers: Mapping[tuple[str, int], Pyramid] | None) -> Pyramid:
        return (readers or {}).get((writer.prefix, level)) or self.stored(writer, level)

    def has_mask(self, level: int) -> bool:
        """Return whether anything of a level is masked by now."""
        return self.staging.exists(f"{self.mask.prefix}{level}/image/c")

    def stored(self, writer: LevelWriter, level: int) -> Pyramid:
        """Return what is stored by now of a level, as a pyramid of that level alone."""
        path = f"{writer.prefix}{level}/image"
        document = self.mask_documents.get(path)
        if document is not None and not self.staging.exists(f"{path}/zarr.json"):
            self.staging.put(f"{path}/zarr.json", encode_json(document))
        place = self.staging.at(path)
        return open_pyramid(place.url, options=place.options, cache_bytes=0)

    def _write_mask(self, level: StoreLevel, unit: StoreUnit, valid: npt.NDArray[np.bool_]) -> dict[str, str]:
        mask = self.mask
        return mask.write(mask.layout.levels[level.index], unit.iy, unit.ix, valid.view(np.uint8)[..., None])

    def _copy(self, unit: StoreUnit) -> tuple[dict[str, str], tuple[str, ...]]:
        level = self.image.writer.layout.levels[unit.level]
        damaged: dict[tuple[int, int], DamagedError] = {}
        outputs = self._copy_chunks(level, unit, damaged)
        damage = tuple(f"block y={iy} x={ix} of level {level.copied}: {why}" for (iy, ix), why in damaged.items())
        if self.image.pyramid.info.validity == "mask" or damaged:
            outputs |= self._copy_mask(level, unit, damaged.keys())
        return outputs, damage

    def _copy_chunks(
        self, level: StoreLevel, unit: StoreUnit, damaged: dict[tuple[int, int], DamagedError]
    ) -> dict[str, str]:
        """Write a shard some rows of tiles at a time, of which no more are in memory; note tiles that are damaged."""
        source, writer = self.image.pyramid.source, self.image.writer
        if level.copied is None or not isinstance(source, EncodedSource):
            raise TypeError(f"{unit.key} is no level of stored tiles")
        shard, missing = None, 0
        with ExitStack() as stack:
            for cell, chunk in _copied(source, level, unit):
                if isinstance(chunk, DamagedError):
                    damaged[cell] = chunk
                if not isinstance(chunk, bytes):
                    missing += 1
                    continue
                with timed("store"):
                    shard = shard or stack.enter_context(writer.shard(level, unit.iy, unit.ix))
                    shard.append_missing(missing)
                    shard.append_encoded(writer.copied_chunk(level, chunk))
                missing = 0
            if shard is None:
                return {}
            with timed("store"):
                shard.append_missing(missing)
                stack.close()
        return {writer.name(level, unit.iy, unit.ix): shard.checksum}

    def _copy_mask(self, level: StoreLevel, unit: StoreUnit, damaged: Set[tuple[int, int]]) -> dict[str, str]:
        """Write where the tiles of a shard are valid: what was copied does not say it."""
        shard, chunk = level.shard, level.chunk
        whole = Box(level=level.copied or 0, y=unit.iy * shard.y, x=unit.ix * shard.x, height=shard.y, width=shard.x)
        inside = whole.intersect(Box(level=whole.level, y=0, x=0, height=level.shape.y, width=level.shape.x))
        valid = np.ones((inside.height, inside.width), np.bool_)
        if self.image.pyramid.info.validity == "mask":
            for y in range(0, inside.height, chunk.y):  # a row of tiles at a time: validity comes with the pixels
                row = replace(inside, y=inside.y + y, height=min(chunk.y, inside.height - y))
                found = read_base(self.image.pyramid, row).valid
                valid[y : y + chunk.y] = True if found is None else found
        for iy, ix in damaged:
            y, x = iy * chunk.y - inside.y, ix * chunk.x - inside.x
            valid[y : y + chunk.y, x : x + chunk.x] = False
        return {} if valid.all() else self._write_mask(level, unit, valid)


def _copied(
    source: EncodedSource, level: StoreLevel, unit: StoreUnit
) -> Iterator[tuple[tuple[int, int], bytes | DamagedError | None]]:
    """Yield y, x and stream of the tiles of a shard in C order, read in so many rows as are `COPIED_BYTES`."""
    columns = range(unit.ix * level.chunks, (unit.ix + 1) * level.chunks)
    top, last, rows = unit.iy * level.chunks, (unit.iy + 1) * level.chunks, 1
    while top < last:
        cells = [(iy, ix) for iy in range(top, min(top + rows, last)) for ix in columns]
        inside = [(0, iy, ix) for iy, ix in cells if level.has_chunk(iy, ix)]
        with timed("supply"):  # reading, and looking whether streams are whole
            found = dict(zip(inside, source.read_encoded(level.copied or 0, inside), strict=True))
        yield from ((cell, found.get((0, *cell))) for cell in cells)
        nbytes = sum(len(chunk) for chunk in found.values() if isinstance(chunk, bytes))
        top += rows
        rows = max(1, min(2 * rows, rows * COPIED_BYTES // max(1, nbytes)))


def unit_seconds(meter: Meter) -> dict[str, float]:
    """Return the time of a unit by step, none counted twice.

    Parameters
    ----------
    meter : Meter
        Of the unit. Its `supply` holds reading and decoding, what is left is gathering; `store` holds encoding, what is
        left is writing.

    Returns
    -------
    dict
        Seconds by step.
    """
    seconds = dict(meter.seconds)
    supply = seconds.pop("supply", 0.0) - seconds.get("read", 0.0) - seconds.get("decode", 0.0)
    seconds["gather"] = max(0.0, supply) + seconds.pop("paste", 0.0)
    seconds["write"] = max(0.0, seconds.pop("store", 0.0) - seconds.get("encode", 0.0))
    return {name: round(value, 6) for name, value in seconds.items()}
