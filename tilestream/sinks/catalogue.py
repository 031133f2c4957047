"""The index of a folder of feature stores: one file from which thousands of them are opened."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tilestream.codecs.durable import durable_path, explained
from tilestream.codecs.numpyfiles import read_npz
from tilestream.errors import DamagedError
from tilestream.sinks.storerecord import SUFFIX, FeatureSet, FoundStore, Stamp, StoreRecord, Vectors, read_store
from tilestream.types import Array

INDEX = "cohort.npz"
"""Name of the index in the folder of a run's outputs."""
FORMAT = 2
"""Version of the file; one of another version is made anew."""
RECEIPTS = "receipts"
"""Folder of the receipts, with one folder an image; an input folder may bear that name too."""
READERS = 8
"""Threads that read stores: most of the time one waits for a disk."""
_HEADER = "catalogue"


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a user has said of an image in a manifest."""

    label: str | None = None
    """Column `label`."""
    id: str | None = None
    """Column `id`."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Other columns."""


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What lies in a folder; small: no rows of tiles."""

    records: tuple[StoreRecord, ...] = ()
    """Stores, sorted by key."""
    sets: Mapping[str, FeatureSet] = field(default_factory=dict)
    """Feature sets by digest."""
    vectors: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    """`(k, d)` vectors of slides by statistic and digest of their set; a row for each record that has it, in order."""
    given: Mapping[str, Given] = field(default_factory=dict)
    """What manifests said, by key; also of images whose store is not there (yet)."""

    def of_set(self, digest: str) -> tuple[StoreRecord, ...]:
        """Return the stores that have a feature set, in the order of its vectors."""
        return tuple(record for record in self.records if digest in record.sets)

    def twins(self, digest: str) -> tuple[tuple[str, ...], ...]:
        """Return the keys of stores of a feature set that are of one image, for each such image."""
        keys: dict[str, list[str]] = {}
        for record in self.of_set(digest):
            keys.setdefault(record.image, []).append(record.key)
        return tuple(tuple(same) for same in keys.values() if len(same) > 1)

    def vectors_by_key(self) -> Iterator[tuple[str, str, Vectors]]:
        """Yield key, digest and vectors of each store and set."""
        for digest, tables in self.vectors.items():
            for row, record in enumerate(self.of_set(digest)):
                yield record.key, digest, {statistic: table[row] for statistic, table in tables.items()}


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """A catalogue brought up to date with its folder."""

    catalogue: Catalogue
    """As the folder is now."""
    read: tuple[str, ...] = ()
    """Keys of stores that were new or changed."""
    gone: tuple[str, ...] = ()
    """Keys of stores that were there before."""
    notes: tuple[str, ...] = ()
    """What a user should know: stores that are gone, or that cannot be read."""

    @property
    def is_changed(self) -> bool:
        """Return whether the index on disk is out of date."""
        return bool(self.read or self.gone)


def find_stores(root: Path) -> dict[str, Stamp]:
    """Return the feature stores under a folder: key and state of each, sorted by key.

    Parameters
    ----------
    root : Path
        Folder of a run's outputs.

    Returns
    -------
    dict
        Stores in the making are hidden and not among them.

    Raises
    ------
    OSError
        When a folder cannot be listed.
    """
    found = dict(_walk(root, "", {RECEIPTS}))
    if (root / RECEIPTS).is_dir():
        found |= dict(_walk(root / RECEIPTS, f"{RECEIPTS}/", {f"{RECEIPTS}/{key}" for key in found}))
    return dict(sorted(found.items()))


def _walk(folder: Path, prefix: str, skipped: set[str]) -> Iterator[tuple[str, Stamp]]:
    """Yield the stores below a folder; what is skipped is named from the root."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or prefix + entry.name in skipped:
                continue
            if entry.name.endswith(SUFFIX):
                try:
                    about = os.stat(os.path.join(entry.path, "zarr.json"))  # noqa: PTH118 - thousands of them
                except (FileNotFoundError, NotADirectoryError):
                    continue  # without it there is no store; it is the last thing written, and the first removed
                yield prefix + entry.name.removesuffix(SUFFIX), (about.st_mtime_ns, about.st_size)
            elif not entry.name.endswith(".zarr") and entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", skipped)


def refresh(root: Path, known: Catalogue) -> Refreshed:
    """Return a catalogue brought up to date: only stores that are new or changed are read.

    Parameters
    ----------
    root : Path
        Folder of a run's outputs.
    known : Catalogue
        As it was.

    Returns
    -------
    Refreshed
        As it is.
    """
    stamps = find_stores(root)
    kept = {record.key: record for record in known.records if stamps.get(record.key) == record.stamp}
    wanted = [key for key in stamps if key not in kept]
    gone = tuple(record.key for record in known.records if record.key not in stamps)
    found: dict[str, FoundStore] = {}
    sets = dict(known.sets)
    notes = [f"{len(gone)} feature stores of an earlier run are not there any more: {_some(gone)}"] if gone else []
    with ThreadPoolExecutor(READERS) as pool:
        for key, store in zip(wanted, pool.map(lambda key: _read(root, key, stamps[key]), wanted), strict=True):
            if isinstance(store, FoundStore):
                # thousands of stores share the names of their outputs, which are most of what is known of one
                shared = {digest: sets.setdefault(digest, one) for digest, one in store.sets.items()}
                found[key] = replace(store, sets=shared)
            else:
                notes.append(f"`{key}{SUFFIX}` is left out: {store}")
    return Refreshed(catalogue=_merged(known, kept, found), read=tuple(found), gone=gone, notes=tuple(notes))


def _read(root: Path, key: str, stamp: Stamp) -> FoundStore | str:
    try:
        return read_store(root / f"{key}{SUFFIX}", key, stamp)
    except (DamagedError, OSError) as error:
        return str(error)


def _merged(known: Catalogue, kept: Mapping[str, StoreRecord], found: Mapping[str, FoundStore]) -> Catalogue:
    records = {**kept, **{key: store.record for key, store in found.items()}}
    ordered = tuple(records[key] for key in sorted(records))
    sets = dict(known.sets)
    rows: dict[str, dict[str, Vectors]] = {}
    for key, digest, vectors in known.vectors_by_key():
        if key in kept:
            rows.setdefault(digest, {})[key] = vectors
    for key, store in found.items():
        sets.update(store.sets)
        for digest, vectors in store.vectors.items():
            rows.setdefault(digest, {})[key] = vectors
    tables: dict[str, dict[str, Array]] = {}
    for digest, by_key in rows.items():
        keys = sorted(by_key)
        tables[digest] = {
            statistic: np.stack([by_key[key][statistic] for key in keys]) for statistic in sets[digest].statistics
        }
    return Catalogue(
        records=ordered,
        sets={digest: one for digest, one in sets.items() if digest in tables},
        vectors=tables,
        given=known.given,
    )


def read_catalogue(root: Path) -> Catalogue:
    """Return the catalogue that a folder's index holds, an empty one where there is none that can be read.

    Parameters
    ----------
    root : Path
        Folder of a run's outputs.

    Returns
    -------
    Catalogue
        As it was when it was written; `refresh` says what has changed.
    """
    try:
        # opened here, since NumPy leaves a file open that is no archive
        with (root / INDEX).open("rb") as file:
            archive = read_npz(file)
        header = json.loads(archive[_HEADER].tobytes())
        if header["format"] != FORMAT:
            return Catalogue()
        sets = {digest: _feature_set(one) for digest, one in header["sets"].items()}
        vectors = {
            digest: {statistic: archive[f"{digest}-{statistic}"] for statistic in one.statistics}
            for digest, one in sets.items()
        }
        return Catalogue(
            records=tuple(_record(one) for one in header["records"]),
            sets=sets,
            vectors=vectors,
            given={key: Given(**one) for key, one in header["given"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
        return Catalogue()  # it can be made again from the stores at any time


def write_catalogue(root: Path, catalogue: Catalogue) -> Path:
    """Return the path of the index after it is whole and durable; the caller holds the folder's lease.

    Parameters
    ----------
    root : Path
        Folder of a run's outputs.
    catalogue : Catalogue
        What lies there.

    Returns
    -------
    Path
        `OUT/cohort.npz`.

    Raises
    ------
    OutputError
        When it cannot be written; the one before is still there then.
    """
    header = {
        "format": FORMAT,
        "records": [asdict(record) for record in catalogue.records],
        "sets": {digest: asdict(one) for digest, one in catalogue.sets.items()},
        "given": {key: asdict(one) for key, one in sorted(catalogue.given.items())},
    }
    arrays = {f"{digest}-{name}": table for digest, by in catalogue.vectors.items() for name, table in by.items()}
    text = json.dumps(header, separators=(",", ":"))
    with durable_path(root / INDEX) as path, explained(root / INDEX), path.open("wb") as file:
        named = {_HEADER: np.frombuffer(text.encode(), np.uint8), **arrays}
        np.savez(file, **named)  # type: ignore[arg-type]  # its one flag could be among the names, for all mypy knows
    return root / INDEX


def with_given(catalogue: Catalogue, given: Mapping[str, Given]) -> Catalogue:
    """Return a catalogue that knows what a manifest says; what it says nothing of stays as it was."""
    return replace(catalogue, given={**catalogue.given, **given})


def _feature_set(document: Mapping[str, Any]) -> FeatureSet:
    known = dict(document)
    return FeatureSet(**{**known, "outputs": tuple(known["outputs"]), "statistics": tuple(known["statistics"])})


def _record(document: Mapping[str, Any]) -> StoreRecord:
    known = dict(document)
    pairs = {name: tuple(known[name]) for name in ("stamp", "shape_yx", "size_yx")}
    return StoreRecord(**{**known, **pairs})


def _some(keys: tuple[str, ...], most: int = 3) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")
