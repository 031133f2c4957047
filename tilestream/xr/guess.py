"""Which files the engine takes unasked: slides and OME-Zarr images, never what belongs to other engines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAGIC: dict[str, tuple[bytes, ...]] = {
    **dict.fromkeys(("svs", "ndpi", "scn", "bif"), _TIFF),
    "svslide": _TIFF,
    "mrxs": (b"\xff\xd8\xff",),
    "vms": (b"[Virtual Microscope Specimen]",),
    "vmu": (b"[Uncompressed Virtual Microscope Specimen]",),
}
_SLIDE_CLASS = b"1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
_HEAD_BYTES = 1024


def is_ours(target: object) -> bool:
    """Return whether a path or URL is an image that no other engine reads better.

    Parameters
    ----------
    target : object
        What `xr.open_*` was given.

    Returns
    -------
    bool
        True for slides by suffix and first bytes (by suffix alone where it is remote: nothing is asked of a server),
        DICOM slides, OME-TIFF, and local OME-Zarr. False for plain Zarr, GeoTIFF and everything else: name the engine.
    """
    if not isinstance(target, str | os.PathLike):
        return False
    text = os.fspath(target).rpartition("#")[0] or os.fspath(target)
    is_remote = "://" in text
    name = (urlsplit(text).path if is_remote else text).rstrip("/").lower()
    suffix = name.rpartition(".")[2]
    if is_remote:
        return suffix in _MAGIC or name.endswith((".ome.tif", ".ome.tiff"))
    try:
        if suffix == "zarr":
            return _is_ome(Path(text))
        if suffix in ("dcm", "dicom"):
            head = _head(text)
            return head[128:132] == b"DICM" and _SLIDE_CLASS in head
        magic = _TIFF if name.endswith((".ome.tif", ".ome.tiff")) else _MAGIC.get(suffix)
        return magic is not None and _head(text).startswith(magic)
    except OSError:
        return False  # not there, or not to be read: whoever opens it says so


def _head(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_HEAD_BYTES)


def _is_ome(root: Path) -> bool:
    for name, is_nested in (("zarr.json", True), (".zattrs", False)):
        try:
            found: Any = json.loads((root / name).read_bytes())
            attrs = found["attributes"]["ome"] if is_nested else found
            return bool(attrs["multiscales"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return False
