"""An update gives the bits of a rebuild, wherever the image has changed."""

import json
import os

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

import tilestream as ts
from tests.sinks.build import tree_bytes
from tilestream.errors import ConfigError, OutputError
from tilestream.pipelines.ingest import build_pyramid
from tilestream.pipelines.update import update_pyramid

SHAPE = (4500, 4700)
BOXES = {
    "one pixel": [(77, 1033, 1, 1)],
    "over shards": [(4000, 4000, 300, 300)],
    "the last corner": [(4490, 4690, 100, 100)],
    "several": [(0, 0, 10, 10), (300, 4200, 700, 20), (4100, 10, 5, 5)],
    "all": [(0, 0, 4500, 4700)],
    "nothing": [(9000, 9000, 5, 5)],
}


def _picture(channels=3, dtype="u1"):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    pixels = 120 + 60 * np.sin(y / 97) + 50 * np.cos(x / 61)
    return (np.repeat(pixels[..., None], channels, axis=2) + rng.integers(0, 9, (*SHAPE, channels))).astype(dtype)


def _changed(pixels, boxes, value=3):
    after = pixels.copy()
    for y, x, height, width in boxes:
        after[y : y + height, x : x + width] = value
    return after


def _save(path, pixels, **attributes):
    array = zarr.create_array(
        path,
        data=pixels.transpose(2, 0, 1),
        chunks=(pixels.shape[2], 512, 512),
        dimension_names=("c", "y", "x"),
        overwrite=True,
    )
    array.attrs.update(attributes)


def _boxes(boxes):
    return [ts.Box(y=y, x=x, height=height, width=width) for y, x, height, width in boxes]


@pytest.fixture(scope="module")
def before():
    return _picture()


@pytest.mark.parametrize("profile", ["portable", "gdal"])
@pytest.mark.parametrize("name", BOXES)
def test_it_gives_the_bits_of_a_rebuild(tmp_path, before, name, profile):
    source, root = tmp_path / "image.zarr", tmp_path / "out" / "x.zarr"
    _save(source, before)
    build_pyramid(source, root, profile=profile)
    _save(source, _changed(before, BOXES[name]))
    update_pyramid(root, _boxes(BOXES[name]), src=source)
    build_pyramid(source, tmp_path / "again" / "x.zarr", profile=profile)
    assert tree_bytes(root) == tree_bytes(tmp_path / "again" / "x.zarr")
