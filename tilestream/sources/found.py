"""What is come across in a folder, on a disk or behind a URL, and what in it belongs to an image beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from tilestream.errors import SourceError
from tilestream.sources.files import File
from tilestream.sources.recognise import Folder, inside, suffix_of
from tilestream.sources.scene import Scene
from tilestream.sources.scenefolder import products_in

SIDECARS = {".ovr": "overviews", ".msk": "mask", ".aux.xml": "metadata"}
"""Ending behind a whole image name → what such a file is to the image."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """One thing that was named or come across."""

    path: str
    """Path or URL to open it by, with the selection that the user gave."""
    relative: str
    """Key of its outputs: path below the folder that was named, suffix included; unique in one call."""
    state: Literal["input", "ignored"]
    """Whether it is to be processed."""
    reason: str = ""
    """Why it is ignored; empty for inputs."""


def last_part(url: str) -> str:
    """Return the last part of a path or URL.

    Parameters
    ----------
    url : str
        Path or URL, perhaps with a slash at its end.

    Returns
    -------
    str
        `root` where there is none.
    """
    return url.rstrip("/").rpartition("/")[2] or "root"


def belongings(folder: Folder) -> dict[str, str]:
    """Return the entries of a folder that belong to an image beside them, with what they are to it.

    Parameters
    ----------
    folder : Folder
        Its entries.

    Returns
    -------
    dict
        Name → words for the report.
    """
    names = folder.names
    owned: dict[str, str] = {}
    for name in sorted(names):
        for ending, what in SIDECARS.items():
            if name.lower().endswith(ending) and name[: -len(ending)] in names:
                owned[name] = f"{what} of {name[: -len(ending)]}"
        suffix = suffix_of(name)
        stem = name[: -len(suffix) - 1]
        if suffix == "mrxs" and stem in names:
            owned[stem] = f"data of {name}"
        elif suffix in ("vms", "vmu"):
            owned |= dict.fromkeys(_listed_in_text(inside(folder.file, name), names), f"data of {name}")
    return owned | _owned_by_scenes(folder)


def _owned_by_scenes(folder: Folder) -> dict[str, str]:
    """Return the files of scenes of which several lie in one folder, so that each is named by its metadata."""
    owned: dict[str, str] = {}
    for product in products_in(folder):
        try:
            scene = product.read()
        except SourceError:
            continue  # an input that fails and says why; what its files are is not known
        for url in _urls(scene):
            if PurePosixPath(url).parent == PurePosixPath(folder.file.url):
                owned[last_part(url)] = f"a band of {product.file.name}"
        for name in folder.names - {product.file.name}:
            if name in scene.named or (product.prefix and name.startswith(product.prefix)):
                owned.setdefault(name, f"a file of {product.file.name}")
    return owned


def _urls(scene: Scene) -> list[str]:
    return [band.file.url for band in scene.bands] + [layer.file.url for layer in scene.layers]


def _listed_in_text(file: File, names: frozenset[str]) -> list[str]:
    """Return the entries that a VMS or VMU key file names (`ImageFile(1,0)=slide.jpg`)."""
    try:
        text = file.read(0, min(file.size, 1 << 20)).decode("latin-1")
    except SourceError:
        return []
    values = {line.partition("=")[2].strip() for line in text.splitlines()}
    return sorted(values & names)
