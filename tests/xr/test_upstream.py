"""Faults of others that users are warned of: each test tells when one is gone, so that the warning can go too."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest
import zarr

from tests.xr.test_lazy import image_of, made
from tilestream.sources.files import File
from tilestream.sources.zarrpython import open_array

ATTEMPTS = 10


def lost_share(path):
    """The share of pixels that dask loses where several of its chunks share a shard."""
    shape = {"shape": (1024, 1024), "chunks": (64, 64), "shards": (512, 512)}
    target = zarr.create_array(path, dtype="uint8", fill_value=0, **shape)
    with dask.config.set(scheduler="threads", num_workers=8):
        da.store(da.ones((1024, 1024), chunks=(64, 64), dtype="uint8"), target, lock=False)
    return 1 - float((target[:] == 1).mean())


def test_dask_still_loses_pixels_of_shards(tmp_path):
    """Each chunk reads its shard, changes its part and writes it back, and nothing holds the others off."""
    if not any(lost_share(tmp_path / f"{attempt}.zarr") > 0 for attempt in range(ATTEMPTS)):
        pytest.fail("da.store into shards lost nothing: if that is mended, take the warning out of the README")


def test_zarr_arrays_that_sources_open_refuse_writers(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(64, 64), chunks=(16, 16), shards=(32, 32), dtype="uint8")[:] = 7
    array = open_array(File(url=str(tmp_path / "a.zarr")), "")
    zeros = da.zeros((64, 64), chunks=32, dtype="uint8")
    for write in (lambda: da.store(zeros, array, lock=False), lambda: da.to_zarr(zeros, array)):
        with pytest.raises(ValueError, match="read-only"):
            write()
    assert (array[:] == 7).all()


def test_dask_still_writes_into_a_copy_of_a_collection():
    """A target of dask chunks is computed first and written into after that: the source is safe, the pixels are gone.

    Nothing that opens an image can refuse it, since no write ever reaches the image.
    """
    pyramid = made()
    image = image_of(pyramid).chunk(x=30)
    da.store(da.zeros(image.shape, dtype=image.dtype, chunks=32), image, lock=False)
    np.testing.assert_array_equal(image, pyramid.source.pixels.transpose(2, 0, 1))
