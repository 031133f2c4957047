"""The features of a whole cohort as one lazy object: what `ts.open_cohort` does."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import xarray as xr

from tilestream.errors import ConfigError, OutputError, SourceError
from tilestream.pipelines.cohort_index import save_index
from tilestream.pipelines.keys import is_remote, output_key
from tilestream.pipelines.manifest import ManifestRow, read_manifest
from tilestream.sinks.catalogue import INDEX, Catalogue, Given, Refreshed, read_catalogue, refresh, with_given
from tilestream.sinks.jobfiles import stem_of
from tilestream.sinks.storerecord import SUFFIX, FeatureSet
from tilestream.stream.journal import difference
from tilestream.xr.cohort import cohort_dataset

MOST_DIFFERENCES = 6
"""Differences between two sets of features that a message names."""


def open_cohort(
    directory: str | os.PathLike[str],
    *,
    encoder: str | None = None,
    manifest: str | os.PathLike[str] | None = None,
    chunks: Literal["slide"] | Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Return the features of all slides in a folder as one lazy dataset; no row of a tile is read.

    Parameters
    ----------
    directory : path
        What `tilestream embed` was given as `--out`.
    encoder : str, optional
        Which features, where the folder holds several sets: name of the encoder, with `@` and the first digits of the
        set where one encoder was used in several ways. An error without it names the sets.
    manifest : path, optional
        Table with `path` and `label` and whatever else is known of slides; goes before what the runs were given.
    chunks : "slide" or Mapping, optional
        Dask arrays instead of lazy ones, with a chunk a slide or as `Dataset.chunk` takes them.

    Returns
    -------
    Dataset
        Along `tile`, the tiles of all slides one after the other: `<encoder>` (tile, feature_<encoder>), `status`,
        `valid`, `tissue`, `entropy`, the corners `x` and `y`, for scenes the centres `crs_x` and `crs_y`, and
        `slide_of_tile`. Along `slide`: `slide` (its relative path), `label`, `date` and the other columns of manifests,
        `n`, `n_ok`, `mpp`, `size` and more, and the vectors of slides, `<encoder>_mean` and `<encoder>_std` of their
        tiles and, of a hierarchy, `<encoder>_slide`.

    Raises
    ------
    ConfigError
        When there are no features, or several sets of them and none was chosen.
    SourceError
        When the folder is not there or cannot be read.

    Notes
    -----
    `.sel` selects slides together with their tiles: by `slide`, `label`, `date` (`slice("2024-03", "2024-05")`) or any
    other text, and tiles by `x` and `y` in pixels of level 0: a slice takes tiles whose centre is in it, so that
    neighbouring boxes share none; a number takes the tile that holds it. Select on the dataset, take variables then.

    Everything comes from one index, `cohort.npz`, which each run writes at its end. It is compared with the folder when
    it is read: stores that came or changed since are read anew, those that are gone are left out with a warning.
    Two stores of one image, as after runs that named it in two ways, are both there, with a warning.
    Memory is about a kilobyte a slide, and its vectors.

    Examples
    --------
    >>> cohort = ts.open_cohort("out/")  # doctest: +SKIP
    >>> cohort.sel(label="tumour", date=slice("2024-03", "2024-05"))["handcrafted"]  # doctest: +SKIP
    >>> cohort.sel(slide="a.svs", y=slice(0, 4096), x=slice(8192, 12288)).load()  # doctest: +SKIP
    """
    root = _folder(directory)
    fresh = _fresh(root)
    catalogue = fresh.catalogue
    if not catalogue.records:
        raise _nothing(root)
    digest = _choose(root, catalogue, encoder)
    notes = (*fresh.notes, *_twice(catalogue.twins(digest)))
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    if manifest is not None:
        catalogue = _told(catalogue, digest, Path(manifest))
    dataset = cohort_dataset(root, catalogue, digest)
    if notes:
        dataset.attrs["notes"] = [*dataset.attrs.get("notes", []), *notes]
    if chunks is None:
        return dataset
    if chunks == "slide":
        return dataset.chunk({"tile": tuple(int(n) for n in dataset["n"].values if n) or -1})
    return dataset.chunk(chunks)


def _folder(directory: str | os.PathLike[str]) -> Path:
    text = os.fspath(directory)
    if is_remote(text):
        raise ConfigError.of(
            f"`{text}`", got="a URL", expected="a folder: runs write features on disks only", do="Copy it to a disk."
        )
    root = Path(text.removeprefix("file://"))
    if root.name.endswith(SUFFIX) and (root / "zarr.json").exists():
        raise ConfigError.of(
            f"`{root}`",
            got="one store",
            expected="the folder of many",
            do=f'Use `ts.open_cohort("{root.parent}")`, or `xr.open_datatree("{root}", engine="zarr")` for this one.',
        )
    if not root.is_dir():
        raise SourceError.of(
            f"`{root}`",
            got="a file" if root.exists() else "nothing there",
            expected="the folder that `tilestream embed` was given as `--out`",
            do="Check the path.",
        )
    return root.absolute()


def _fresh(root: Path) -> Refreshed:
    """Return what lies in the folder now, and keep it for the next time where that is possible."""
    try:
        fresh = refresh(root, read_catalogue(root))
    except OSError as error:
        raise SourceError.of(
            f"`{root}`", got=str(error), expected="folders that can be listed", do="Check the permissions."
        ) from error
    if fresh.is_changed and fresh.catalogue.records:
        try:
            save_index(root, seen=fresh.catalogue, wait_s=0.0)
        except OutputError as error:
            note = f"the index was not written, so that opening takes as long the next time: {error}"
            return replace(fresh, notes=(*fresh.notes, note))
    return fresh


def _twice(twins: tuple[tuple[str, ...], ...], most: int = 3) -> tuple[str, ...]:
    """Return a note on images that are there under several names, none where there are none."""
    if not twins:
        return ()
    pairs = "; ".join(" and ".join(f"`{key}`" for key in keys[:most]) for keys in twins[:most])
    more = f"; and {len(twins) - most} more" if len(twins) > most else ""
    return (
        f"images under several names in this cohort, whose tiles count more than once: {pairs}{more}. "
        f"Remove the stores (`<name>{SUFFIX}`) that are too many, or select without them.",
    )


def _nothing(root: Path) -> ConfigError:
    others = sorted(path.name for path in root.iterdir() if path.name.endswith(".zarr"))
    got = f"{len(others)} Zarr stores such as `{others[0]}`, none with features" if others else "no feature store"
    return ConfigError.of(
        f"`{root}`",
        got=got,
        expected=f"stores named `<image>{SUFFIX}`",
        do="Make them: `tilestream embed IMAGES --out FOLDER`, then open that folder.",
    )


def _choose(root: Path, catalogue: Catalogue, encoder: str | None) -> str:
    """Return the digest of the one feature set that is meant."""
    wanted, _, prefix = (encoder or "").partition("@")
    found = [
        digest
        for digest, one in catalogue.sets.items()
        if (not wanted or one.encoder == wanted) and digest.startswith(prefix)
    ]
    if len(found) == 1:
        return found[0]
    names = Counter(one.encoder for one in catalogue.sets.values())
    listed = "; ".join(
        f"`{_name(digest, one, names)}` on {len(catalogue.of_set(digest))} slides ({one.words})"
        for digest, one in sorted(catalogue.sets.items(), key=lambda item: -len(catalogue.of_set(item[0])))
    )
    same = next((name for name, count in names.items() if count > 1), None)
    if same is not None:
        listed = f"{listed}. Of `{same}` {_differences(catalogue, same)}"
    raise ConfigError.of(
        f"features in `{root}`" if encoder is None else f"encoder `{encoder}` in `{root}`",
        got=listed,
        expected="one set, since vectors of different ones cannot be compared" if found else "one of these sets",
        do="Choose one: `--encoder NAME`, or `ts.open_cohort(…, encoder=NAME)`.",
    )


def _differences(catalogue: Catalogue, name: str) -> str:
    """Return where the contracts of two sets of one encoder differ, each with a slide that has it."""
    same = [digest for digest, one in catalogue.sets.items() if one.encoder == name]
    (first, old), (second, new) = ((catalogue.of_set(key)[0].key, catalogue.sets[key].recipe) for key in same[:2])
    return difference(old, new, most=MOST_DIFFERENCES, where=(f"in `{first}`", f"in `{second}`"))


def _name(digest: str, one: FeatureSet, names: Mapping[str, int]) -> str:
    return one.encoder if names[one.encoder] == 1 else f"{one.encoder}@{digest[:8]}"


def _told(catalogue: Catalogue, digest: str, path: Path) -> Catalogue:
    """Return the catalogue with what a manifest says of the slides of a set."""
    keys = [record.key for record in catalogue.of_set(digest)]
    given: dict[str, Given] = {}
    for row in read_manifest(path).rows:
        for key in _meant(row, keys, path):
            given[key] = Given(label=row.label, id=row.id, extra=dict(row.extra))
    if not given:
        raise ConfigError.of(
            f"manifest `{path}`",
            got="no row that names a slide of the cohort",
            expected=f"paths such as `{keys[0]}`",
            do="Correct the column `path`.",
        )
    return with_given(catalogue, given)


def _meant(row: ManifestRow, keys: list[str], path: Path) -> list[str]:
    """Return the slides that a row means: of that relative path, or the only one that its path ends with."""
    wanted = output_key(row.path)
    if wanted in keys:
        return [wanted]
    fitting = [key for key in keys if f"/{wanted}".endswith(f"/{key}") or f"/{key}".endswith(f"/{wanted}")]
    if not fitting:  # features that were TRIDENT's or CLAM's know a slide by its name without the suffix
        fitting = [key for key in keys if key == stem_of(wanted)]
    if len(fitting) > 1:
        raise ConfigError.of(
            f"manifest `{path}` line {row.line}",
            got=f"`{row.path}`, which fits {len(fitting)} slides: {', '.join(fitting[:3])}",
            expected="one slide a row",
            do=f"Write the path as in the cohort; the index `{INDEX}` lies beside the stores.",
        )
    return fitting
