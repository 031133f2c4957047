"""Seconds that the first call of each operation takes: compiled on this machine, and loaded from disk ever after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from tests.bench.table import make_row

FIRST_CALLS = """
import json, time
from fractions import Fraction
import numpy as np
from tilestream.kernels.allocate import allocate
from tilestream.kernels.descriptors import descriptors
from tilestream.kernels.gather import gather
from tilestream.kernels.hash_decode import hash_decode
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.mip import mip
from tilestream.kernels.mlp_layers import MlpLayers
from tilestream.kernels.patchify import patchify
from tilestream.kernels.resample import resample
from tilestream.kernels.sample import sample
from tilestream.kernels.stain import stain_separation
from tilestream.kernels.structure_tensor import structure_tensor
from tilestream.kernels.tile_entropy import tile_entropy
from tilestream.types import Box

rgb = np.zeros((64, 64, 3), np.uint8)
image = rgb.transpose(2, 0, 1)
levels = [image, image[:, ::2, ::2]]
at_yx = np.full((5, 2), 3.0)
grid, layers = HashGrid(growth=1.5, log2_table=15), MlpLayers(widths=(32, 64, 64, 3))
table, weights = np.zeros((grid.entries, 2), np.float32), np.zeros(layers.parameters, np.float32)
box = Box(y=0, x=0, height=16, width=16)
half = np.empty((32, 32, 3), np.uint8), np.empty((32, 32), bool)
ratio = (Fraction(2), Fraction(2))
calls = {
    "mip": lambda: mip(image),
    "resample": lambda: resample(
        rgb, None, ratio_yx=ratio, src_yx=(0, 0), dst_yx=(0, 0), out=half[0], out_valid=half[1]
    ),
    "sample": lambda: sample(levels, at_yx, np.full(5, 0.5)),
    "gather": lambda: gather(levels, np.array([[0.5, 0.0, 0.0, 32.0]]), patch_px=16, mean=[0.5] * 3, std=[0.5] * 3),
    "tile_entropy": lambda: tile_entropy(image),
    "descriptors": lambda: descriptors(image[None], None, rgb=True),
    "structure_tensor": lambda: structure_tensor(image, 1.0),
    "stain_separation": lambda: stain_separation(image),
    "patchify": lambda: patchify(image[None], mean=[0.5] * 3, std=[0.5] * 3),
    "allocate": lambda: allocate([np.ones((2, 2), np.float32), np.ones((1, 1), np.float32)], 10),
    "hash_decode": lambda: hash_decode(table, weights, grid=grid, layers=layers, box=box, extent_yx=(64, 64)),
}
seconds = {}
for name, call in calls.items():
    start = time.perf_counter()
    call()
    seconds[name] = time.perf_counter() - start
print(json.dumps(seconds))
"""


def first_calls(cache: str) -> dict[str, float]:
    """Return the seconds of the first call of each operation in a fresh process."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALLS], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with tempfile.TemporaryDirectory() as cache:
        compiled, kept = first_calls(cache), first_calls(cache)
    return [
        make_row(f"first call of {name}", seconds, "s", rival=("kept on disk", kept[name]))
        for name, seconds in compiled.items()
    ]
