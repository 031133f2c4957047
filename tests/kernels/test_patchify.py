import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.kernels.answers import MAX_PX, SIMULATED, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.patchify import patchify

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALES = {"uint8": 1 / 255, "uint16": 1 / 65535, "int16": 1 / 32767, "float32": 1.0}


def samples(dtype, shape, noise):
    if dtype == "float32":
        return noise.normal(0.4, 1, shape).astype(dtype)
    info = np.iinfo(dtype)
    return noise.integers(info.min, info.max, shape, dtype, endpoint=True)


def exact(pixels, valid, mean, std, scale, fill):
    """Return the definition in float64, and how far from it the header allows a result to be."""
    mean, std = (np.broadcast_to(np.float64(v), (pixels.shape[1],))[:, None, None] for v in (mean, std))
    scaled = pixels.astype(np.float64) * scale
    found, near = (scaled - mean) / std, 2.5e-7 * (abs(scaled) + abs(mean)) / std
    bad = np.broadcast_to(~valid[:, None], found.shape)
    found[bad], near[bad] = np.float32(fill), 0
    return found, near


def patches(batch, patch):
    n, c, h, w = batch.shape
    cut = batch.reshape(n, c, h // patch, patch, w // patch, patch)
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(n, -1, c * patch * patch)


@given(data=st.data())
def test_is_the_definition(data: st.DataObject, on: Answer) -> None:
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    name = data.draw(st.sampled_from(sorted(SCALES)))
    channels, n = data.draw(st.sampled_from([1, 3, 4])), data.draw(st.integers(1, 2))
    patch = data.draw(st.sampled_from([None, 1, 3, 4] if SIMULATED else [None, 1, 3, 7, 14, 16]))
    most = MAX_PX if patch is None else max(1, MAX_PX // patch)
    height, width = ((patch or 1) * data.draw(st.integers(1, most)) for _ in "yx")
    memory = samples(name, (n, height + 1, width + 2, channels), noise)
    order = data.draw(st.sampled_from(["interleaved", "planar", "reversed", "skipping"]))
    pixels = np.moveaxis(memory[:, 1:, 1:-1], 3, 1)
    if order == "planar":
        pixels = np.ascontiguousarray(pixels)
    if order == "reversed":
        pixels = pixels[::-1, ::-1, ::-1, ::-1]
    if order == "skipping":
        pixels = np.repeat(np.repeat(pixels, 2, 3), 3, 2)[:, :, ::3, ::2]
    valid = noise.random((n, height, width)) < 0.7 if data.draw(st.booleans()) else None
    mean, std = (0.1, 0.5) if channels == 1 else ((*MEAN, 0.3), (*STD, 2.0))
    if channels > 1:
        mean, std = mean[:channels], std[:channels]
    dtype, fill = data.draw(st.sampled_from(["float32", "float16"])), data.draw(st.sampled_from([0.0, -1.7]))
    share = np.full((n, 1 if patch is None else height * width // patch**2), 7, np.float32)

    def run(*arrays, share=None, **keywords):
        return patchify(*arrays, share=share, **keywords), share

    got, got_share = on(run, pixels, valid, mean=mean, std=std, patch_px=patch, dtype=dtype, fill=fill, share=share)
    there = np.ones((n, height, width), bool) if valid is None else valid
    expected, near = exact(pixels, there, mean, std, SCALES[name], fill)
    share_of = patches(there[:, None], patch).mean(2) if patch else there.mean((1, 2))[:, None]
    if patch:
        expected, near = patches(expected, patch), patches(near, patch)
    if dtype == "float16":
        near = near + np.spacing(abs(expected).astype(np.float16)).astype(np.float64) / 2
    assert got.dtype == dtype
    assert got.shape == expected.shape
    assert (abs(got.astype(np.float64) - expected) <= near).all()
    assert_array_equal(got_share, share_of.astype(np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_is_bit_for_bit_what_numpy_makes_of_the_formula(dtype, on):
    noise, edge = np.random.default_rng(1), 6 if SIMULATED else 64
    pixels = noise.integers(0, 256, (2, edge, edge, 3), np.uint8).transpose(0, 3, 1, 2)
    middle = (np.array(MEAN) * 255).astype(np.float32)[:, None, None]
    factor = (1 / 255 / np.array(STD)).astype(np.float32)[:, None, None]
    expected = ((pixels.astype(np.float32) - middle) * factor).astype(dtype)
    assert_array_equal(on(patchify, pixels, mean=MEAN, std=STD, dtype=dtype), expected)
    out = np.full(expected.shape, 9, dtype)
    assert_array_equal(on(patchify, pixels, mean=MEAN, std=STD, dtype=dtype, out=out), expected)


def test_many_bands_give_the_same_bits():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8).transpose(0, 3, 1, 2)
    valid = np.random.default_rng(1).random((3, 224, 224)) < 0.5
    for share in (None, np.empty((3, 256), np.float32)):
        found = set()
        for threads in (1, 2, 3):
            got = patchify(pixels, valid, mean=MEAN, std=STD, patch_px=14, share=share, threads=threads)
            found.add(got.tobytes() + (b"" if share is None else share.tobytes()))
        assert len(found) == 1


def test_positions_beyond_32_bits_are_read():
    memory = np.zeros((1, 3, 2**30, 1), np.uint8)  # untouched pages cost nothing
    memory[:, :, -4:] = np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1)
    pixels = memory.transpose(0, 3, 1, 2)[..., -4:]
    assert_array_equal(patchify(pixels, mean=0, std=1, scale=1), pixels)


def test_floats_that_are_not_finite_are_filled(on):
    pixels = np.ones((1, 2, 4, 4), np.float32)
    pixels[0, 1, 0, 0], pixels[0, 0, 3, 3] = np.nan, np.inf
    share = np.zeros((1, 4), np.float32)

    def run(pixels, *, share, **keywords):
        return patchify(pixels, mean=0, std=2, fill=-5, share=share, patch_px=2, **keywords), share

    got, share = on(run, pixels, share=share)
    assert_array_equal(share, [[0.75, 1, 1, 0.75]])
    assert_array_equal(got[0, 0], [-5, 0.5, 0.5, 0.5] * 2)
    assert_array_equal(got[0, 3], [0.5, 0.5, 0.5, -5] * 2)


def test_agrees_with_the_torch_chain_and_with_a_patch_embedding():
    torch = pytest.importorskip("torch")
    memory = np.random.default_rng(3).integers(0, 256, (2, 32, 48, 3), np.uint8)
    pixels = memory.transpose(0, 3, 1, 2)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    chain = torch.from_numpy(memory).permute(0, 3, 1, 2).contiguous().float().div(255).sub(mean).div(std)
    got = patchify(pixels, mean=MEAN, std=STD)
    _, near = exact(pixels, np.ones((2, 32, 48), bool), MEAN, STD, 1 / 255, 0)
    assert (abs(got - chain.numpy()) <= 2 * near).all()
    convolution = torch.nn.Conv2d(3, 5, kernel_size=16, stride=16)
    embedded = torch.from_numpy(patchify(pixels, mean=MEAN, std=STD, patch_px=16)) @ convolution.weight.reshape(5, -1).T
    expected = convolution(chain).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embedded + convolution.bias, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4), (2, 0, 4, 4)])
def test_no_pixels_are_an_empty_batch(shape, on):
    assert on(patchify, np.zeros(shape, np.uint8), mean=0, std=1).shape == shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": np.zeros((1, 3, 4, 4), np.int64)}, "`pixels` of `patchify`: got int64"),
        ({"pixels": np.zeros((3, 4, 4), np.uint8)}, "4 axes"),
        ({"pixels": [1]}, "`pixels` of `patchify`: got list"),
        ({"valid": np.ones((1, 4, 5), bool)}, "`valid` of `patchify`"),
        ({"mean": (0, 0)}, r"`mean` of `patchify`: got \(0, 0\).*3 channels"),
        ({"mean": np.nan}, "`mean` of `patchify`"),
        ({"std": 0}, "`std` of `patchify`: got 0, expected one positive"),
        ({"std": (1, -1, 1)}, "`std`"),
        ({"scale": 0}, "`scale`"),
        ({"patch_px": 3}, "`patch_px`: got 3 for tiles of 4 x 4 px"),
        ({"patch_px": 0}, "`patch_px`"),
        ({"dtype": "float64"}, "`dtype`: got 'float64'"),
        ({"out": np.zeros((1, 3, 4, 4), np.float16)}, "`out` of `patchify`: got float16"),
        ({"out": np.zeros((1, 3, 4, 8), np.float32)[..., ::2]}, "not contiguous"),
        ({"share": np.zeros((1, 4), np.float32)}, "`share` of `patchify`"),
        ({"backend": "cuda"}, "`backend`"),
    ],
)
def test_what_cannot_be_normalised_is_refused(change, message) -> None:
    arguments = {"pixels": np.zeros((1, 3, 4, 4), np.uint8), "mean": MEAN, "std": STD, **change}
    with pytest.raises(ConfigError, match=message):
        patchify(arguments.pop("pixels"), arguments.pop("valid", None), **arguments)
