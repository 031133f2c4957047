import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.kernels.answers import MAX_PX, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.macenko import estimate_stains, plane
from tilestream.kernels.stain import HED, density_table, optical_density, stain_separation, unmixing

HE = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11))


def density(pixels):
    white = 2.0 ** (8 * pixels.dtype.itemsize)
    return -np.log10((pixels.astype(np.float64) + 1) / white)


def amounts(rgb, stains):
    stains = np.array(stains, np.float64)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    if len(stains) == 2:
        third = np.cross(stains[0], stains[1])
        stains = np.vstack([stains, third / np.linalg.norm(third)])
    matrix = np.linalg.inv(stains)
    found = np.moveaxis(density(rgb), -3, -1)
    return np.moveaxis(found @ matrix, -1, -3), np.moveaxis(found @ abs(matrix), -1, -3)


def picture(data, channels, rank):
    """An array of one of the memory layouts that occur."""
    n, height, width = (
        data.draw(st.integers(1, 2)),
        data.draw(st.integers(1, MAX_PX)),
        data.draw(st.integers(1, MAX_PX)),
    )
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16]))
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    whole = noise.integers(0, np.iinfo(dtype).max, (n, height + 1, width + 2, channels), dtype, endpoint=True)
    pixels = np.moveaxis(whole[:, 1:, 1:-1], 3, 1)
    layout = data.draw(st.sampled_from(["interleaved", "planar", "reversed"]))
    if layout != "interleaved":
        pixels = np.ascontiguousarray(pixels)
    if layout == "reversed":
        pixels = pixels[:, ::-1, ::-1, ::-1]
    return pixels if rank == 4 else pixels[0]


@given(data=st.data())
def test_amounts_are_those_of_the_formula(data: st.DataObject, on: Answer) -> None:
    rgb = picture(data, 3, data.draw(st.sampled_from([3, 4])))
    stains = data.draw(st.sampled_from([HED, HE, ((1, 0, 0), (0, 1, 0), (0, 0, 1)), ((0.5, 0.2, 0.9), (0.3, 3, 0.2))]))
    clip = data.draw(st.booleans())
    expected, scale = amounts(rgb, stains)
    found = on(stain_separation, rgb, stains, clip=clip)
    assert found.dtype == np.float32
    assert (abs(found - (expected.clip(0) if clip else expected)) <= 4e-7 * scale).all()
    out = np.full(rgb.shape, np.nan, np.float32)
    assert_array_equal(on(stain_separation, rgb, stains, clip=clip, out=out), found)


@given(data=st.data())
def test_densities_are_those_of_the_formula(data: st.DataObject, on: Answer) -> None:
    rank = data.draw(st.sampled_from([2, 3, 4]))
    pixels = picture(data, data.draw(st.sampled_from([1, 3, 5])), max(3, rank))
    pixels = pixels[0] if rank == 2 else pixels
    np.testing.assert_allclose(on(optical_density, pixels), density(pixels), rtol=4e-7)


def test_the_same_bits_everywhere(on: Answer) -> None:
    rgb = np.random.default_rng(3).integers(0, 256, (3, 9, 11), np.uint8)
    assert_array_equal(on(stain_separation, rgb), stain_separation(rgb, threads=1))


def test_white_is_nothing_and_black_is_finite() -> None:
    assert density_table("uint8")[255] == 0 == density_table("uint16")[65535]
    assert density_table("uint8")[0] == pytest.approx(np.log10(256))


def test_unmixing_undoes_mixing() -> None:
    unit = np.array(HED) / np.linalg.norm(HED, axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ unmixing(HED), np.eye(3), atol=1e-14)
    white = np.full((3, 1, 1), 255, np.uint8)
    assert_array_equal(stain_separation(white), 0)


def test_scikit_image_differs_by_its_rules_only() -> None:
    """`rgb2hed` of scikit-image: a logarithm to the base 1e-6, codes over 255, stains as printed."""
    rgb = np.random.default_rng(0).integers(60, 256, (3, 40, 50), np.uint8)
    matrix = np.linalg.inv(HED)
    theirs = (np.log(np.maximum(np.moveaxis(rgb, 0, -1) / 255, 1e-6)) / np.log(1e-6)) @ matrix
    ours = np.moveaxis(stain_separation(rgb), 0, -1)
    # log10 has 6 decades to 1e-6; a stain of length 1 has its amount times the length
    np.testing.assert_allclose(ours, theirs * 6 * np.linalg.norm(HED, axis=1), atol=0.02)


def mixture(stains, noise, shape=(40, 50)):
    """An image of random amounts of two stains."""
    unit = np.array(stains) / np.linalg.norm(stains, axis=1, keepdims=True)
    some = noise.uniform(0.2, 1.0, (*shape, 2)) * np.where(
        noise.random((*shape, 1)) < 0.5, [[[1, 0.05]]], [[[0.05, 1]]]
    )
    return np.moveaxis(np.rint(256 * 10 ** -(some @ unit) - 1).clip(0, 255).astype(np.uint8), 2, 0)


def macenko(rgb, valid, least, percentile):
    """The paper's steps in float64."""
    found = np.moveaxis(density(rgb), -3, -1)[valid]
    found = found[(found >= least).all(axis=1)]
    _, _, rows = np.linalg.svd(found, full_matrices=False)
    e1, e2 = rows[0] * np.sign(rows[0].sum()), rows[1]
    angle = np.arctan2(found @ e2, found @ e1)
    stains = [np.cos(a) * e1 + np.sin(a) * e2 for a in np.percentile(angle, [percentile, 100 - percentile])]
    return np.array(sorted(stains, key=lambda stain: -stain[0]))


@pytest.mark.parametrize("percentile", [1.0, 10.0])
@pytest.mark.parametrize("masked", [False, True])
def test_stains_are_those_of_macenko(on: Answer, percentile: float, masked: bool) -> None:
    noise = np.random.default_rng(5)
    shape = (6, 9) if on.is_cuda else (300, 310)
    rgb = mixture(HE, noise, shape)
    valid = noise.random(shape) < 0.6 if masked else None
    found = on(estimate_stains, rgb, valid, least_density=0.05, percentile=percentile)
    assert_array_equal(found, estimate_stains(rgb, valid, least_density=0.05, percentile=percentile, threads=1))
    if not on.is_cuda:  # a small sample has gaps between its angles
        expected = macenko(rgb, np.ones(shape, bool) if valid is None else valid, 0.05, percentile)
        np.testing.assert_allclose(found, expected, atol=5e-4)


def test_known_stains_are_found() -> None:
    rgb = mixture(((0.65, 0.70, 0.29), (0.25, 0.9, 0.35)), np.random.default_rng(1), (200, 300))
    found = estimate_stains(rgb)
    unit = np.array([(0.65, 0.70, 0.29), (0.25, 0.9, 0.35)])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert (np.sum(found * unit, axis=1) > 0.998).all()
    assert_array_equal(estimate_stains(np.moveaxis(np.ascontiguousarray(np.moveaxis(rgb, 0, 2)), 2, 0)[None]), found)


@given(seed=st.integers(0, 999))
def test_eigenvectors_are_those_of_numpy(seed: int) -> None:
    some = np.random.default_rng(seed).normal(size=(5, 3))
    matrix = some.T @ some
    found = np.array(plane(list(matrix[np.triu_indices(3)])))
    values, vectors = np.linalg.eigh(matrix)
    if min(np.diff(values)) > 0.05:
        np.testing.assert_allclose(abs(np.sum(found * vectors[:, :0:-1].T, axis=1)), 1, atol=1e-12)


@pytest.mark.parametrize(
    ("operation", "arguments", "message"),
    [
        (stain_separation, (np.zeros((3, 4, 4), np.float32),), "`rgb` of `stain_separation`.*uint8 or uint16"),
        (stain_separation, (np.zeros((4, 4, 3), np.uint8),), r"shape \(3, 4, 3\)"),
        (stain_separation, (np.zeros((3, 0, 4), np.uint8),), "at least one sample"),
        (stain_separation, (np.zeros((3, 4, 4), np.uint8), ((1, 2, 3),)), "`stains`"),
        (stain_separation, (np.zeros((3, 4, 4), np.uint8), ((1, 2, 3), (2, 4, 6))), "`stains`.*mixture"),
        (stain_separation, (np.zeros((3, 4, 4), np.uint8), ((1, 2, np.nan), (2, 4, 6))), "`stains`"),
        (optical_density, (np.zeros(4, np.uint8),), "2 or 3 or 4 axes"),
        (optical_density, ([1],), "list"),
        (estimate_stains, (np.full((3, 9, 9), 255, np.uint8),), "0 stained pixels"),
        (estimate_stains, (np.full((3, 9, 9), 90, np.uint8),), "one colour"),
        (estimate_stains, (np.zeros((3, 9, 9), np.uint8), np.ones((9, 8), bool)), "`valid`"),
    ],
)
def test_what_has_no_stains_is_refused(operation, arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        operation(*arguments)


def test_other_limits_and_outputs_are_refused() -> None:
    rgb = np.zeros((3, 4, 4), np.uint8)
    with pytest.raises(ConfigError, match="`percentile`"):
        estimate_stains(rgb, percentile=50)
    with pytest.raises(ConfigError, match="`out` of `stain_separation`"):
        stain_separation(rgb, out=np.zeros((3, 4, 4)))
    with pytest.raises(ConfigError, match=r"`out` of `optical_density`.*contiguous"):
        optical_density(rgb, out=np.zeros((3, 4, 8), np.float32)[..., ::2])
    with pytest.raises(ConfigError, match="`backend`"):
        optical_density(rgb, backend="cuda")
