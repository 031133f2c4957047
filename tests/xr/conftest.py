"""Images that tests of the xarray layer share."""

from __future__ import annotations

import pytest

from tests.madecohort import made_cohort as made_cohort
from tilestream.testing.scene import write_scene
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


@pytest.fixture(scope="session")
def slide(tmp_path_factory):
    """A slide of three levels (1, 4, 16), with the pages that identify a patient."""
    path = tmp_path_factory.mktemp("xr") / "made.svs"
    return write_slide(path, Shape(y=1100, x=1300), mpp=0.5, identifying=True)


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    """A scene of four bands with nodata, a factor, and two overviews."""
    return write_scene(tmp_path_factory.mktemp("xr") / "made.tif", Shape(y=700, x=900))
