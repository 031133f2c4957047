"""What in a folder is an image, what belongs to one, and what is neither; decided by content first, then by suffix."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tilestream.errors import SourceError
from tilestream.sources.address import parse_address
from tilestream.sources.files import File
from tilestream.sources.found import Found, belongings, last_part
from tilestream.sources.prefixes import under_prefix
from tilestream.sources.recognise import (
    HEAD_BYTES,
    SUFFIXES,
    Folder,
    family_of_head,
    list_folder,
    passed_over,
    suffix_of,
)
from tilestream.sources.scenefolder import family_when_alone, product_of_file


def find_inputs(paths: Iterable[str | os.PathLike[str]], *, recursive: bool = True) -> list[Found]:
    """Return the inputs under some paths, and once each what is ignored and why.

    Parameters
    ----------
    paths : iterable of path
        Files, folders and URLs. What is named here is an input even when nothing can read it: opening it says why.
    recursive : bool
        Whether folders in a named folder are looked through.

    Returns
    -------
    list of Found
        In the order of the paths, and sorted by name inside each. A file that is reached twice is listed once. Keys
        are relative to the named folder; where two differ only in that folder, the later one gets its name in front.
    """
    texts = [os.fspath(path) for path in paths]
    # what is named is never ignored, also when a folder that is named before it would do so
    named = {_identity(text) for text in texts if not Path(text).is_dir()}
    result: list[Found] = []
    seen: set[str] = set()
    keys: set[str] = set()
    for text in texts:
        for found in _under(text, recursive=recursive):
            identity = _identity(found.path)
            if identity in seen or (identity in named and found.state == "ignored"):
                continue
            seen.add(identity)
            key = _free(found.relative, last_part(parse_address(text).url), keys)
            keys.add(key)
            result.append(replace(found, relative=key))
    return result


def _identity(path: str) -> str:
    url = parse_address(path).url
    # two selections of one image are two inputs
    return path if "://" in url else os.path.realpath(url) + path[len(url) :]


def _free(relative: str, root: str, keys: set[str]) -> str:
    candidate, number = relative, 1
    while candidate in keys:
        candidate = f"{root}/{relative}" if number == 1 else f"{root}-{number}/{relative}"
        number += 1
    return candidate


def _under(path: str, *, recursive: bool) -> Iterator[Found]:
    address = parse_address(path)
    name = last_part(address.url)
    if address.url != path:
        yield Found(path=path, relative=f"{name}@{path[len(address.url) + 1 :].replace('&', ',')}", state="input")
        return
    if "://" in path and not path.startswith("file://"):
        yield from under_prefix(path, recursive=recursive)
        return
    if "://" in path or not Path(path).is_dir():
        yield Found(path=path, relative=name, state="input")
        return
    folder = _listed(Path(path))
    if isinstance(folder, Found) or family_when_alone(folder) in ("zarr", "bands"):
        yield Found(path=path, relative=name, state="input")
        return
    yield from _walk(Path(path), Path(path), folder, (os.path.realpath(path),), recursive=recursive)


def _listed(folder: Path) -> Folder | Found:
    try:
        listed = list_folder(File(url=str(folder)))
    except SourceError as error:
        return Found(path=str(folder), relative="", state="ignored", reason=f"cannot be listed: {error.__cause__}")
    return listed or Folder(file=File(url=str(folder)), names=frozenset())


def _walk(root: Path, place: Path, folder: Folder, above: tuple[str, ...], *, recursive: bool) -> Iterator[Found]:
    """Yield what lies in a folder, sorted by name; `above` are the real paths of the folders it lies in."""
    owned = belongings(folder)
    slides = _dicom_series(place, folder.names)
    for name in sorted(folder.names):
        path = place / name
        relative = path.relative_to(root).as_posix()
        reason = passed_over(name) or owned.get(name)
        if reason:
            yield Found(path=str(path), relative=relative, state="ignored", reason=reason)
        elif name in slides:
            if (found := slides[name]) is not None:
                yield replace(found, relative=_relative(Path(found.path), root))
        elif path.is_dir():
            yield from _subfolder(root, path, above, recursive=recursive)
        else:
            yield _file(path, relative)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else path.resolve().name


def _subfolder(root: Path, path: Path, above: tuple[str, ...], *, recursive: bool) -> Iterator[Found]:
    relative, real = path.relative_to(root).as_posix(), os.path.realpath(path)
    listed = _listed(path)
    if real in above:
        yield Found(path=str(path), relative=relative, state="ignored", reason="a link to a folder that it lies in")
    elif isinstance(listed, Found):
        yield replace(listed, relative=relative)
    elif family_when_alone(listed) in ("zarr", "bands"):
        yield Found(path=str(path), relative=relative, state="input")
    elif recursive:
        yield from _walk(root, path, listed, (*above, real), recursive=True)
    else:
        yield Found(path=str(path), relative=relative, state="ignored", reason="a folder, and folders are not searched")


def _file(path: Path, relative: str) -> Found:
    """Return a file as an input when its content or, failing that, its suffix is known."""
    file = File(url=str(path))
    is_known = suffix_of(path.name) in SUFFIXES
    if not file.exists:
        reason = "a broken link" if path.is_symlink() else "no regular file"
        return Found(path=str(path), relative=relative, state="input" if is_known else "ignored", reason=reason)
    try:
        head = b"" if is_known else file.read(0, min(file.size, HEAD_BYTES))
        recognised = is_known or family_of_head(head, path.name) is not None or _is_scene(file, head)
    except SourceError as error:
        return Found(path=str(path), relative=relative, state="ignored", reason=f"cannot be read: {error.__cause__}")
    if recognised:
        return Found(path=str(path), relative=relative, state="input")
    return Found(
        path=str(path), relative=relative, state="ignored", reason="no image: neither content nor suffix is known"
    )


def _is_scene(file: File, head: bytes) -> bool:
    """Return whether a file that lies in a folder is the metadata of a scene; only JSON is looked into for that."""
    return product_of_file(file, head if suffix_of(file.name) == "json" else None) is not None


def _dicom_series(place: Path, names: frozenset[str]) -> Mapping[str, Found | None]:
    """Return the DICOM files of a folder: the first of each slide as an input, its others as None, the rest with why.

    A slide that is alone in its folder is opened, and named, by the folder.
    """
    dicom = [name for name in sorted(names) if not passed_over(name) and _is_dicom(place / name)]
    if not dicom:
        return {}
    from tilestream.sources.dicomfile import WSI  # pydicom is not loaded for folders without DICOM

    result: dict[str, Found | None] = {}
    kinds: dict[str, str] = {}
    for name in dicom:
        found, series = _instance(place / name)
        if found is not None:
            result[name] = found
        elif series in kinds:
            result[name] = None
        else:
            kinds[series] = WSI
            result[name] = Found(path=str(place / name), relative="", state="input")
    others = [name for name in names if name not in dicom and passed_over(name) is None]
    if len(kinds) == 1 and all(found is None or found.state == "input" for found in result.values()) and not others:
        first = next(name for name, found in result.items() if found is not None)
        result[first] = Found(path=str(place), relative="", state="input")
    return result


def _is_dicom(path: Path) -> bool:
    file = File(url=str(path))
    try:
        return file.exists and file.size >= 132 and file.read(128, 4) == b"DICM"
    except SourceError:
        return False


def _instance(path: Path) -> tuple[Found | None, str]:
    """Return why a DICOM file is no slide (or a damaged one, an input), else None and its series."""
    from tilestream.sources.dicomfile import NEVER, WSI, identify

    try:
        identity = identify(File(url=str(path)))
    except SourceError:
        return Found(path=str(path), relative="", state="input"), ""
    if identity.sop_class != WSI:
        return Found(path=str(path), relative="", state="ignored", reason="DICOM, but no image of a slide"), ""
    if identity.flavour in NEVER or identity.shows_label:
        reason = "a label or overview image of a slide, which can identify a patient"
        return Found(path=str(path), relative="", state="ignored", reason=reason), ""
    return None, identity.series
