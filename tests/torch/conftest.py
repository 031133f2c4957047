"""Slides with plans that tests of the training feed share."""

from __future__ import annotations

import pytest

import tilestream as ts
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


@pytest.fixture(scope="session")
def slides(tmp_path_factory):
    """Two slides."""
    folder = tmp_path_factory.mktemp("torch")
    return [write_slide(folder / f"{n}.svs", Shape(y=500, x=420 + 200 * n), seed=n) for n in range(2)]


@pytest.fixture(scope="session")
def images(slides):
    """The two slides with 132 tiles of 64 px in super-tiles of 256 px, labelled 0 and 1."""
    pyramids = [ts.open_pyramid(str(slide)) for slide in slides]
    return [
        ts.torch.PlannedImage(
            pyramid=pyramid, plan=ts.plan_tiles(pyramid, tile_px=64, where="all", super_tile_px=256), label=number
        )
        for number, pyramid in enumerate(pyramids)
    ]
