"""The inputs of a run: what was found under the given paths, selected and overridden by a manifest."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tilestream.errors import ConfigError, SourceError
from tilestream.pipelines.keys import is_remote, output_key, unique_keys
from tilestream.pipelines.manifest import Manifest, ManifestRow, read_manifest
from tilestream.sources.address import parse_address
from tilestream.sources.discovery import find_inputs
from tilestream.sources.found import Found


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One input: what a user calls one slide or one scene."""

    key: str
    """Relative path with `/` that names the outputs; unique in the cohort, also where case does not count."""
    url: str
    """Path or URL to open, with its selection behind `#`."""
    id: str
    """Name in tables; the key unless a manifest gives one."""
    mpp: float | None = None
    """Micrometres per pixel of level 0 by the manifest; goes before what the image says."""
    light: str | None = None
    """`brightfield` or `fluorescence` by the manifest; goes before what the image says."""
    mask: str | None = None
    """Mask or GeoJSON of this image; goes before the `where` of the run."""
    label: str | None = None
    """What a manifest knows of the image."""
    bands: tuple[str, ...] = ()
    """Channels to use, in this order; empty = all."""
    is_explicit: bool = False
    """Whether a user named it, on the command line or in a manifest, instead of a folder around it."""
    extra: tuple[tuple[str, str], ...] = ()
    """Values of the manifest's other columns."""


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """All inputs of a run, and what is not one."""

    entries: tuple[Entry, ...]
    """The inputs in order."""
    ignored: tuple[tuple[str, str], ...] = ()
    """Path and reason of each file that is no input."""
    unmatched: tuple[str, ...] = ()
    """A sentence for each manifest row that matches nothing."""
    notes: tuple[str, ...] = ()
    """What a user should know of the manifest."""


def read_cohort(paths: Sequence[str], *, manifest: str | None = None, out: Path | None = None) -> Cohort:
    """Return the inputs under paths, in a manifest, or under paths as far as a manifest names them.

    Parameters
    ----------
    paths : sequence of str
        Files, folders and URLs.
    manifest : str, optional
        CSV file (see `read_manifest`). With paths it selects among what lies there, without paths it is the list of
        inputs. Its relative paths start at the folder it lies in, or at one of `paths`.
    out : Path, optional
        Folder of the run's outputs; what lies in it is no input, since feature stores are Zarr too.

    Returns
    -------
    Cohort
        Inputs, ignored files and rows that match nothing.

    Raises
    ------
    ConfigError
        When neither paths nor a manifest is given, a manifest is wrong, or a row fits several inputs.
    SourceError
        When a given path does not exist.
    """
    if not paths and manifest is None:
        raise ConfigError.of("inputs", got="none", expected="a file, folder or URL", do="Name one, or give --manifest.")
    table = None if manifest is None else read_manifest(manifest)
    found = _found(paths, out) if paths else []
    if table is None:
        given = {_identity(path) for path in paths}
        entries = [_entry(one, is_explicit=_identity(one.path) in given) for one in found if one.state == "input"]
        ignored = tuple((one.path, one.reason) for one in found if one.state != "input")
        return Cohort(entries=_with_unique_keys(entries), ignored=ignored)
    return _select(found, paths, table) if paths else _listed(table)


def _found(paths: Sequence[str], out: Path | None) -> list[Found]:
    """Return what lies under the paths, the run's own outputs left out."""
    for path in paths:
        bare = parse_address(path).url
        if not is_remote(bare) and not os.path.lexists(bare.removeprefix("file://")):
            raise SourceError.of(
                f"`{path}`", got="nothing there", expected="an image or a folder of images", do="Check the path."
            )
    found = find_inputs(paths)
    roots = [Path(_identity(path)) for path in paths if not is_remote(path)]
    place = None if out is None else out.resolve()
    # Outputs beside the images are told by their names; in a folder of their own the folder tells.
    if place is None or any(root.is_relative_to(place) for root in roots):
        return found
    return [one for one in found if is_remote(one.path) or not Path(_identity(one.path)).is_relative_to(place)]


def _entry(found: Found, *, is_explicit: bool) -> Entry:
    key = output_key(found.relative, has_selection=parse_address(found.path).url != found.path)
    return Entry(key=key, url=found.path, id=key, is_explicit=is_explicit)


def _select(found: Sequence[Found], roots: Sequence[str], table: Manifest) -> Cohort:
    """Return the inputs that the manifest names among what lies under the paths."""
    finder = _Finder(found)
    entries, unmatched = [], []
    taken: dict[str, ManifestRow] = {}
    used: set[str] = set()
    for row in table.rows:
        one = finder.match(row, table)
        if one is None:
            unmatched.append(_unmatched(table, row, f"nothing of that name under {', '.join(roots)}"))
            continue
        selection = row.path[len(parse_address(row.path).url) :]
        chosen = replace(one, path=one.path + selection, relative=one.relative + selection)
        if chosen.path in taken:
            raise _same_image(table, row, taken[chosen.path], chosen.path)
        taken[chosen.path] = row
        used.add(one.path)
        entry = _entry(chosen, is_explicit=True)
        entries.append(_overridden(entry, row, table, roots))
    left = [
        (one.path, one.reason if one.state != "input" else f"not named in {table.path.name}")
        for one in found
        if one.path not in used
    ]
    return Cohort(
        entries=_with_unique_keys(entries), ignored=tuple(left), unmatched=tuple(unmatched), notes=table.notes
    )


def _listed(table: Manifest) -> Cohort:
    """Return the inputs that the manifest lists."""
    entries: list[Entry] = []
    unmatched: list[str] = []
    taken: dict[str, ManifestRow] = {}
    for row in table.rows:
        url = _beside(table, row.path)
        bare = parse_address(url).url
        if not is_remote(bare) and not Path(bare).exists():
            unmatched.append(_unmatched(table, row, f"nothing at {bare}"))
            continue
        if _identity(url) in taken:
            raise _same_image(table, row, taken[_identity(url)], url)
        taken[_identity(url)] = row
        inside = _inside(bare, table.path.parent)
        key = output_key(row.path if inside is None else inside + url[len(bare) :])
        entry = Entry(key=key, url=url, id=key, is_explicit=True)
        entries.append(_overridden(entry, row, table, ()))
    return Cohort(entries=_with_unique_keys(entries), unmatched=tuple(unmatched), notes=table.notes)


class _Finder:
    """Finds what a manifest row means among what lies under the paths."""

    def __init__(self, found: Iterable[Found]) -> None:
        self._by_path: dict[str, Found] = {}
        self._by_relative: dict[str, list[Found]] = {}
        for one in found:
            self._by_path[_identity(one.path)] = one
            self._by_relative.setdefault(_normal(one.relative), []).append(one)

    def match(self, row: ManifestRow, table: Manifest) -> Found | None:
        """Return the file of a row, None when there is none."""
        url = parse_address(row.path).url
        for candidate in (url, _beside(table, url)):
            if (one := self._by_path.get(_identity(candidate))) is not None:
                return one
        fitting = self._by_relative.get(_normal(url), [])
        if len(fitting) > 1:
            raise ConfigError.of(
                f"manifest `{table.path}` line {row.line}",
                got=f"`{row.path}`, which fits {len(fitting)} inputs: {', '.join(one.path for one in fitting[:3])}",
                expected="one image a row",
                do="Write the whole path.",
            )
        return fitting[0] if fitting else None


def _overridden(entry: Entry, row: ManifestRow, table: Manifest, roots: Sequence[str]) -> Entry:
    mask = row.mask
    if mask is not None and not is_remote(mask):
        places = [_beside(table, mask), *(str(Path(root) / mask) for root in roots)]
        mask = next((place for place in places if Path(place).exists()), places[0])
    return replace(
        entry,
        id=row.id or entry.id,
        mpp=row.mpp,
        light=row.light,
        mask=mask,
        label=row.label,
        bands=row.bands,
        extra=row.extra,
    )


def _beside(table: Manifest, path: str) -> str:
    if is_remote(path):
        return path
    path = path.removeprefix("file://")
    return path if Path(path).is_absolute() else os.path.normpath(table.path.parent / path)


def _inside(path: str, folder: Path) -> str | None:
    """Return the path relative to a folder, None when it does not lie in it."""
    if is_remote(path):
        return None
    try:
        return Path(path).absolute().relative_to(folder.absolute()).as_posix()
    except ValueError:
        return None


def _identity(path: str) -> str:
    """Return a text that is equal for two spellings of one file."""
    return path if is_remote(path) else str(Path(path.removeprefix("file://")).resolve())


def _normal(relative: str) -> str:
    return unicodedata.normalize("NFC", PurePosixPath(relative.replace("\\", "/")).as_posix())


def _with_unique_keys(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    keys = unique_keys([(entry.key, entry.url) for entry in entries])
    return tuple(
        replace(entry, key=key, id=key if entry.id == entry.key else entry.id)
        for entry, key in zip(entries, keys, strict=True)
    )


def _unmatched(table: Manifest, row: ManifestRow, why: str) -> str:
    return f"{table.path.name} line {row.line}: `{row.path}` matches nothing ({why})"


def _same_image(table: Manifest, row: ManifestRow, first: ManifestRow, path: str) -> ConfigError:
    return ConfigError.of(
        f"manifest `{table.path}` line {row.line}",
        got=f"`{row.path}`, the same image as line {first.line} ({path})",
        expected="each image once",
        do="Remove one of the rows.",
    )


def no_inputs(cohort: Cohort) -> ConfigError:
    """Return the error for a cohort without any input."""
    count = len(cohort.ignored)
    return ConfigError.of(
        "inputs",
        got=f"no image among {count:,} file{'' if count == 1 else 's'}" if count else "an empty folder",
        expected="at least one slide, scene, Zarr or picture",
        do="Check the path; `tilestream check` says what each file is." if count else "Check the path.",
    )
