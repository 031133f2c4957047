import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from tilestream.errors import ConfigError
from tilestream.kernels.stain import HED
from tilestream.models.handcrafted import UNMIXING, handcrafted
from tilestream.types import Batch, Channel, ImageInfo, Level, Shape


def image_of(channels=("R", "G", "B"), dtype="uint8", modality="brightfield"):
    edge = Shape(y=512, x=512)
    return ImageInfo(
        format="array",
        levels=(Level(index=0, shape=edge, block=edge),),
        dtype=np.dtype(dtype),
        channels=tuple(Channel(name=name) for name in channels),
        fingerprint="0",
        modality=modality,
    )


def batch_of(pixels, valid=None, halo_px=0):
    n = len(pixels)
    return Batch(
        pixels=pixels,
        valid=valid,
        valid_share=np.ones(n, np.float32),
        rows=np.arange(n),
        tile_yx=np.zeros((n, 2), np.int64),
        halo_px=halo_px,
    )


def noise(shape, dtype="uint8", seed=0):
    n, c, h, w = shape
    rng = np.random.default_rng(seed)
    pixels = rng.normal(120, 40, (n, h, w, c)).clip(0, 255) if dtype == "uint8" else rng.gamma(2, 400, (n, h, w, c))
    return np.moveaxis(pixels.astype(dtype), 3, 1)


def values_of(image, batch, **options):
    stage = handcrafted(**options)
    stage = handcrafted(**stage.for_image(image).params)
    return [dict(zip(stage.output_names(image), row, strict=True)) for row in stage(batch)]


def test_channel_values_are_those_of_numpy():
    pixels = noise((3, 3, 64, 64))
    for row, tile in zip(values_of(image_of(), batch_of(pixels)), pixels, strict=True):
        for name, channel in zip("RGB", tile.reshape(3, -1) / 255.0, strict=True):
            assert row[f"{name}_mean"] == pytest.approx(channel.mean(), rel=1e-6)
            assert row[f"{name}_std"] == pytest.approx(channel.std(), rel=1e-6)
            skewness = ((channel - channel.mean()) ** 3).mean() / channel.std() ** 3
            assert row[f"{name}_skewness"] == pytest.approx(skewness, rel=1e-5, abs=1e-6)
            for p in (5, 25, 50, 75, 95):
                expected = np.percentile(channel, p, method="inverted_cdf")
                assert row[f"{name}_p{p:02d}"] == pytest.approx(expected, rel=1e-6)
        expected = np.corrcoef(tile.reshape(3, -1).astype(float))
        assert_allclose(
            [row["R_G_correlation"], row["R_B_correlation"], row["G_B_correlation"]],
            [expected[0, 1], expected[0, 2], expected[1, 2]],
            atol=1e-6,
        )


def test_stains_come_back_out():
    rng = np.random.default_rng(0)
    matrix = np.array(HED) / np.linalg.norm(HED, axis=1, keepdims=True)
    assert_allclose(np.array(UNMIXING), np.linalg.inv(matrix), rtol=1e-12)
    amounts = rng.uniform(0, 0.4, (1, 128, 128, 3))
    light = 256 * 10.0 ** -(amounts @ matrix) - 1
    pixels = np.moveaxis(np.rint(light).clip(0, 255).astype(np.uint8), 3, 1)
    (row,) = values_of(image_of(), batch_of(pixels))
    expected = amounts.mean(axis=(0, 1, 2))
    assert_allclose([row["hematoxylin"], row["eosin"], row["dab"]], expected, atol=2e-3)
    densities = -np.log10((pixels + 1.0) / 256).mean(axis=(0, 2, 3))
    assert_allclose([row[f"{c}_optical_density"] for c in "RGB"], densities, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "has_density"),
    [
        ({}, True),
        ({"modality": "fluorescence"}, False),
        ({"modality": "unknown"}, False),
        ({"dtype": "uint16"}, False),
        ({"channels": ("R", "G", "B", "nir")}, False),
        ({"channels": ("red", "nir", "swir")}, False),
        ({"channels": ("DAPI",)}, False),
    ],
)
def test_density_only_where_samples_are_light(options, has_density):
    image = image_of(**options)
    pixels = noise((2, len(image.channels), 32, 32), image.dtype.name)
    (row, _) = values_of(image, batch_of(pixels))
    assert ("hematoxylin" in row) is has_density
    assert ("R_optical_density" in row) is has_density
    assert np.isfinite(list(row.values())).all()
    assert "hematoxylin" not in values_of(image, batch_of(pixels), value_range=(0, 100))[0]


def test_a_stage_made_without_an_image_agrees_with_its_names():
    stage = handcrafted()
    for channels, dtype in ((("R", "G", "B"), "uint8"), (("a",), "uint16"), (("a", "b", "c"), "float32")):
        pixels = noise((1, len(channels), 16, 16), dtype)
        assert stage(batch_of(pixels)).shape == (1, len(stage.output_names(image_of(channels, dtype))))


def test_structure_tells_stripes_from_noise_and_flat():
    stripes = np.zeros((1, 1, 64, 64), np.uint8)
    stripes[..., ::8] = stripes[..., 1::8] = 200
    image = image_of(("grey",))
    (striped,) = values_of(image, batch_of(stripes))
    (noisy,) = values_of(image, batch_of(noise((1, 1, 256, 256))))
    (flat,) = values_of(image, batch_of(np.full((1, 1, 64, 64), 77, np.uint8)))
    assert striped["luma_coherence_0"] == pytest.approx(1)
    assert noisy["luma_coherence_0"] < 0.05
    assert noisy["luma_gradient_0"] > 0.1
    assert flat["luma_gradient_0"] == flat["luma_coherence_0"] == flat["luma_laplacian_0"] == flat["grey_std"] == 0
    checker = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[None, None]
    (checked,) = values_of(image, batch_of(checker))
    # each pixel differs from its four neighbours by white, and 2x2 sums are flat
    assert checked["luma_laplacian_0"] == pytest.approx(1)
    assert checked["luma_laplacian_1"] == 0


@given(
    c=st.sampled_from([1, 3, 4]),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    share=st.sampled_from([None, 0.5, 0.98]),
    seed=st.integers(0, 99),
)
def test_rows_do_not_depend_on_the_batch(c, dtype, share, seed):
    pixels = noise((7, c, 20, 24), dtype, seed)
    valid = None if share is None else np.random.default_rng(seed).random((7, 20, 24)) < share
    stage = handcrafted(brightfield=True)
    whole = stage(batch_of(pixels, valid))
    for i in range(7):
        alone = stage(batch_of(pixels[i : i + 1], None if valid is None else valid[i : i + 1]))
        assert alone.tobytes() == whole[i : i + 1].tobytes()


def test_four_threads_give_the_same_bits():
    batch, stage = batch_of(noise((8, 3, 64, 64))), handcrafted(brightfield=True)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: stage(batch).tobytes(), range(12)))) == 1


def test_only_valid_pixels_of_the_core_count():
    pixels = noise((1, 3, 48, 48))
    valid = np.ones((1, 48, 48), bool)
    valid[0, :24] = False
    spoiled = pixels.copy()
    spoiled[:, :, :24] = 0
    stage = handcrafted(brightfield=True)
    assert_array_equal(stage(batch_of(pixels, valid)), stage(batch_of(spoiled, valid)))
    core = np.s_[:, :, 8:-8, 8:-8]
    assert_array_equal(stage(batch_of(pixels, halo_px=8)), stage(batch_of(pixels[core])))
    assert np.isnan(stage(batch_of(pixels, np.zeros_like(valid)))).all()


def test_value_range_is_one_mapping_for_all_tiles():
    image = image_of(("b1",), "uint16", "scene")
    pixels = np.full((2, 1, 16, 16), 1000, np.uint16)
    pixels[1] = 3000
    low, high = values_of(image, batch_of(pixels), value_range=(0, 4000))
    assert low["b1_mean"] == pytest.approx(0.25, abs=1 / 255)
    assert high["b1_mean"] == pytest.approx(0.75, abs=1 / 255)


def test_spec_is_json_and_the_contract_lets_native_images_in():
    stage = handcrafted(value_range=[0, 1])
    spec = stage.for_image(image_of(dtype="float32"))
    assert json.loads(json.dumps(dict(spec.params))) == dict(spec.params)
    assert handcrafted(**spec.params) == replace(stage, rgb=True)
    contract = stage.contract
    assert (contract.px, contract.mpp, contract.needs_mpp, contract.channels) == (256, 0.5, False, None)


def test_tiles_that_differ_have_vectors_that_differ(shared_data):
    folder = shared_data / "slides" / "labelled-tiles"

    def crop(name):
        with Image.open(folder / f"{name}.png") as image:
            return np.moveaxis(np.asarray(image.convert("RGB"))[:512, :512], 2, 0)[None]

    rows = {
        name: values_of(image_of(), batch_of(crop(name)))[0]
        for name in ("high-nuclei-score-level0", "low-nuclei-score-level0", "no-tissue")
    }
    for name in ("hematoxylin", "luma_gradient_0", "G_entropy", "G_std"):
        many, few, none = (row[name] for row in rows.values())
        assert many > few > none, name


def test_it_asks_for_tiles_of_any_size_and_describes_them_alike():
    batch = batch_of(noise((3, 3, 32, 32)))
    small = handcrafted(rgb=True, tile_px=32)
    assert small.contract.px == 32
    assert small(batch).tobytes() == handcrafted(rgb=True)(batch).tobytes()
    for wrong in (3, 32.0, True):
        with pytest.raises(ConfigError, match="`tile_px` of `handcrafted`"):
            handcrafted(tile_px=wrong)
