"""Coordinates of patches that other programs have cut: HDF5 files of TRIDENT, CLAM, wsinfer and AtlasPatch.

All of them hold (x, y) of top-left corners in pixels of level 0 under `coords`. How large a patch is there, they say in
ways of their own:

- TRIDENT: `patch_size` and both magnifications, and since 0.2 `patch_size_level0` itself;
- AtlasPatch: the same as attributes of the file, and five columns: x, y, width, height, level;
- CLAM: `patch_size` pixels of the level `patch_level`; wsinfer likewise, always of level 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError

SUFFIXES = (".h5", ".hdf5")
"""Endings of such files."""
COORDS = "coords"


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchList:
    """Patches of one slide, in the order of the file."""

    xy: npt.NDArray[np.int64]
    """`(n, 2)` top-left corners, pixels of level 0."""
    patch_px: float
    """Edge of a patch in pixels of `level`."""
    level: int
    """Level in whose pixels the edge is; 0 where the file gives it on level 0."""
    seen_px: int | None = None
    """Edge of a patch as its program hands it to an encoder; None where that is the same."""
    shape_yx: tuple[int, int] | None = None
    """Size of level 0, where the file says it."""
    overlap_px: int = 0
    """How far patches lie over each other, in pixels as encoders see them."""
    downsample: float | None = None
    """Pixels of level 0 along one of `level`, where the file says it."""

    def size_level0(self, path: Path, downsample: float | None = None) -> float:
        """Return the edge of a patch in pixels of level 0.

        Parameters
        ----------
        path : Path
            Name of the file, for messages.
        downsample : float, optional
            Pixels of level 0 along one of `level`, where the slide itself is there to say it.

        Returns
        -------
        float
            The edge.

        Raises
        ------
        ConfigError
            When neither the slide nor the file says it.
        """
        factor = 1.0 if self.level == 0 else downsample or self.downsample
        if factor is None:
            raise _error(
                path,
                f"patches of {self.patch_px:g} px of level {self.level}",
                "the attribute `downsample` of that level",
                "Make it anew with the program it is of.",
            )
        return self.patch_px * factor


def is_patch_file(path: str | Path) -> bool:
    """Return whether a name is that of an HDF5 file."""
    return str(path).lower().endswith(SUFFIXES)


def read_patches(path: Path) -> PatchList:
    """Return the patches that a file lists.

    Parameters
    ----------
    path : Path
        HDF5 file.

    Returns
    -------
    PatchList
        Corners and edge.

    Raises
    ------
    ConfigError
        When it cannot be read, or does not say where patches are and how large.
    """
    with open_hdf5(path) as file:
        return patches_of(file, path)


def open_hdf5(path: Path) -> Any:
    """Return an HDF5 file that is open for reading.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    h5py.File
        To be closed.

    Raises
    ------
    ConfigError
        When h5py is not installed, or it is no HDF5 file, or is cut.
    """
    try:
        import h5py
    except ImportError as error:
        raise _error(path, "no module `h5py`", "it installed", "Run `pip install -e '.[h5]'` in the clone.") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        got = "nothing there" if not path.exists() else f"no whole HDF5 file ({error})"
        do = "Check the path." if not path.exists() else "Copy it again, or make it anew with the program it is of."
        raise _error(path, got, "an HDF5 file of patch coordinates", do) from error


def patches_of(file: Any, path: Path) -> PatchList:
    """Return the patches that an open file lists.

    Parameters
    ----------
    file : h5py.File
        The file.
    path : Path
        Its name, for messages.

    Returns
    -------
    PatchList
        Corners and edge.

    Raises
    ------
    ConfigError
        When it does not say where patches are and how large.
    """
    found = file.get(COORDS)
    if found is None or not hasattr(found, "shape"):
        names = ", ".join(map(str, file)) or "nothing"
        raise _error(
            path, names, f"a dataset `{COORDS}`", "Name a file of patches of TRIDENT, CLAM, wsinfer or AtlasPatch."
        )
    shape, kind = tuple(found.shape), found.dtype.kind
    if len(shape) != 2 or shape[1] not in (2, 5) or kind not in "iuf":
        got, expected = f"`{COORDS}` of shape {shape}, {found.dtype}", "numbers of shape (n, 2): x and y"
        raise _error(path, got, expected, "Make it anew with the program it is of.")
    values = np.asarray(found[:])
    if kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise _error(path, f"`{COORDS}` that are no whole pixels", "whole pixels of level 0", "Round them first.")
    attributes = {**_plain(file.attrs), **_plain(found.attrs)}
    patch_px, level, seen_px = _edge(attributes, path)
    width, height = attributes.get("level0_width"), attributes.get("level0_height")
    overlap = attributes.get("overlap")
    return PatchList(
        xy=values[:, :2].astype(np.int64),
        patch_px=patch_px,
        level=level,
        seen_px=seen_px,
        overlap_px=int(overlap) if _is_number(overlap) else 0,
        downsample=_factor(attributes.get("downsample")),
        shape_yx=None if not (_is_number(width) and _is_number(height)) else (int(height), int(width)),
    )


def _edge(attributes: Mapping[str, Any], path: Path) -> tuple[float, int, int | None]:
    """Return the edge of a patch, the level in whose pixels it is, and the edge that encoders are given."""
    patch, level0 = attributes.get("patch_size"), attributes.get("patch_size_level0")
    own, target = attributes.get("level0_magnification"), attributes.get("target_magnification")
    if _is_number(level0):
        return float(level0), 0, int(patch) if _is_number(patch) else None
    if not _is_number(patch):
        has = ", ".join(sorted(attributes)) or "none"
        expected = "`patch_size` with `patch_level`, or with `level0_magnification` and `target_magnification`"
        raise _error(path, f"attributes {has} of `{COORDS}`", expected, "Make it anew with the program it is of.")
    if _is_number(own, least=0.1) and _is_number(target, least=0.1):
        return float(patch * own // target), 0, int(patch)
    level = attributes.get("patch_level")
    if _is_number(level, least=0):
        return float(patch), int(level), None
    got = f"`patch_size` of {patch} px without the level or magnifications it is meant at"
    expected = "`patch_level`, or `level0_magnification` and `target_magnification`"
    raise _error(path, got, expected, "Make it anew with the program it is of.")


def _plain(attributes: Any) -> dict[str, Any]:
    """Return attributes as Python values; one that cannot be read is left out."""
    found = {}
    for name in attributes:
        try:
            value = attributes[name]
        except (OSError, TypeError, ValueError):
            continue
        found[str(name)] = value.item() if isinstance(value, np.generic) else value
    return found


def _factor(value: Any) -> float | None:
    """Return a factor that may be one number, or one along x and one along y."""
    found = np.ravel(value)[0].item() if isinstance(value, np.ndarray) and value.size else value
    return float(found) if _is_number(found) else None


def _is_number(value: Any, *, least: float = 1) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value) and value >= least


def _error(path: Path, got: str, expected: str, do: str) -> ConfigError:
    return ConfigError.of(f"`{path}`", got=got, expected=expected, do=do)
