"""Writes stores of ours, or says what it reads in them: run by two interpreters, with older and newer libraries.

`python -m tests.stacks.exchange write DIR`, and `read DIR`, which prints JSON: type, shape and digest of every array as
zarr, xarray and our own sources give it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from tests.sinks.build import make_image, make_plan, make_sink, write_all
from tilestream.pipelines.ingest import build_pyramid
from tilestream.pyramid import open_pyramid
from tilestream.sinks.layout import PROFILES
from tilestream.sinks.raster import build_raster
from tilestream.testing.slide import write_slide
from tilestream.types import Box, Shape


def write(folder: Path) -> None:
    """Write a feature store and its raster, and a pyramid of each profile."""
    image = make_image(height=8 * 300, width=8 * 275, crs="EPSG:32633", affine=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6))
    sink = make_sink(folder, image=image, plan=make_plan(image, tile_px=8, super_tile_px=512, region_px=512))
    sink.finish(write_all(sink, damaged=[3]))
    build_raster(sink.root, folder / "slide.entropy.zarr")
    slide = write_slide(folder / "made.svs", Shape(y=700, x=900))
    for profile in PROFILES:
        build_pyramid(slide, folder / f"{profile}.zarr", profile=profile)


def read(folder: Path) -> dict[str, list[Any]]:
    """Return what is in the stores of a folder."""
    found: dict[str, list[Any]] = {}
    for root in sorted(path.parent for path in folder.rglob("*.zarr/zarr.json")):
        for reader in (_by_zarr, _by_xarray, _by_us):
            for name, values in reader(root):
                found[f"{root.name}/{name} {reader.__name__}"] = [values.dtype.kind, values.shape, _digest(values)]
    return found


def _by_zarr(root: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for name, array in zarr.open_group(root, mode="r").members(max_depth=None):
        if isinstance(array, zarr.Array):
            yield name, np.asarray(array[...])


def _by_xarray(root: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    with xr.open_datatree(root, engine="zarr") as tree:
        for node in tree.subtree:
            for name, array in node.variables.items():
                yield f"{node.path}/{name}", array.values


def _by_us(root: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    if "ome" not in zarr.open_group(root, mode="r").attrs:
        return
    pyramid = open_pyramid(str(root))
    for level in pyramid.levels:
        yield (
            str(level.index),
            pyramid.read(Box(level=level.index, y=0, x=0, height=level.shape.y, width=level.shape.x)),
        )


def _digest(values: np.ndarray[Any, Any]) -> str:
    is_text = values.dtype.kind not in "biuf"  # which other versions hold in other ways
    data = json.dumps(values.tolist()).encode() if is_text else np.ascontiguousarray(values).tobytes()
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        sys.stdout.write(json.dumps(read(Path(sys.argv[2]))))
