import numpy as np
import pytest

from tests.plan.build import pyramid
from tests.relevance.made import as_floats, glass, slide, texture
from tilestream.errors import ConfigError
from tilestream.kernels.companding import compand
from tilestream.relevance import Entropy


def directly(codes: np.ndarray, valid: np.ndarray, cell_px: int, bins: int) -> np.ndarray:
    """Entropy of each cell of a channel by the textbook, NaN where nothing is valid."""
    rows, columns = (-(-n // cell_px) for n in codes.shape)
    found = np.full((rows, columns), np.nan)
    for i in range(rows):
        for j in range(columns):
            part = np.s_[i * cell_px : (i + 1) * cell_px, j * cell_px : (j + 1) * cell_px]
            values = codes[part][valid[part]]
            if values.size:
                p = np.bincount(values // (256 // bins)) / values.size
                p = p[p > 0]
                found[i, j] = -(p * np.log2(p)).sum() / np.log2(bins)
    return found


def test_every_level_is_that_of_the_pixels():
    picture = texture(203, 331)
    picture[:, :100] = glass(203, 100)
    levels = Entropy().levels(slide(picture))
    assert [one.values.shape for one in levels] == [(26, 42), (13, 21), (7, 11), (4, 6), (2, 3), (1, 2), (1, 1)]
    whole = np.ones(picture.shape[:2], np.bool_)
    for k, level in enumerate(levels):
        expected = np.mean([directly(picture[..., c], whole, 8 * 2**k, 32) for c in range(3)], axis=0)
        np.testing.assert_allclose(level.values, expected, atol=1e-6)
        assert level.cell_yx == (8 * 2**k, 8 * 2**k)
    np.testing.assert_allclose(Entropy()(slide(picture)).values, levels[0].values, atol=1e-6)


def test_histograms_add_up_over_levels(monkeypatch):
    from tilestream.kernels.tile_histogram import tile_histograms
    from tilestream.relevance import information

    met = []
    spied = information.entropy
    monkeypatch.setattr(information, "entropy", lambda counts, **rest: met.append(counts) or spied(counts, **rest))
    picture = texture(150, 210, channels=1)
    Entropy().levels(slide(picture[..., 0]))
    assert len(met) == 6
    for k, counts in enumerate(met):
        np.testing.assert_array_equal(counts, tile_histograms(picture[..., 0], tile_px=8 * 2**k, bins=32))
        assert counts.sum() == 150 * 210


@pytest.mark.parametrize(("dtype", "bins"), [("uint16", 128), ("int16", 256), ("float32", 256), ("int8", 32)])
def test_other_types_go_through_the_fixed_mapping(dtype, bins):
    values = (texture(64, 80, channels=1)[..., 0] / 3).astype(dtype)
    found = Entropy()(pyramid(values, mpp=8.0))
    codes, _ = compand(values[None, None])
    expected = directly(codes[0, 0], np.ones(values.shape, np.bool_), 8, bins)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert found.floor == pytest.approx(1 / np.log2(bins))


def test_a_stated_range_is_linear():
    values = (texture(64, 64, channels=1)[..., 0] * 16).astype(np.uint16)
    found = Entropy(value_range=(0, 4080))(pyramid(values, mpp=8.0))
    expected = directly(values // 16, np.ones(values.shape, np.bool_), 8, 32)
    np.testing.assert_allclose(found.values, expected, atol=1e-6)


def test_pixels_that_are_not_valid_do_not_count():
    hole = np.s_[10:60, 20:70]
    picture = texture(90, 100, channels=1)[..., 0]
    found = Entropy()(as_floats(picture, hole))
    valid = np.ones(picture.shape, np.bool_)
    valid[hole] = False
    codes, _ = compand(picture.astype(np.float32)[None, None])
    expected = directly(codes[0, 0], valid, 8, 256)
    np.testing.assert_array_equal(found.valid, ~np.isnan(expected))
    assert not found.valid[3, 4]
    np.testing.assert_allclose(found.values, np.nan_to_num(expected), atol=1e-6)


def test_empty_channels_are_left_out_by_name():
    picture = texture(64, 64)
    picture[..., 1:] = 2
    found = Entropy()(pyramid(picture, mpp=8.0))
    np.testing.assert_allclose(found.values, directly(picture[..., 0], np.ones((64, 64), np.bool_), 8, 32), atol=1e-6)
    assert found.notes[-1].startswith("entropy: nothing in ")
    blank = Entropy()(pyramid(np.full((64, 64, 3), 2, np.uint8), mpp=8.0))
    assert not blank.values.any()
    assert blank.valid.all()


def test_of_labels_it_is_that_of_classes():
    classes = np.zeros((64, 64), np.uint16)
    classes[:, 4:8] = 3  # 32 classes would be joined into one bin of 8 codes
    found = Entropy()(pyramid(classes, kind="labels"))
    assert found.values[0, 0] == pytest.approx(1 / 8)  # one bit of eight
    assert not found.values[:, 1:].any()


def test_a_pixel_has_no_entropy():
    with pytest.raises(ConfigError, match="One pixel has no entropy"):
        Entropy(cell_px=1)
