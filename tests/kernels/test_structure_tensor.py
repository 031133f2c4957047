import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from tests.kernels.answers import MAX_PX, SIMULATED, Answer
from tests.kernels.test_gradient import oracle as derivatives
from tests.kernels.test_gradient import orders, reorder
from tests.strategies import images
from tilestream.errors import ConfigError
from tilestream.kernels.gradient import DTYPES
from tilestream.kernels.orientation_coherence import orientation_coherence
from tilestream.kernels.structure_tensor import halo_px, structure_tensor

SIGMAS = (0.3, 0.6) if SIMULATED else (0.1, 0.5, 1.0, 2.3, 4.0)


def oracle(image, sigma, operator):
    """Products of scipy's derivatives under scipy's Gaussian, in float64."""
    iy, ix = derivatives(image, operator)
    products = np.stack([iy * iy, iy * ix, ix * ix])
    products = products if image.ndim == 2 else products.sum(axis=1)
    return np.stack([ndimage.gaussian_filter(p, sigma, mode="nearest", truncate=4.0) for p in products])


@given(
    image=images(max_px=MAX_PX, channels=(1, 3), names=DTYPES),
    order=orders,
    sigma=st.sampled_from(SIGMAS),
    operator=st.sampled_from(["sobel", "sobel", "scharr", "central"]),
)
def test_tensors_are_those_of_scipy(image, order, sigma, operator, on: Answer) -> None:
    image = reorder(image, order)
    expected = oracle(image, sigma, operator)
    found = on(structure_tensor, image, sigma, operator=operator)
    most = float(np.abs(expected).max()) + float(np.abs(image.astype(np.float64)).max()) ** 2 * 1e-3
    assert_allclose(found, expected, atol=1e-5 * max(most, 1e-30), rtol=0)


def test_sobel_without_its_norm_is_scikit_image_s() -> None:
    """skimage.feature.structure_tensor(image, sigma, mode="nearest"), written out."""
    image = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.float64)
    iy, ix = (ndimage.sobel(image, axis=axis, mode="nearest") for axis in (0, 1))
    theirs = [ndimage.gaussian_filter(p, 1.5, mode="nearest", truncate=4.0) for p in (iy * iy, iy * ix, ix * ix)]
    assert_allclose(structure_tensor(image.astype(np.uint8), 1.5) * 64, theirs, rtol=1e-4, atol=10)


@given(data=st.data())
def test_a_cut_with_its_halo_gives_the_bits_of_the_whole(data: st.DataObject, on: Answer) -> None:
    sigma = 0.6 if SIMULATED else data.draw(st.sampled_from([0.6, 2.0, 4.0]))
    halo = halo_px(sigma)
    size = (2 * halo + 9, 2 * halo + (10 if SIMULATED else 40))
    image = np.random.default_rng(data.draw(st.integers(0, 99))).normal(0, 50, size).astype(np.float32)
    y, x = data.draw(st.integers(halo, halo + 4)), data.draw(st.integers(halo, size[1] - halo - 5))
    cut = image[y - halo : y + 4 + halo, x - halo : x + 5 + halo]
    inner = np.s_[:, halo:-halo, halo:-halo]
    assert_array_equal(
        on(structure_tensor, cut, sigma)[inner], on(structure_tensor, image, sigma)[:, y : y + 4, x : x + 5]
    )


def test_threads_do_not_change_a_bit() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 333, 401), np.uint8)
    tensor = structure_tensor(image, 2.0, threads=1)
    assert_array_equal(tensor, structure_tensor(image, 2.0, threads=2))
    one, two = (orientation_coherence(tensor, threads=n) for n in (1, 2))
    for name, value in vars(one).items():
        assert_array_equal(value, getattr(two, name))


@given(seed=st.integers(0, 99))
def test_orientation_is_that_of_the_eigenvalues(seed: int, on: Answer) -> None:
    edge = 4 if SIMULATED else 30
    a = np.random.default_rng(seed).normal(0, 1, (edge, edge, 2, 2))
    matrices = (a @ a.swapaxes(2, 3) + 0.01 * np.eye(2)).astype(np.float32).astype(np.float64)
    tensor = np.stack([matrices[..., 0, 0], matrices[..., 0, 1], matrices[..., 1, 1]]).astype(np.float32)
    found = on(orientation_coherence, tensor, epsilon=0.05)
    values, vectors = np.linalg.eigh(matrices)
    small, large = values[..., 0], values[..., 1]
    coherence = ((large - small) / (large + small)) ** 2
    assert_allclose(found.coherence, coherence, atol=1e-5)
    assert_allclose(found.ratio, np.minimum(np.sqrt((large + 0.05) / (small + 0.05)), 16), rtol=1e-3)
    y, x = vectors[..., 0, 1], vectors[..., 1, 1]
    sure = coherence > 0.01
    # parallel to the eigenvector of the larger value, whose sign is free
    assert_allclose((np.cos(found.theta) * y - np.sin(found.theta) * x)[sure], 0, atol=1e-5)


def test_stripes_have_their_direction_and_flat_areas_none() -> None:
    y, x = np.mgrid[:40, :60]
    stripes = (100 + 50 * np.sin(0.5 * (np.cos(0.7) * x + np.sin(0.7) * y))).astype(np.float32)
    found = orientation_coherence(structure_tensor(stripes, 3.0))
    inside = np.s_[14:-14, 14:-14]
    assert_allclose(found.theta[inside], 0.7, atol=0.01)
    assert (found.coherence[inside] > 0.99).all()
    assert (found.ratio[inside] > 10).all()
    flat = orientation_coherence(structure_tensor(np.full((9, 9), 7, np.uint8)))
    assert (flat.coherence == 0).all()
    assert (flat.ratio == 1).all()


IMAGE = np.zeros((4, 4), np.uint8)


@pytest.mark.parametrize(
    ("operation", "arguments", "keywords", "message"),
    [
        (structure_tensor, (IMAGE.astype(np.float64),), {}, r"`image`.*float64.*float32"),
        (structure_tensor, (IMAGE, 0.0), {}, r"`sigma`.*positive"),
        (structure_tensor, (IMAGE, 5.0), {}, r"`sigma`.*16 px.*coarser"),
        (structure_tensor, (IMAGE, np.nan), {}, r"`sigma`"),
        (structure_tensor, (IMAGE,), {"operator": "x"}, "`operator`"),
        (structure_tensor, (IMAGE,), {"out": np.zeros((3, 4, 5), np.float32)}, "`out`"),
        (orientation_coherence, (np.zeros((2, 4, 4), np.float32),), {}, "`tensor`"),
        (orientation_coherence, (np.zeros((3, 4, 4)),), {}, "`tensor`"),
        (orientation_coherence, (np.zeros((3, 4, 4), np.float32),), {"epsilon": 0}, "`epsilon`"),
    ],
)
def test_what_has_no_tensor_is_refused(operation, arguments, keywords, message) -> None:
    with pytest.raises(ConfigError, match=message):
        operation(*arguments, **keywords)
