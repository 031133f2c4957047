"""What no operation can work with is refused by name: no error of Numba or NumPy, no hang and no silent result."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.codecs.pyramid.made import made_grids, made_nets
from tests.kernels.answers import ON_CUDA
from tilestream import kernels
from tilestream.errors import ConfigError
from tilestream.kernels.coverage import TileAxis
from tilestream.types import Box, Shape

pytestmark = pytest.mark.skipif(ON_CUDA, reason="refused before anything runs")

U8 = np.full((3, 16, 16), 7, np.uint8)
TILES = np.full((2, 3, 8, 8), 7, np.uint8)
F32 = np.ones((3, 16, 16), np.float32)
LEVELS = [U8, U8[:, ::2, ::2], U8[:, ::4, ::4]]
AT = np.ones((5, 2), np.float32)
GRID = kernels.HashGrid(levels=4, features=2, log2_table=8, n_min=4, growth=1.5)
LAYERS = kernels.MlpLayers(widths=(8, 16, 3))
FIELD = {
    "table": np.zeros((GRID.entries, 2), np.float32), "weights": np.zeros(LAYERS.parameters, np.float32),
    "grid": GRID, "layers": LAYERS, "box": Box(y=0, x=0, height=4, width=4), "extent_yx": (16.0, 16.0),
}  # fmt: skip
GRIDS, NETS = made_grids(Shape(y=4, x=4), 3), made_nets(scales=3)
AXIS = TileAxis(size=4)
GOOD = {
    "allocate": {"gains": [np.ones((4, 4), np.float32), np.ones((2, 2), np.float32)], "budget": 13},
    "anisotropic": {"levels": LEVELS, "at_yx": AT, "du_yx": (1.0, 0.0), "dv_yx": (0.0, 1.0)},
    "blend": {"sums": kernels.blend_sums(TILES, (16, 16)), "tiles": TILES,
              "origins_yx": np.zeros((2, 2), np.int64), "feather_px": 2},
    "blend_sums": {"like": TILES, "shape_yx": (16, 16)},
    "coarser_histograms": {"histograms": np.ones((3, 5, 4, 16), np.uint32)},
    "compand": {"pixels": TILES},
    "cosines": {"vectors": np.ones((5, 4), np.float32), "units": np.ones((2, 4), np.float32)},
    "coverage": {"mask": np.ones((16, 16), np.bool_), "tiles_yx": (AXIS, AXIS)},
    "descriptors": {"pixels": TILES, "rgb": True},
    "entropy": {"counts": np.ones((3, 64), np.int64)},
    "estimate_stains": {"rgb": U8},
    "ewa": {"levels": LEVELS, "at_yx": AT, "du_yx": (1.0, 0.0), "dv_yx": (0.0, 1.0)},
    "finish_blend": {"sums": None},
    "fovea_gains": {"fixations": AT, "leaf_grid": (8, 8), "e0_px": 10.0, "leaf_px": 4, "levels": 2},
    "fovea_levels": {"fixations": AT, "shape": (8, 8), "e0_px": 10.0, "max_level": 3.0},
    "fovea_tokens": {"fixations": AT, "size_px": (64, 64), "e0_px": 10.0, "patch_px": 4, "max_level": 3},
    "gather": {"levels": LEVELS, "tokens": np.array([[0, 0, 0, 4]]), "patch_px": 4},
    "hash_decode": FIELD,
    "hash_encode": {"coords_xyz": AT, "table": FIELD["table"], "grid": GRID},
    "histogram": {"pixels": TILES},
    "logpolar": {"levels": LEVELS, "centre_yx": (8, 8), "e_min_px": 1, "e_max_px": 8, "n_rho": 4, "n_theta": 8},
    "mip": {"a": U8},
    "mlp": {"inputs": np.ones((5, 8), np.float32), "weights": FIELD["weights"], "layers": LAYERS},
    "nodata_mask": {"pixels": U8},
    "orientation_coherence": {"tensor": F32},
    "patchify": {"pixels": TILES, "mean": 0.5, "std": 0.5},
    "pyramid_context": {"grids": GRIDS, "number": 0, "turn": 1, "net": NETS.context[0]},
    "pyramid_synthesis": {"grids": GRIDS, "nets": NETS},
    "raster_mlp": {"columns": np.ones((8, 5), np.float32), "rows": np.ones((8, 4), np.float32),
                   "weights": FIELD["weights"], "layers": LAYERS},
    "resample": {
        "pixels": np.ones((8, 8, 3), np.uint8), "valid": None, "ratio_yx": (Fraction(2), Fraction(2)), "src_yx": (0, 0),
        "dst_yx": (0, 0), "out": np.ones((4, 4, 3), np.uint8), "out_valid": np.ones((4, 4), np.bool_),
    },
    "sample": {"levels": LEVELS, "at_yx": AT, "level": 0.5},
    "stain_separation": {"rgb": U8},
    "tile_entropy": {"image": U8},
    "tile_histograms": {"image": U8},
    "mip_levels": {"a": U8},
    "unpolar": {"rings": F32, "centre_yx": (8, 8), "e_min_px": 1, "e_max_px": 8, "shape_px": (4, 4)},
    "update_mip": {"levels": LEVELS[1:], "a": U8, "boxes": [Box(y=0, x=0, height=4, width=4)]},
}  # fmt: skip
NAN, INF, FAR = float("nan"), float("inf"), 2**70
WRONG = {
    "allocate": {
        "gains": [[None]], "budget": [NAN, INF, "9", None], "branching": [-4, NAN, FAR, "4"], "leaf_px": [NAN, FAR],
        "leaf_grid": [(), (8,), (NAN, 8), 8], "exact_cells": [None],
    },
    "anisotropic": {
        "max_anisotropy": [0, 65, 1.5, NAN, "4"], "origin_yx": [(0,), (NAN, 0), (FAR, 0), 3, (0.5, 0)],
        "ratios": [2, (1, 2), ("1", 2, 4), (1, NAN, 4)], "du_yx": ["abc", (1.0, 2.0, 3.0), (NAN, 0.0)],
        "levels": [[U8, None]],
    },
    "blend": {"sums": [None, 3], "feather_px": [-1, "2", 1.5, NAN]},
    "blend_sums": {"shape_yx": [(), (NAN, 4), 5, (0, 4)], "origin_yx": [(1,), (INF, 0)], "limit": [1.0, "1", NAN]},
    "compand": {"pixels": [TILES.astype(np.longdouble)], "value_range": [(), (0,), (0, NAN), "ab", (0, "b")]},
    "coverage": {"tiles_yx": [(), (AXIS,), (AXIS, 4), 4]},
    "descriptors": {"halo_px": [1.5, NAN, "1", None], "out": [3, U8]},
    "entropy": {"bins": [None, "32", 1.5, 0]},
    "estimate_stains": {"percentile": [NAN, "1", 50], "least_density": [-1, INF, 1e300, None]},
    "ewa": {"origin_yx": [(0,), (NAN, 0), (FAR, 0)], "level": [3, -1]},
    "finish_blend": {"sums": [None, 3]},
    "fovea_gains": {"levels": [0, 1.5, None], "leaf_grid": [(8,), (NAN, 8), 8], "out": [F32, [None, None], 3]},
    "fovea_levels": {"shape": [(8,), (INF, 8), 8], "e0_px": [1e300, "1"], "hysteresis": [None, 1e300]},
    "fovea_tokens": {"size_px": [(), (64,), (1.5, 4), 64], "patch_px": [1.5, INF, FAR, "4"], "max_level": [0.5, 41],
                     "previous": [[[0, 0, 0, 4]], 3], "e0_px": [None, NAN], "hysteresis": [2, "0"]},
    "gather": {"patch_px": [NAN, INF, "4", None, 0], "scale": [0, NAN, 1e300, "1", None], "ratios": [3]},
    "hash_decode": {"grid": [None, 3], "layers": [None], "box": [5], "dtype": ["abc", 0, np.int32], "z": [NAN, "0"],
                    "extent_yx": [16.0, (16.0,), (NAN, 1.0), (FAR, 1.0)], "scale_yx": [(0, 1), "ab", (FAR, 1)]},
    "hash_encode": {"grid": [None, 3]},
    "logpolar": {"centre_yx": [3, (NAN, 0), (None, 0)], "e_min_px": [None, 0, NAN], "n_rho": ["4", 1, 2.5]},
    "mip": {"levels": [-1, 2**31, FAR, NAN, 1.5, "2"], "restart": [0, 1.5, None], "nodata": ["a", [1, 2], 300],
            "out": [U8, 3, [None]]},
    "mlp": {"layers": [None, (8, 16, 3)]},
    "nodata_mask": {"bits": [NAN, 1.5, "1"]},
    "orientation_coherence": {"epsilon": [0, NAN, 1e300, "1"]},
    "patchify": {"mean": ["ab", (0.5, 0.5)], "std": [0, "a"], "scale": [0, NAN, 1e300, "1"], "patch_px": [3, "4", 1.5],
                 "fill": ["0", [0], 1e300]},
    "pyramid_context": {"grids": [3, [None], [U8[0]]], "number": [3, -1, NAN, "0"], "turn": [3, -1, NAN, "0"],
                        "net": [None, 3, NETS.context[0][:2]], "out": [3, (U8, U8)]},
    "pyramid_synthesis": {"grids": [3, [None] * 3, [U8[0]] * 3], "nets": [None, 3], "level": [2, -1, NAN, "0"],
                          "box": [3, (0, 0)], "samples": [3, U8], "out": [3, U8]},
    "raster_mlp": {"layers": [None, (8, 16, 3)], "dtype": ["abc", np.int32], "columns": [F32, F32[0]],
                   "rows": [AT, 3], "out": [F32, 3], "weights": [AT]},
    "resample": {"ratio_yx": [(), (Fraction(2),), (NAN, 2), 2, (0, 1)], "src_yx": [(0,), (NAN, 0), (0.5, 0), 3],
                 "dst_yx": [(0,), (INF, 0), (FAR, 0), None], "kind": ["abc"]},
    "sample": {"origin_yx": [(0,), (NAN, 0), (FAR, 0)], "level": ["abc", NAN], "ratios": [2, ("a", 2, 4)]},
    "stain_separation": {"stains": [3, "ab", (1, 2), ((1, 0, 0), (NAN, 1, 0))]},
    "tile_entropy": {"tile_px": [0, 1.5, None], "bins": [1, 1.5, "8"], "value_range": [(), (0,), (0, NAN), 3]},
    "tile_histograms": {"tile_px": [0, 1.5, None], "bins": [1, 1.5, "8"], "value_range": [(), (0,), (0, NAN), 3]},
    "mip_levels": {"out": [3, U8, [None], [U8]]},
    "unpolar": {"shape_px": [(), (4,), (NAN, 4), 4], "first_yx": [(0.0,), 3, ("a", 0)], "step_px": ["1", NAN, None],
                "fill": ["0", 1e300]},
    "update_mip": {"levels": [3], "boxes": [3, [3], [(0, 0, 1, 1)]]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "name", "value"),
    [(op, name, value) for op, names in WRONG.items() for name, values in names.items() for value in values],
)
def test_a_wrong_parameter_is_refused_by_name(operation: str, name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"`{name}\b.*got .*expected "):
        getattr(kernels, operation)(**{**GOOD[operation], name: value})


OUTS = {
    "allocate": (np.zeros((64, 4), np.int64)), "anisotropic": np.zeros((3, 5), np.float32),
    "coarser_histograms": np.zeros((3, 3, 2, 16), np.uint32), "coverage": np.zeros((4, 4), np.float32),
    "compand": np.zeros(TILES.shape, np.uint8), "entropy": np.zeros(3), "histogram": np.zeros((2, 3, 256), np.uint32),
    "gather": np.zeros((1, 3, 4, 4), np.float32), "hash_encode": np.zeros((5, 8), np.float32),
    "mlp": np.zeros((5, 3), np.float32), "patchify": np.zeros(TILES.shape, np.float32),
    "sample": np.zeros((3, 5), np.float32), "tile_entropy": np.zeros((3, 1, 1), np.float32),
}  # fmt: skip


@pytest.mark.parametrize("operation", OUTS)
def test_outputs_that_cannot_be_written_to_are_refused(operation: str) -> None:
    out = OUTS[operation].copy()
    out.flags.writeable = False
    with pytest.raises(ConfigError, match=r"`out` of `.*read-only"):
        getattr(kernels, operation)(**{**GOOD[operation], "out": out})
    if out.itemsize > 1:
        with pytest.raises(ConfigError, match=r"`out` of `.*foreign byte order"):
            getattr(kernels, operation)(**{**GOOD[operation], "out": OUTS[operation].astype(out.dtype.newbyteorder())})


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", [1]])
def test_threads_are_a_number(threads: object) -> None:
    with pytest.raises(ConfigError, match=r"`threads`: got .*expected at least 1"):
        kernels.histogram(TILES, threads=threads)


@pytest.mark.parametrize("keywords", [{}, {"filter": "binomial"}, {"kind": "labels"}])
def test_a_foreign_byte_order_is_read_and_results_are_native(keywords) -> None:
    a = (np.arange(256, dtype=np.uint16) * 251).reshape(16, 16)
    for got, expected in zip(kernels.mip(a.astype(">u2"), **keywords), kernels.mip(a, **keywords), strict=True):
        assert got.dtype == np.uint16
        assert got.dtype.isnative
        assert (got == expected).all()
    inputs = np.linspace(-1, 1, 40, dtype=np.float32).reshape(5, 8)
    weights = np.linspace(-1, 1, LAYERS.parameters, dtype=np.float32)
    got = kernels.mlp(inputs.astype(">f4"), weights, layers=LAYERS)
    assert got.dtype.isnative
    assert (got == kernels.mlp(inputs, weights, layers=LAYERS)).all()
