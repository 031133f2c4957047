"""A Zarr v3 hierarchy built beside its final place and put there by one rename."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tilestream.codecs.durable import PARTIAL_SUFFIX, ensure_directory, explained, sync_directory, write_durable
from tilestream.codecs.metadata import encode_json, group_metadata
from tilestream.codecs.place import Place
from tilestream.errors import OutputError

OWNER = "tilestream"
"""Root attribute by which we know a store as ours."""


class TreeWriter:
    """A store under construction in the hidden folder `.<name>.partial` beside its final place.

    Parameters
    ----------
    root : Path
        Final place of the store.
    names : collection of str
        Top-level names that the store can have; a left-over folder with any other name in it is not ours and is
        not touched.

    Raises
    ------
    OutputError
        When the place cannot be written, or is taken by something that is not ours.
    """

    def __init__(self, root: Path, *, names: Collection[str]) -> None:
        self.root = root
        self.partial = _partial(root)
        self._names = frozenset(names) | {"zarr.json"}
        self._nodes: dict[str, dict[str, Any]] = {}
        ensure_directory(root.parent)
        _remove(self.partial, self._names)
        ensure_directory(self.partial)

    def group(self, path: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a group.

        Parameters
        ----------
        path : str
            Path below the root.
        attributes : Mapping, optional
            User attributes.
        """
        self._nodes[path] = group_metadata(attributes)

    def array(self, path: str, metadata: Mapping[str, Any]) -> None:
        """Add an array whose chunks are written already.

        Parameters
        ----------
        path : str
            Path below the root.
        metadata : Mapping
            Its `zarr.json`.
        """
        self._nodes[path] = dict(metadata)

    def commit(self, attributes: Mapping[str, Any], *, replace: bool = False) -> None:
        """Write all metadata, the root's last, and put the store in its place.

        Parameters
        ----------
        attributes : Mapping
            User attributes of the root, with the key `tilestream`.
        replace : bool
            Put aside and remove an older store of ours.

        Raises
        ------
        OutputError
            When the disk is full or the place is taken.
        """
        nodes = dict(sorted(self._nodes.items()))
        for path, node in nodes.items():
            write_durable(self.partial / path / "zarr.json", encode_json(node))
        write_durable(self.partial / "zarr.json", encode_json(group_metadata(attributes, consolidated=nodes)))
        _rename(self.root, self._names, replace=replace)


def remove_leftovers(root: Path, *, names: Collection[str]) -> None:
    """Remove what interrupted runs left beside the place of a store; anything else there stays.

    Parameters
    ----------
    root : Path
        Final place of the store.
    names : collection of str
        Top-level names that the store can have.

    Raises
    ------
    OutputError
        When something that is not ours has one of the hidden names.
    """
    for folder in (_partial(root), _aside(root)):
        _remove(folder, frozenset(names) | {"zarr.json"})


def _partial(root: Path) -> Path:
    return root.parent / f".{root.name}{PARTIAL_SUFFIX}"


def _aside(root: Path) -> Path:
    return root.parent / f".{root.name}.old{PARTIAL_SUFFIX}"


def _remove(folder: Path, names: frozenset[str]) -> None:
    if not folder.is_symlink() and not folder.exists():
        return
    with explained(folder):
        if folder.is_symlink() or not folder.is_dir():
            foreign = [folder.name]
        else:
            foreign = [p.name for p in folder.iterdir() if p.name not in names and p.suffix != PARTIAL_SUFFIX]
        if foreign:
            raise OutputError.of(
                f"`{folder}`",
                got=f"`{min(foreign)}`, which tilestream has not written",
                expected="nothing, or a folder left by an interrupted run",
                do="Move it away, or choose another `--out`.",
            )
        shutil.rmtree(folder)


def root_attributes(root: Path) -> dict[str, Any] | None:
    """Return the root attributes of a store, None where there is none that can be read.

    Parameters
    ----------
    root : Path
        Folder.

    Returns
    -------
    dict or None
        User attributes.
    """
    try:
        return _attributes((root / "zarr.json").read_bytes())
    except OSError:
        return None


def _attributes(text: bytes | None) -> dict[str, Any] | None:
    try:
        document = json.loads(text or b"")
    except (ValueError, RecursionError):
        return None
    attributes = document.get("attributes") if isinstance(document, dict) else None
    return attributes if isinstance(attributes, dict) else None


def check_replaceable(root: Path, *, replace: bool, differs: Callable[[Any], str] | None = None) -> None:
    """Raise unless what lies at `root` is a store of ours that the caller wants replaced.

    Parameters
    ----------
    root : Path
        Final place of a store, which exists.
    replace : bool
        Whether the caller said so.
    differs : callable, optional
        Says how the recipe that is given to it differs from the caller's.

    Raises
    ------
    OutputError
        When it is not ours, or must be kept.
    """
    attributes = root_attributes(root)
    if attributes is None or OWNER not in attributes:
        raise _foreign(str(root))
    if not replace:
        refuse_replacing(str(root), differs(attributes.get("recipe")) if differs is not None else "")


def refuse_replacing(root: str, differs: str = "") -> NoReturn:
    """Raise the error for a finished store that must be kept.

    Parameters
    ----------
    root : str
        Path or URL of the store.
    differs : str
        How its recipe differs from the one that is wanted.

    Raises
    ------
    OutputError
        Always.
    """
    raise OutputError.of(
        f"`{root}`",
        got=f"the finished store of another run{f' ({differs})' if differs else ''}",
        expected="nothing there, or a store of the same recipe",
        do="Choose another `--out`, or give `--no-resume` to replace it.",
    )


def _foreign(root: str) -> OutputError:
    return OutputError.of(
        f"`{root}`",
        got="something that tilestream has not written",
        expected="nothing there, or a store of ours",
        do="Move it away, or choose another `--out`.",
    )


def staging_of(root: Place) -> Place:
    """Return where a store is built: beside its place on a disk, in its place on object storage, which cannot rename.

    Parameters
    ----------
    root : Place
        Final place of the store.

    Returns
    -------
    Place
        Without a `zarr.json` at its root nobody takes what lies there for a store.
    """
    return Place.of(_partial(root.path)) if root.is_local else root


def check_place(root: Place) -> Mapping[str, Any] | None:
    """Return our own record of the store at a place, None where there is none.

    Parameters
    ----------
    root : Place
        Place of a store.

    Returns
    -------
    Mapping or None
        What stands under `OWNER` in its root.

    Raises
    ------
    OutputError
        When something lies there that is not ours.
    """
    text = root.get("zarr.json")
    if text is None and not (root.is_local and root.exists()):
        return None
    attributes = _attributes(text)
    if attributes is None or OWNER not in attributes:
        raise _foreign(root.url)
    record: Mapping[str, Any] = attributes[OWNER]
    return record


def clear_staging(root: Place, *, names: Collection[str]) -> None:
    """Remove what an earlier run has left where a store is built; on object storage the store itself.

    Parameters
    ----------
    root : Place
        Final place of the store.
    names : collection of str
        Top-level names that the store can have.

    Raises
    ------
    OutputError
        When something else lies there.
    """
    if root.is_local:
        _remove(_partial(root.path), frozenset(names) | {"zarr.json"})
        return
    root.remove("zarr.json")  # first, so that nothing is a store that is not whole
    there = {path.partition("/")[0] for path in root.sizes()}
    root.clear(*sorted(there & frozenset(names)))


def put_in_place(root: Place, document: bytes, *, names: Collection[str], replace: bool = False) -> None:
    """Write the root's metadata, and put a store that is built in its place.

    Parameters
    ----------
    root : Place
        Final place of the store.
    document : bytes
        Its `zarr.json`.
    names : collection of str
        Top-level names that the store can have.
    replace : bool
        Put aside and remove an older store of ours.

    Raises
    ------
    OutputError
        When the disk is full or the place is taken.
    """
    staging_of(root).put("zarr.json", document)
    if root.is_local:
        _rename(root.path, frozenset(names) | {"zarr.json"}, replace=replace)


def _rename(root: Path, names: frozenset[str], *, replace: bool) -> None:
    with explained(root):
        if root.exists():
            check_replaceable(root, replace=replace)
            _remove(_aside(root), names)
            root.rename(_aside(root))
        _partial(root).rename(root)
        sync_directory(root.parent)
    _remove(_aside(root), names)
