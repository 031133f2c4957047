"""Opens any image: finds the family that reads it and applies the selection behind `#`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from tilestream.errors import ConfigError, SourceError
from tilestream.registry import resolve
from tilestream.sources.address import KindView, parse_address
from tilestream.sources.classes import parse_invalid
from tilestream.sources.decibels import in_decibels
from tilestream.sources.fielddecoder import decoded_by
from tilestream.sources.files import File
from tilestream.sources.layers import class_layer, without_classes
from tilestream.sources.recognise import (
    FAMILIES,
    HEAD_BYTES,
    SUFFIXES,
    Folder,
    family_of_head,
    list_folder,
    suffix_of,
    unknown_content,
)
from tilestream.sources.scenefolder import family_of_folder, product_of_file, products_in
from tilestream.types import Source

ENTRY_POINTS = "tilestream.sources"
"""Group in which other packages register families of their own."""


def open_source(url: str, *, source: str | None = None, options: Mapping[str, Any] | None = None) -> Source:
    """Return the source that reads an image, chosen by its content.

    Parameters
    ----------
    url : str
        Local path or fsspec URL; `#t=3&z=1` behind it selects on extra axes, `#kind=labels` says that the samples are
        class numbers, `#classes=SCL` takes a class layer, `#invalid=SCL=3,8` leaves classes out, `#db=power` or
        `#db=amplitude` gives radar in decibels, and `#decode=cuda` decodes a store of fields on the worker's device.
    source : str, optional
        Family that must read it (`tiff`, `openslide`, `dicom`, `zarr`, `raster`, `bands`, or `module:callable`).
    options : Mapping, optional
        fsspec storage options.

    Returns
    -------
    Source
        Ready to read; only headers were read so far.

    Raises
    ------
    SourceError
        When there is nothing, or nothing that any family reads; the message says what was found instead.
    ConfigError
        When the selection or the family does not exist.
    """
    address = parse_address(url)
    file = File(url=address.url, options=dict(options or {}))
    opened = _open(file, source or recognise(file))
    if address.decode is not None:
        opened = decoded_by(opened, address.decode)
    if address.index:
        opened = opened.isel(**address.index)
    if address.kind:
        opened = KindView(source=opened, kind=address.kind)
    if address.layer is not None:
        opened = class_layer(opened, address.layer)
    if address.invalid:
        opened = without_classes(opened, parse_invalid(address.invalid))
    return opened if address.decibels is None else in_decibels(opened, address.decibels)


def recognise(file: File) -> str:
    """Return the family that reads a file or folder.

    Parameters
    ----------
    file : File
        Address of the image.

    Returns
    -------
    str
        Name in `FAMILIES`.

    Raises
    ------
    SourceError
        When there is no such file, or no family knows it.
    """
    folder = list_folder(file)
    if folder is not None:
        family = family_of_folder(folder)
        if family is None:
            raise _no_image(file, folder)
        return family
    if file.is_local and not file.exists:
        raise SourceError.of(
            f"`{file.url}`", got="nothing there", expected="an image file or folder", do="Check the path."
        )
    head = file.read(0, min(file.size, HEAD_BYTES))
    return _family_of_file(file, head)


def _no_image(file: File, folder: Folder) -> SourceError:
    scenes = [product.file.name for product in products_in(folder)]
    got = "a folder that is no image itself" if folder.names else "an empty folder"
    return SourceError.of(
        f"`{file.url}`",
        got=f"a folder of {len(scenes)} scenes ({', '.join(scenes[:3])} …)" if len(scenes) > 1 else got,
        expected="an image: a file, a Zarr root, a DICOM series, or a scene (STAC item, SAFE, Landsat)",
        do="Give an image in it, or let `tilestream embed` look through the folder.",
    )


def _family_of_file(file: File, head: bytes) -> str:
    family = family_of_head(head, file.name)
    if family == "tiff":
        from tilestream.sources.tiff import needs_openslide  # parses the header: not for a PNG

        return "openslide" if needs_openslide(file) else "tiff"
    if family is not None:
        return family
    if product_of_file(file, head) is not None:
        return "bands"
    if SUFFIXES.get(suffix_of(file.name)) == "openslide" or not head.startswith(b"version https"):
        from tilestream.sources.openslide import detect  # loads the library: not for a PNG

        if head and detect(file) is not None:
            return "openslide"
    raise unknown_content(file, head)


def _open(file: File, family: str) -> Source:
    opener = resolve(family, table=FAMILIES, group=ENTRY_POINTS)
    if not callable(opener):
        raise ConfigError.of(
            f"`source={family}`", got=type(opener).__name__, expected="a callable", do="Name the function that opens."
        )
    return cast("Source", opener(file))
