"""What lies under a prefix of object storage: listed folder by folder, told by names; opening looks at contents.

A Zarr store, a scene and a folder of DICOM files are one input each and are not looked into further: a store may hold
millions of objects. Web servers have no listing; there each image is named by its URL, or in a manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tilestream.errors import SourceError
from tilestream.sources.files import File
from tilestream.sources.found import Found, belongings, last_part
from tilestream.sources.recognise import SUFFIXES, Folder, inside, list_entries, passed_over, suffix_of
from tilestream.sources.scenefolder import family_when_alone

_DICOM = ("dcm", "dicom")


def under_prefix(url: str, *, recursive: bool) -> Iterator[Found]:
    """Yield what a URL names: itself where it is an image, else what lies under it.

    Parameters
    ----------
    url : str
        fsspec URL, with or without a slash at its end.
    recursive : bool
        Whether folders below it are looked through.

    Yields
    ------
    Found
        Sorted by name. A URL that ends like an image is taken at its word, and so is one whose storage does not
        answer: opening it says why.
    """
    itself = Found(path=url, relative=last_part(url), state="input")
    if suffix_of(last_part(url)) in SUFFIXES:
        yield itself
        return
    place = File(url=url.rstrip("/"))
    try:
        entries = _entries(place)
        is_image = entries is not None and _family(place, entries) in ("zarr", "bands")
    except SourceError:
        entries, is_image = None, True
    if entries is None or is_image:
        yield itself
        return
    yield from _walk(place, place, entries, recursive=recursive)


def _walk(root: File, place: File, entries: Mapping[str, bool], *, recursive: bool) -> Iterator[Found]:
    folder = Folder(file=place, names=frozenset(entries))
    owned = belongings(folder)
    dicom = {name for name in entries if suffix_of(name) in _DICOM and not passed_over(name)}
    if dicom:
        yield _found(root, place, "input")
    for name in sorted(entries):
        file = inside(place, name)
        if name in dicom:
            continue
        if reason := passed_over(name) or owned.get(name):
            yield _found(root, file, "ignored", reason)
        elif entries[name]:
            yield from _subfolder(root, file, recursive=recursive)
        elif suffix_of(name) in SUFFIXES:
            yield _found(root, file, "input")
        else:
            yield _found(root, file, "ignored", "no image by its suffix; name it to have its content looked at")


def _subfolder(root: File, file: File, *, recursive: bool) -> Iterator[Found]:
    entries = _entries(file)
    if entries is None:
        yield _found(root, file, "ignored", "a folder that cannot be listed")
    elif _family(file, entries) in ("zarr", "bands"):
        yield _found(root, file, "input")
    elif recursive:
        yield from _walk(root, file, entries, recursive=True)
    else:
        yield _found(root, file, "ignored", "a folder, and folders are not searched")


def _found(root: File, file: File, state: str, reason: str = "") -> Found:
    relative = file.url[len(root.url) :].strip("/") or last_part(file.url)
    return Found(path=file.url, relative=relative, state="input" if state == "input" else "ignored", reason=reason)


def _family(file: File, entries: Mapping[str, bool]) -> str | None:
    return family_when_alone(Folder(file=file, names=frozenset(entries)))


def _entries(file: File) -> dict[str, bool] | None:
    try:
        return list_entries(file)
    except Exception as error:  # each library below fsspec has errors of its own
        from tilestream.sources.remotefiles import explained

        raise explained(file.url, error) from error
