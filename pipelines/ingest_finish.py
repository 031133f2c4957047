"""The last step of a store: coarse tiers, what could not be known before, and the root that makes it a store."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilestream.codecs.durable import PARTIAL_SUFFIX
from tilestream.codecs.metadata import encode_json, group_metadata
from tilestream.codecs.place import Place
from tilestream.codecs.shardmap import encode_shard_map
from tilestream.pipelines.ingest_work import IngestWork
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sinks.layout import STORE_NAMES, Profile
from tilestream.sinks.omelabels import VALID, labels_attributes
from tilestream.sinks.pyramid import LevelWriter
from tilestream.sinks.store import display_windows, owner_record, root_attributes
from tilestream.sinks.tree import check_place, put_in_place
from tilestream.sources.stamps import require_unchanged
from tilestream.stream.journal import FINISH
from tilestream.stream.work import Again, Busy
from tilestream.types import Array, Receipt

PICTURE_PX = 1024
"""Edge of the picture from which display ranges are told; an archive may have nothing but a large level."""


@dataclass(frozen=True, kw_only=True)
class FinishStore:
    """Turns the receipts of a store into the store; picklable, runs on a worker, may be run again at any time."""

    work: IngestWork
    """Writes what is missing."""
    place: Place
    """Final place of the store."""
    profile: Profile
    """How it is stored."""
    documents: Mapping[str, Any]
    """Metadata of all groups and arrays below the root by path, those of the mask left out."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of our own record in the root."""
    replace: bool = False
    """Whether an older store of ours may be replaced."""

    def __call__(self) -> Mapping[str, Any] | Busy | Again:
        """Return the summary of the finished store; the last thing written is that it is finished.

        Returns
        -------
        Mapping, Busy or Again
            `Busy` while another run finishes it, `Again` when units have to be done once more since their outputs are
            missing.
        """
        journal = self.work.journal
        lease = journal.claim(FINISH)
        if lease is None:
            return Busy(key=FINISH)
        with lease:
            return journal.summary() or self._finish()

    def _finish(self) -> Mapping[str, Any] | Busy | Again:
        started = time.perf_counter()
        work, journal = self.work, self.work.journal
        plan = work.image.plan
        receipts = journal.receipts()
        record = None if self.replace else check_place(self.place)
        if record is not None and record.get("recipe_digest") == journal.recipe:
            # put in its place by a run that was killed before it could say so
            summary = self.summary(list(receipts.values()))
            journal.close(receipts.values(), summary)
            return summary
        if any(unit.key not in receipts for unit in plan.start()):
            return Again(keys=("some units",))
        there = work.staging.sizes()
        lost = _lost(there, receipts.values())
        if lost:
            journal.reopen(lost)
            return Again(keys=lost)
        # all units are done, so that nobody is in the middle of a file: a run that was killed was
        work.staging.remove(*(path for path in there if path.endswith(PARTIAL_SUFFIX)))
        for tier in plan.tiers[1:]:
            for unit in plan.tier(tier):
                if unit.key not in receipts and isinstance(work(unit), Busy):
                    return Busy(key=unit.key)  # held by a run that was killed elsewhere, until its lease ends
        receipts = journal.receipts()
        require_unchanged(work.stamps)
        written = {path for receipt in receipts.values() for path in receipt.outputs}
        document = self.root(written, damage_of(receipts.values()))
        put_in_place(self.place, document, names=STORE_NAMES, replace=self.replace)
        summary = self.summary(list(receipts.values()))
        summary["seconds"]["finish"] = time.perf_counter() - started
        journal.close(receipts.values(), summary)
        return summary

    def root(self, written: Set[str], damage: Sequence[str]) -> bytes:
        """Return the `zarr.json` of the root, after the groups of labels are as they have to be.

        Parameters
        ----------
        written : set of str
            Paths of all objects that hold pixels.
        damage : sequence of str
            Reason of each damaged block.

        Returns
        -------
        bytes
            The last thing that is written.
        """
        documents = {**self.documents, **self.label_documents(written)}
        image = self.work.image
        info, layout = image.info, image.writer.layout
        owner = owner_record(
            info,
            profile=self.profile,
            recipe_digest=self.work.journal.recipe,
            more={**self.more, "shards": shard_maps(image.writer, written), "damage": list(damage)},
        )
        windows = display_windows(info, self._coarsest() if info.dtype != np.uint8 else None)
        attributes = root_attributes(info, layout, owner=owner, windows=windows)
        return encode_json(group_metadata(attributes, consolidated=dict(sorted(documents.items()))))

    def label_documents(self, written: Set[str]) -> dict[str, Any]:
        """Return the metadata of the mask and of the group of labels, after they are as what was written needs them.

        Parameters
        ----------
        written : set of str
            Paths of all objects that hold pixels.

        Returns
        -------
        dict
            `zarr.json` by path.
        """
        names, staging = self._label_names(written), self.work.staging
        labels = dict(self.work.mask_documents) if VALID.name in names else {}
        if not labels:
            staging.clear(f"labels/{VALID.name}" if names else "labels")
        if names:
            labels["labels"] = group_metadata(labels_attributes(names))
        for path, document in sorted(labels.items()):
            staging.put(f"{path}/zarr.json", encode_json(document))
        return labels

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
        image = self.work.image
        info, layout = image.info, image.writer.layout
        return {
            "format": info.format,
            "profile": self.profile,
            "shape_yx": list(info.shape.yx),
            "levels": len(layout.levels),
            "mpp": info.mpp,
            "crs": info.crs,
            "damaged": damage_of(receipts),
            "bytes_read": sum(receipt.bytes_read for receipt in receipts),
            "seconds": _add(receipt.seconds for receipt in receipts),
            "units": len(receipts),
            "notes": list(info.notes),
            **_transcoded(receipts),
        }

    def _label_names(self, written: Set[str]) -> list[str]:
        names = [member.writer.prefix.split("/")[1] for member in self.work.labels]
        has_mask = any(path.startswith(f"labels/{VALID.name}/") for path in written)
        return sorted([*names, *([VALID.name] if has_mask else [])])

    def _coarsest(self) -> Array:
        """Return a picture of the coarsest level as floats, NaN where not valid."""
        level = self.work.image.writer.layout.levels[-1]
        place = self.work.staging.at(f"{level.index}/image")
        stored = open_pyramid(place.url, options=place.options, cache_bytes=0)
        region = stored.thumbnail(min(PICTURE_PX, max(level.shape.yx)))
        pixels = region.pixels.transpose(1, 2, 0).astype(np.float64)
        pixels[~region.valid] = np.nan
        return pixels


def summary_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what our own record of a finished store tells a report, where its receipts are gone.

    Parameters
    ----------
    record : Mapping
        Of the store's root.

    Returns
    -------
    dict
        As `FinishStore.summary`, without what only the run knew.
    """
    image = record["image"]
    return {name: image[name] for name in ("format", "crs")} | {
        "profile": record["profile"],
        "damaged": record.get("damage", []),
    }


def shard_maps(writer: LevelWriter, written: Set[str]) -> dict[str, str]:
    """Return which shards of each level hold something, so that one that is lost is not taken for background.

    Parameters
    ----------
    writer : LevelWriter
        Knows the names.
    written : set of str
        Paths of all objects.

    Returns
    -------
    dict
        Text of the map by level; nothing for a store without shards.
    """
    if not writer.layout.has_shards:
        return {}
    maps = {}
    for level in writer.layout.levels:
        grid = np.zeros(level.shards.yx, np.bool_)
        for iy, ix in np.ndindex(grid.shape):
            grid[iy, ix] = writer.name(level, iy, ix) in written
        maps[str(level.index)] = encode_shard_map(grid)
    return maps


def damage_of(receipts: Iterable[Receipt]) -> list[str]:
    """Return the reason of each damaged block once, sorted."""
    return sorted({reason for receipt in receipts for reason in receipt.damaged})


def icc_entry(profile: bytes | None) -> dict[str, str]:
    """Return the entry of an ICC profile in our own record, nothing where there is none."""
    return {} if profile is None else {"icc": base64.b64encode(profile).decode()}


def _transcoded(receipts: Iterable[Receipt]) -> dict[str, dict[str, int]]:
    """Return what JPEG XL made of the tiles of a store: how many, how many stay JPEG, bytes before and after."""
    counted: dict[str, int] = {}
    for receipt in receipts:
        for name, amount in receipt.counts.items():
            kind, _, rest = name.partition(".")
            if kind == "jpegxl":
                counted[rest] = counted.get(rest, 0) + amount
    return {"jpegxl": counted} if counted else {}


def _lost(there: Mapping[str, int], receipts: Iterable[Receipt]) -> tuple[str, ...]:
    """Return the keys of units of which an output is not there any more."""
    return tuple(receipt.key for receipt in receipts if not there.keys() >= receipt.outputs.keys())


def _add(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total
