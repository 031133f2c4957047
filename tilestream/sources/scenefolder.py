"""Which product of a scene a file or folder is: by its metadata where there is any, else by the names of its bands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tilestream.errors import SourceError
from tilestream.sources.files import File
from tilestream.sources.landsat import MTL, landsat_scene
from tilestream.sources.recognise import (
    SUFFIXES,
    Folder,
    family_of_plain,
    inside,
    is_zarr,
    list_folder,
    passed_over,
    suffix_of,
)
from tilestream.sources.scene import Scene, folder_of
from tilestream.sources.sentinel1 import is_product, radar_scene
from tilestream.sources.sentinel2 import EXTRA, FOLDERS, MTD, is_loose, loose_scene, safe_scene
from tilestream.sources.stac import has_copies, stac_scene

MOST_ITEM_BYTES = 8 << 20
"""A larger JSON file is no STAC item."""
_FORMS = ("txt", "xml", "json")
"""Forms of one MTL file, the first that is there is read."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """What makes a file or folder one scene."""

    file: File
    """The metadata, or the folder where only names tell."""
    read: Callable[[], Scene]
    """Finds bands and layers."""
    prefix: str = ""
    """What the names of all its files begin with; empty where nothing tells."""


def family_of_folder(folder: Folder) -> str | None:
    """Return the family of a folder that is one image, None when it is only a place where images lie.

    Parameters
    ----------
    folder : Folder
        Its entries.

    Returns
    -------
    str or None
        `zarr`, `bands` or `dicom`.
    """
    if is_zarr(folder):
        return "zarr"
    return "bands" if product_of_folder(folder) is not None else family_of_plain(folder)


def family_when_alone(folder: Folder) -> str | None:
    """Return the family of a folder that is one image and holds no other, None when it has to be looked through.

    Parameters
    ----------
    folder : Folder
        Its entries.

    Returns
    -------
    str or None
        As `family_of_folder`; None also for a scene beside images that are none of its files: each is an input then.
    """
    if is_zarr(folder):
        return "zarr"
    product = product_of_folder(folder)
    if product is None:
        return family_of_plain(folder)
    return None if _strangers(folder, product) else "bands"


def _strangers(folder: Folder, product: Product) -> list[str]:
    """Return the images in a folder that do not belong to the scene in it."""
    try:
        scene = product.read()
    except SourceError:
        return []  # the scene is an input that fails and says why
    urls = [band.file.url for band in scene.bands] + [layer.file.url for layer in scene.layers]
    own = scene.named | {url.rpartition("/")[2] for url in urls}
    if product.prefix:
        own |= {name for name in folder.names if name.startswith(product.prefix)}
    others = [name for name in folder.names - own if suffix_of(name) in SUFFIXES and not passed_over(name)]
    return sorted(name for name in others if not EXTRA.fullmatch(name))


def product_of_folder(folder: Folder) -> Product | None:
    """Return the product that a folder is, None when it is none, or a place where several lie.

    Parameters
    ----------
    folder : Folder
        Its entries.

    Returns
    -------
    Product or None
        Metadata goes before names: a SAFE or MTL, then a STAC item, then bands that are named as a mission does.
    """
    described = [product for file in _metadata_files(folder) if (product := product_of_file(file)) is not None]
    if described:
        return described[0] if len(described) == 1 else None
    items = [_item(file, item) for file, item in _items(folder) if has_copies(file, item)]
    if items:
        return items[0] if len(items) == 1 else None
    return _product_by_names(folder)


def _metadata_files(folder: Folder) -> list[File]:
    """Return the SAFE and MTL metadata in a folder; of the forms of one MTL only the first."""
    names = {name for name in folder.names if MTD.fullmatch(name)}
    by_stem: dict[str, list[str]] = {}
    for name in sorted(folder.names):
        if match := MTL.fullmatch(name):
            by_stem.setdefault(name[: match.start(1)], []).append(name)
    names |= {min(forms, key=lambda name: _FORMS.index(suffix_of(name))) for forms in by_stem.values()}
    return [inside(folder.file, name) for name in sorted(names)]


def _items(folder: Folder) -> Iterator[tuple[File, dict[str, Any]]]:
    for name in sorted(folder.names):
        if suffix_of(name) == "json" and name != "zarr.json":
            file = inside(folder.file, name)
            if file.exists and (item := stac_item(file)) is not None:
                yield file, item


def _item(file: File, item: dict[str, Any]) -> Product:
    return Product(file=file, read=lambda: stac_scene(file, item))


def stac_item(file: File) -> dict[str, Any] | None:
    """Return the STAC item in a file, None when it holds none.

    Parameters
    ----------
    file : File
        Any file.

    Returns
    -------
    dict or None
        The parsed item.
    """
    if file.size > MOST_ITEM_BYTES:
        return None
    data = file.read(0, file.size)
    if b'"stac_version"' not in data:  # most JSON is none, and much quicker searched than parsed
        return None
    try:
        item = json.loads(data)
    except (ValueError, RecursionError):  # no text, no JSON, or nested without end
        return None
    is_item = isinstance(item, dict) and item.get("type") == "Feature" and "stac_version" in item
    return item if is_item and isinstance(item.get("assets"), dict) else None


def _product_by_names(folder: Folder) -> Product | None:
    file, names = folder.file, set(folder.names)
    if "measurement" in names and "manifest.safe" in names:
        file = inside(file, "measurement")
        listed = list_folder(file)
        names = set(listed.names) if listed else set()
    if is_product(names):
        return Product(file=file, read=lambda: radar_scene(file, names))
    for name in FOLDERS:
        if name in names and (listed := list_folder(inside(file, name))) is not None:
            names |= {f"{name}/{entry}" for entry in listed.names}
    if is_loose(name.rpartition("/")[2] for name in names):
        return Product(file=file, read=lambda: loose_scene(file, names))
    return None


def product_of_file(file: File, head: bytes | None = None) -> Product | None:
    """Return the product that a file describes, None when it is no metadata of a scene.

    Parameters
    ----------
    file : File
        Any file.
    head : bytes, optional
        Its first bytes; without them only the name tells.

    Returns
    -------
    Product or None
        By the metadata of a SAFE, an MTL or a STAC item.
    """
    if MTD.fullmatch(file.name):
        # a quicklook has the name of its folder
        return Product(file=file, read=lambda: safe_scene(file), prefix=_safe_name(file))
    if match := MTL.fullmatch(file.name):
        return Product(file=file, read=lambda: landsat_scene(file), prefix=file.name[: match.start(1) - len("MTL.")])
    if head is None or not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return None
    item = stac_item(file)
    return None if item is None else _item(file, item)


def read_scene(file: File) -> Scene:
    """Return the scene that a file or folder is.

    Parameters
    ----------
    file : File
        Metadata, or a folder.

    Returns
    -------
    Scene
        Its bands and layers, not yet opened.

    Raises
    ------
    SourceError
        When it is none, or its metadata is broken.
    """
    folder = list_folder(file)
    product = product_of_file(file, file.read(0, min(file.size, 64))) if folder is None else product_of_folder(folder)
    if product is None:
        raise SourceError.of(
            f"`{file.url}`",
            got="no metadata of a scene and no bands that are named as a mission does",
            expected="a STAC item, a SAFE, or a Landsat folder with its MTL",
            do="Give the folder of one scene, or its metadata file.",
        )
    return product.read()


def products_in(folder: Folder) -> list[Product]:
    """Return the products whose metadata lie in a folder, of which there may be several.

    Parameters
    ----------
    folder : Folder
        Its entries.

    Returns
    -------
    list of Product
        Sorted by name.
    """
    described = [product for file in _metadata_files(folder) if (product := product_of_file(file)) is not None]
    prefixes = tuple(product.prefix for product in described if product.prefix)
    # the items that come with a Landsat scene describe halves of it
    return described + [_item(file, item) for file, item in _items(folder) if not file.name.startswith(prefixes)]


def _safe_name(file: File) -> str:
    folder = folder_of(file).rpartition("/")[2]
    return folder.removesuffix(".SAFE") if folder.endswith(".SAFE") else ""
