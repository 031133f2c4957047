import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tilestream.kernels import finite, mip_filter, mip_labels, mip_sums, tile_bins
from tilestream.kernels.mip import mip_levels
from tilestream.kernels.place import place
from tilestream.kernels.rows import flat_rows
from tilestream.kernels.tile_histogram import tile_histograms


def restored(flat, steps, shape):
    """Put the samples back together from the steps."""
    *outer, width, channels = shape
    index = np.arange(width * channels).reshape(width, channels)
    for axis, (n, step) in enumerate(zip(outer, steps, strict=True)):
        lead = np.arange(n) * step
        index = index + lead.reshape((1,) * axis + (n,) + (1,) * (len(shape) - axis - 1))
    return flat[index]


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(1, 4)),
    steps=st.tuples(*[st.sampled_from([1, 2, -1])] * 4),
    dtype=st.sampled_from(["u1", "<u2", ">u2", "f8"]),
)
def test_every_view_can_be_put_back_together(shape, steps, dtype):
    base = np.random.default_rng(0).integers(0, 255, [n * 2 for n in shape]).astype(dtype)
    view = base[tuple(slice(None, None, step) for step in steps)]
    flat, outer = flat_rows(view)
    assert not flat.flags.writeable
    assert flat.dtype.isnative
    assert_array_equal(restored(flat, outer, view.shape), view)


@pytest.mark.parametrize(
    ("cut", "shares"),
    [
        (np.s_[:, 3:20, 5:9], True),
        (np.s_[::2, ::3], True),
        (np.s_[1:1], False),
        (np.s_[:, ::-1], False),
        (np.s_[:, :, ::2], False),
        (np.s_[..., :2], False),
    ],
)
def test_interleaved_rows_are_not_copied(cut, shares):
    base = np.zeros((4, 30, 20, 3), np.uint16)
    flat, _ = flat_rows(base[cut])
    assert np.shares_memory(flat, base) is shares


def test_an_axis_that_repeats_is_not_copied():
    base = np.arange(12, dtype=np.uint8).reshape(1, 4, 3)
    wide = np.broadcast_to(base, (5, 4, 3))
    flat, steps = flat_rows(wide)
    assert steps == (0,)
    assert_array_equal(restored(flat, steps, wide.shape), wide)


U8, HOLED = np.zeros((32, 32), np.uint8), np.full((32, 32, 1), np.nan, np.float32)
HERE = place("test", backend=None, stream=0, threads=1, a=HOLED)
MASKED = {
    "mean": (mip_sums.reduce_cpu, lambda valid: mip_levels(U8, valid, levels=1)),
    "labels": (mip_labels._labels_cpu, lambda valid: mip_levels(U8, valid, levels=1, kind="labels")),
    "filter": (mip_filter._filter_cpu, lambda valid: mip_levels(U8, valid, levels=1, filter="binomial")),
    "tiles": (tile_bins.tiles_cpu, lambda valid: tile_histograms(U8, valid, tile_px=16)),
    "finite": (finite._mask_cpu, lambda valid: finite.needed_mask(HERE, HOLED, valid)),
}


@pytest.mark.parametrize(("kernel", "call"), MASKED.values(), ids=MASKED)
def test_with_and_without_a_mask_one_kernel_is_compiled(kernel, call):
    """Seconds each: what stands for a mask that is not given has the type of one."""
    call(np.tri(32, dtype=np.bool_))
    with_mask = set(kernel.signatures)
    call(None)
    assert set(kernel.signatures) == with_mask
    assert with_mask
