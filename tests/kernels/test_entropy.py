import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.kernels.answers import Answer
from tests.strategies import images
from tilestream.errors import ConfigError
from tilestream.kernels.entropy import entropy
from tilestream.kernels.histogram import histogram


@given(a=images(names=("uint8",)), share=st.sampled_from([None, 0.0, 0.5]), seed=st.integers(0, 99))
def test_histogram_equals_bincount(a, share, seed):
    valid = None if share is None else np.random.default_rng(seed).random(a.shape[1:]) < share
    mask = np.ones(a.shape[1:], bool) if valid is None else valid
    got = histogram(a[None], None if valid is None else valid[None])
    assert_array_equal(got[0], [np.bincount(ch[mask], minlength=256) for ch in a])


def test_histogram_of_strided_views():
    base = np.random.default_rng(1).integers(0, 256, (60, 70, 4), dtype=np.uint8)
    cells = base[:56, :56].reshape(7, 8, 7, 8, 4).swapaxes(1, 2).reshape(49, 8, 8, 4)
    views = (np.moveaxis(cells, 3, 1), np.moveaxis(base, 2, 0)[None, :3, 5:, ::2])
    for view in views:
        assert_array_equal(histogram(view), histogram(view.copy()))
    assert histogram(views[0]).sum() == 56 * 56 * 4


@given(
    seed=st.integers(0, 999),
    bins=st.sampled_from([2, 8, 32, 256]),
    pixels=st.integers(0, 5000),
    dtype=st.sampled_from(["uint32", "int64"]),
)
def test_entropy_equals_the_textbook(seed, bins, pixels, dtype, on: Answer):
    rng = np.random.default_rng(seed)
    counts = np.bincount((rng.normal(128, rng.uniform(0, 60), pixels)).clip(0, 255).astype(int), minlength=256)
    p = counts.reshape(bins, -1).sum(axis=1) / max(pixels, 1)
    p = p[p > 0]
    expected = -(p * np.log2(p)).sum() / np.log2(bins) if pixels else np.nan
    table = np.stack([counts, counts, counts])[::-2, ::-1].astype(dtype)[:, ::-1]
    assert_allclose(on(entropy, table, bins=bins), [expected] * 2, atol=1e-12)
    out = np.full((2, 1), 9.0)
    assert_allclose(on(entropy, np.ascontiguousarray(table)[:, None], bins=bins, out=out), [[expected]] * 2, atol=1e-12)


def test_entropy_of_the_extremes():
    flat, single = np.full(256, 7), np.zeros(256, int)
    single[200] = 1000
    assert_allclose(entropy(np.stack([flat, single])), [1.0, 0.0], atol=1e-12)
    assert np.isnan(entropy(np.zeros((2, 3, 256), int))).all()


def test_entropy_does_not_depend_on_the_batch():
    counts = np.random.default_rng(0).integers(0, 500, (33, 3, 256))
    whole = entropy(counts, bins=256)
    assert all(entropy(counts[i], bins=256, threads=1).tobytes() == whole[i].tobytes() for i in range(33))
    many = np.tile(counts, (40, 1, 1))
    assert entropy(many, threads=1).tobytes() == entropy(many, threads=2).tobytes()


def test_refuses_uneven_bins_and_other_samples():
    with pytest.raises(ConfigError, match="`bins`"):
        entropy(np.zeros((1, 256), int), bins=7)
    with pytest.raises(ConfigError, match=r"`counts`.*float64"):
        entropy(np.zeros((1, 256)))
    with pytest.raises(ConfigError, match=r"`counts`.*not contiguous"):
        entropy(np.zeros((2, 4, 256), int)[:, ::2])
    with pytest.raises(ConfigError, match="`histogram`"):
        histogram(np.zeros((1, 1, 4, 4), np.uint16))
