"""TRIDENT's and CLAM's readers, written from their documented layouts; nothing of ours is used in them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np


def trident_patches(path: Path) -> tuple[np.ndarray, int, int]:
    """Coordinates, edge of a patch on level 0 and edge as the encoder sees it, as TRIDENT reads coordinates again."""
    with h5py.File(path, "r") as file:
        attributes, coords = dict(file["coords"].attrs), file["coords"][:]
    patch, source, target = (
        attributes[name] for name in ("patch_size", "level0_magnification", "target_magnification")
    )
    assert int(attributes["patch_size_level0"]) == int(patch * source // target)
    assert attributes["level0_width"] > 0
    assert attributes["level0_height"] > 0
    return coords, int(patch * source // target), int(patch)


def trident_features(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Vectors, coordinates and the edge on level 0, as TRIDENT's slide encoders take them."""
    with h5py.File(path, "r") as file:
        return file["features"][:], file["coords"][:], int(file["coords"].attrs["patch_size_level0"])


def clam_patches(path: Path) -> tuple[np.ndarray, int, int]:
    """Coordinates, level and edge of a patch on that level, as CLAM's feature extraction reads them."""
    with h5py.File(path, "r") as file:
        coords = file["coords"]
        return coords[:], int(coords.attrs["patch_level"]), int(coords.attrs["patch_size"])


def clam_features(folder: Path, slide: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of `pt_files`, vectors and coordinates of `h5_files`."""
    import torch

    tensor = torch.load(folder / "pt_files" / f"{slide}.pt", weights_only=True)
    with h5py.File(folder / "h5_files" / f"{slide}.h5", "r") as file:
        return tensor.numpy(), file["features"][:], file["coords"][:]
