"""Vectors that other programs have stored: bags of TRIDENT, CLAM and AtlasPatch under some folders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.codecs.tensorfile import read_tensor
from tilestream.errors import ConfigError, DamagedError
from tilestream.sources.patchfiles import COORDS, SUFFIXES, PatchList, open_hdf5, patches_of

FEATURES = "features"
Kind: TypeAlias = Literal["trident", "clam", "atlaspatch"]
TENSORS, TABLES = "pt_files", "h5_files"
"""CLAM's two folders of vectors."""
_PATCHES = "_patches"
_PREFIXES = ("patch_features_", "features_")
_OF_SLIDES = "slide_features"


@dataclass(frozen=True, kw_only=True)
class Bag:
    """The vectors of one encoder on one slide, in a file."""

    path: Path
    """The file."""
    slide: str
    """Name of the slide: the file's without ending."""
    encoder: str
    """Name of the encoder: what the file says, or the name of its folder."""
    kind: Kind
    """Whose layout it is."""
    group: Path
    """Folder of patches of one kind: bags of one slide from two of them are of different tiles."""
    node: str = FEATURES
    """Path of the vectors in the file."""
    patches: Path | None = None
    """File of the patches of the slide, where the bag does not say how large they are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Vectors:
    """A bag in memory."""

    values: npt.NDArray[np.float32]
    """`(n, d)`."""
    patches: PatchList
    """`n` of them."""
    facts: dict[str, Any]
    """Attributes of the patches, as the file has them; numbers and texts."""


def find_bags(paths: Sequence[Path]) -> list[Bag]:
    """Return the bags under some folders, those of a slide one after the other.

    Parameters
    ----------
    paths : sequence of Path
        Job folders, folders of patches or of features, or files.

    Returns
    -------
    list of Bag
        Of CLAM one a slide and encoder, though it has two files; vectors of whole slides are none.

    Raises
    ------
    ConfigError
        When h5py is not installed.
    """
    files = sorted({file for path in paths for file in _files(path)})
    patches: dict[str, list[Path]] = {}
    for file in files:
        if file.parent.name == "patches" and _is_hdf5(file):
            patches.setdefault(_slide_of(file), []).append(file)
    found: dict[tuple[Path, str, str], Bag] = {}
    for file in files:
        for bag in _bags_of(file):
            # HDF5 comes before a tensor: it has the coordinates too
            own = _patches_of(bag, patches.get(bag.slide, []))
            found.setdefault((bag.group, bag.slide, bag.encoder), replace(bag, patches=own))
    return sorted(found.values(), key=lambda bag: (bag.slide, str(bag.group), bag.encoder))


def _patches_of(bag: Bag, files: Sequence[Path]) -> Path | None:
    """Return the file of a bag's patches: that of its own folder, or the only one."""
    own = [file for file in files if file.parent.parent == bag.group]
    return next(iter(own or (files if len(files) == 1 else ())), None)


def read_bag(bag: Bag) -> Vectors:
    """Return the vectors of a bag and where its patches lie.

    Parameters
    ----------
    bag : Bag
        The bag.

    Returns
    -------
    Vectors
        In the order of the file.

    Raises
    ------
    ConfigError
        When it does not say where patches are or how large, or does not hold one vector for each.
    DamagedError
        When the file is cut.
    """
    if bag.path.suffix == ".pt":
        return _joined(bag, np.asarray(read_tensor(bag.path)), None)
    with open_hdf5(bag.path) as file:
        try:
            values = np.asarray(file[bag.node][:])
            corners = None if bag.kind == "clam" else patches_of(file, bag.path)
            own = np.asarray(file[COORDS][:, :2]) if COORDS in file else None
            facts = {**_facts(file), **(_facts(file[COORDS]) if COORDS in file else {})}
        except (OSError, KeyError) as error:
            raise DamagedError(f"`{bag.path}`: {error}") from error
    if corners is None:
        return _joined(bag, values, own)
    return Vectors(values=_checked(bag, values, len(corners.xy)), patches=corners, facts=facts)


def _joined(bag: Bag, values: npt.NDArray[Any], xy: npt.NDArray[Any] | None) -> Vectors:
    """Return vectors of CLAM, which keeps the size of patches, and for tensors their corners, in another file."""
    if bag.patches is None:
        raise ConfigError.of(
            f"`{bag.path}`",
            got="vectors that do not say " + ("where patches lie" if xy is None else "how large patches are"),
            expected=f"CLAM's `patches/{bag.slide}.h5` under the folders given",
            do="Name the folder `patches` too, beside that of the features.",
        )
    with open_hdf5(bag.patches) as file:
        patches, facts = patches_of(file, bag.patches), _facts(file[COORDS])
    if xy is not None:
        patches = replace(patches, xy=xy.astype(np.int64))
    return Vectors(values=_checked(bag, values, len(patches.xy)), patches=patches, facts=facts)


def _checked(bag: Bag, values: npt.NDArray[Any], patches: int) -> npt.NDArray[np.float32]:
    values = values[0] if values.ndim == 3 and len(values) == 1 else values  # TRIDENT's batches of one
    if not values.size and not patches:
        values = values.reshape(0, values.shape[-1] if values.ndim == 2 else 0)
    if values.ndim != 2 or values.dtype.kind not in "fiu" or len(values) != patches:
        raise ConfigError.of(
            f"`{bag.path}`",
            got=f"`{FEATURES}` of shape {values.shape}, {values.dtype}, and {patches} patches",
            expected="numbers of shape (n, d), one row for each patch",
            do="Make it anew with the program it is of.",
        )
    return values.astype(np.float32, copy=False)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in path.rglob("*"):
        if file.suffix.lower() in (*SUFFIXES, ".pt") and not file.name.startswith(".") and file.is_file():
            yield file


def _is_hdf5(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def _slide_of(file: Path) -> str:
    return file.stem.removesuffix(_PATCHES) if file.parent.name == "patches" else file.stem


def _bags_of(file: Path) -> Iterator[Bag]:
    """Yield the bags of a file; none where it holds patches alone, or the vector of a slide."""
    slide, folder = _slide_of(file), file.parent
    if not _is_hdf5(file):
        if folder.name == TENSORS:
            encoder = _encoder_of(folder.parent)
            yield Bag(path=file, slide=slide, encoder=encoder, kind="clam", group=folder.parent.parent)
        return
    try:
        opened = open_hdf5(file)
    except ConfigError:
        if folder.name != "patches" and not folder.name.startswith(_OF_SLIDES):  # read again, and told, in its turn
            yield Bag(path=file, slide=slide, encoder=_encoder_of(folder), kind="trident", group=folder.parent)
        return
    with opened as content:
        features = content.get(FEATURES)
        if features is None:
            return
        if not hasattr(features, "shape"):
            for encoder in features:
                node = f"{FEATURES}/{encoder}"
                yield Bag(path=file, slide=slide, encoder=_name(encoder), kind="atlaspatch", group=folder, node=node)
        elif folder.name == TABLES:
            yield Bag(
                path=file, slide=slide, encoder=_encoder_of(folder.parent), kind="clam", group=folder.parent.parent
            )
        elif features.ndim != 1 or not folder.name.startswith(_OF_SLIDES):
            told = features.attrs.get("encoder")
            encoder = _name(told) if isinstance(told, str) and told else _encoder_of(folder)
            yield Bag(path=file, slide=slide, encoder=encoder, kind="trident", group=folder.parent)


def _encoder_of(folder: Path) -> str:
    """Return the name of an encoder from that of its folder."""
    name = folder.name
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return _name(name)


def _name(text: str) -> str:
    """Return a text as a name of a variable."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).lstrip("_.-") or "encoder"


def _facts(node: Any) -> dict[str, Any]:
    found = {}
    for name, value in node.attrs.items():
        plain = value.item() if isinstance(value, np.generic) else value
        if isinstance(plain, int | float | str):
            found[name] = plain
    return found
