"""Memory of an export does not grow with the image."""

from __future__ import annotations

import resource
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import tilestream as ts
from tests.pipelines.holed import HoledSource
from tilestream.pipelines.export_form import ExportOptions
from tilestream.pipelines.export_image import export_pyramid
from tilestream.pyramid.pyramid import Pyramid
from tilestream.types import Array, Block, ImageInfo, Level, Shape

EDGE_PX = 1024


class PaintedSource(HoledSource):
    """As many blocks as one likes, made when they are read."""

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block:
        """Return a block that differs from its neighbours."""
        return Block(pixels=self.pixels + np.uint8((7 * iy + 13 * ix) % 200))


def _info(edge_px: int) -> ImageInfo:
    found = ts.open_pyramid(np.zeros((3, 16, 16), np.uint8)).info
    level = Level(index=0, shape=Shape(y=edge_px, x=edge_px), block=Shape(y=EDGE_PX, x=EDGE_PX))
    return ImageInfo(**{**vars(found), "levels": (level,)})


def _peak_bytes(to: str, edge_px: int, path: Path) -> int:
    """Return the most memory of this process, which has done nothing else."""
    pixels = np.random.default_rng(0).integers(0, 50, (EDGE_PX, EDGE_PX, 3), np.uint8)
    source = PaintedSource(pixels=pixels, valid=np.ones((1, 1), np.bool_), info=_info(edge_px))
    options = ExportOptions(to=to, codec="none", threads=2)
    export_pyramid(Pyramid(source=source, cache_bytes=0), path, options)
    path.unlink()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.slow
@pytest.mark.parametrize("to", ["cog", "ome-tiff"])
def test_memory_is_flat(tmp_path: Path, to: str) -> None:
    peaks = []
    for edge_px in (10 * EDGE_PX, 18 * EDGE_PX):  # 0.1 and 0.3 Gpx
        with get_context("spawn").Pool(1) as pool:
            peaks.append(pool.apply(_peak_bytes, (to, edge_px, tmp_path / "a.tif")))
    # one more square waits for each four levels
    assert peaks[1] < 1.12 * peaks[0], [peak >> 20 for peak in peaks]
