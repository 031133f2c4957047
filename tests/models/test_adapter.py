import json
import sys
from types import ModuleType

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.models.test_handcrafted import batch_of, image_of
from tilestream.errors import ConfigError, StageError
from tilestream.models.adapter import adapt
from tilestream.types import StageContract


@pytest.fixture
def user(monkeypatch):
    """A module of a user's, in which tests put callables."""
    module = ModuleType("users_encoder")
    monkeypatch.setitem(sys.modules, "users_encoder", module)
    return module


def means(pixels):
    return pixels.astype(np.float64).mean(axis=(2, 3))


PIXELS = np.moveaxis(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 4), dtype=np.uint8), 3, 1)
BANDS = ("red", "green", "blue", "nir")


def bind(image, **params):
    """Make a stage the way workers do, through JSON."""
    spec = adapt("users_encoder:encode", **params).for_image(image)
    return adapt(**json.loads(json.dumps(dict(spec.params))))


def test_channels_go_by_name_in_the_order_of_the_contract(user):
    user.encode = means
    stage = bind(image_of(BANDS), px=16, channels=["NIR", "red"], dim=2)
    found = stage(batch_of(PIXELS))
    assert found.dtype == np.float32
    assert_allclose(found, means(PIXELS)[:, [3, 0]], rtol=1e-6)
    assert stage.output_names(image_of(BANDS)) == ("encode_0", "encode_1")


def test_scaling_is_fixed_and_in_float32(user):
    seen = []
    user.encode = lambda pixels: seen.append(pixels) or means(pixels)
    mean, std = [0.5, 0.4, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4]
    stage = bind(image_of(BANDS), px=16, scale=1 / 255, mean=mean, std=std, channels=4)
    stage(batch_of(PIXELS))
    expected = (PIXELS / 255 - np.reshape(mean, (1, 4, 1, 1))) / np.reshape(std, (1, 4, 1, 1))
    assert seen[0].dtype == np.float32
    assert_allclose(seen[0], expected, rtol=1e-5, atol=1e-6)


def test_samples_come_as_they_are_unless_asked_otherwise(user):
    seen = []
    user.encode = lambda pixels: seen.append(pixels) or means(pixels)
    bind(image_of(BANDS), px=16)(batch_of(PIXELS))
    assert seen[0] is PIXELS
    bind(image_of(BANDS), px=16, dtype="float16")(batch_of(PIXELS))
    assert seen[1].dtype == np.float16


def test_contract_of_the_callable_and_what_overrules_it(user):
    class Encoder:
        contract = StageContract(name="mine", px=224, mpp=0.5, needs_mpp=True, channels=3, dim=3)
        output_names = ("a", "b", "c")

        def __call__(self, pixels):
            return means(pixels)

    user.encode = Encoder()
    stage = bind(image_of(), mpp=1.0)
    assert stage.contract == StageContract(name="mine", px=224, mpp=1.0, needs_mpp=True, channels=3, dim=3)
    assert stage.output_names(image_of()) == ("a", "b", "c")
    user.encode.contract = {"name": "mine", "px": 8}
    assert adapt("users_encoder:encode").contract == StageContract(name="mine", px=8)


def test_tensors_are_taken_without_importing_torch(user):
    class Tensor:
        def __init__(self, values):
            self.values = values

        def detach(self):
            return self

        cpu = float = detach

        def numpy(self):
            return self.values

    user.encode = lambda pixels: Tensor(means(pixels))
    assert_allclose(bind(image_of(BANDS), px=16)(batch_of(PIXELS)), means(PIXELS), rtol=1e-6)


def test_real_tensors(user):
    torch = pytest.importorskip("torch")

    def encode(pixels):
        values = torch.from_numpy(pixels).float().mean(dim=(2, 3))
        return values.to(torch.bfloat16).requires_grad_()

    user.encode = encode
    assert_allclose(bind(image_of(BANDS), px=16)(batch_of(PIXELS)), means(PIXELS), rtol=1e-2)


def test_length_of_the_vectors_is_found_by_trying(user):
    shapes = []
    user.encode = lambda pixels: shapes.append((pixels.shape, pixels.dtype)) or means(pixels)
    assert len(bind(image_of(("a", "b"), "uint16"), px=24).output_names(image_of(("a", "b"), "uint16"))) == 2
    assert shapes == [((1, 2, 24, 24), np.uint16)]


def test_values_that_are_not_finite_are_left(user):
    def encode(pixels):
        found = means(pixels)
        found[1] = np.nan
        return found

    user.encode = encode
    found = bind(image_of(BANDS), px=16)(batch_of(PIXELS))
    assert_array_equal(np.isnan(found).any(axis=1), [False, True, False, False, False])


@pytest.mark.parametrize(
    "params",
    [
        {"px": 16, "channels": 3},
        {"px": 16, "channels": ["red", "swir"]},
        {"px": 16, "mean": [1.0, 2.0]},
        {"px": 16, "channels": ["red"], "std": [1.0, 2.0]},
    ],
)
def test_refuses_other_channels(user, params):
    user.encode = means
    with pytest.raises(StageError, match=r"channels of `encode`: got .*, expected"):
        bind(image_of(BANDS), **params)


def test_refuses_a_batch_of_other_channels(user):
    user.encode = means
    for params in ({"channels": 3}, {"channels": ["red"]}, {"positions": [7]}):
        with pytest.raises(StageError, match="channels of `encode`"):
            adapt("users_encoder:encode", px=16, **params)(batch_of(PIXELS))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda pixels: np.zeros((len(pixels) + 1, 2)),
        lambda pixels: np.zeros(len(pixels)),
        lambda pixels: np.zeros((len(pixels), 3)),
        lambda pixels: np.zeros((len(pixels), 2), complex),
        lambda pixels: [["a", "b"]] * len(pixels),
        lambda pixels: None,
    ],
)
def test_refuses_other_outputs(user, wrong):
    user.encode = wrong
    with pytest.raises(StageError, match="output of `encode`"):
        bind(image_of(BANDS), px=16, dim=2)(batch_of(PIXELS))


@pytest.mark.parametrize("params", [{}, {"px": 16, "pixels": 3}, {"px": 16, "std": [0.0]}])
def test_refuses_other_contracts(user, params):
    user.encode = means
    with pytest.raises(ConfigError, match=r"`encode`|users_encoder"):
        adapt("users_encoder:encode", **params)


def test_refuses_what_cannot_be_called(user):
    user.encode = 3
    with pytest.raises(ConfigError, match="got a int"):
        adapt("users_encoder:encode", px=16)
    with pytest.raises(ConfigError, match="users_encoder:nothing"):
        adapt("users_encoder:nothing", px=16)


def test_a_stated_resolution_is_needed_unless_the_contract_says_otherwise(user):
    user.encode = means
    assert adapt("users_encoder:encode", px=8).contract.needs_mpp is False
    assert adapt("users_encoder:encode", px=8, mpp=0.5).contract.needs_mpp is True
    assert adapt("users_encoder:encode", px=8, mpp=0.5, needs_mpp=False).contract.needs_mpp is False


@pytest.mark.parametrize(("dtype", "params", "refused"), [
    ("u1", {}, True),
    ("u2", {}, True),
    ("u1", {"scale": 1 / 255}, False),
    ("f4", {}, False),
    ("u1", {"mean": [180.0] * 3, "std": [40.0] * 3}, False),
])  # fmt: skip
def test_a_mean_for_samples_in_0_to_1_needs_a_scale_on_whole_numbers(user, dtype, params, refused):
    user.encode = means
    stage = adapt("users_encoder:encode", **{"px": 8, "mean": [0.7] * 3, "std": [0.2] * 3, **params})
    if not refused:
        stage.for_image(image_of(dtype=dtype))
        return
    with pytest.raises(StageError, match=r'without `scale`.*Add "scale": 1 / 255'):
        stage.for_image(image_of(dtype=dtype))


def test_a_callable_that_raises_on_the_trial_tile_is_named(user):
    user.encode = lambda pixels: pixels.mean(axis=7)
    stage = adapt("users_encoder:encode", px=8)
    with pytest.raises(
        StageError, match=r"encoder `users_encoder:encode`: got AxisError.*one black tile \(1, 3, 8, 8\)"
    ):
        stage.output_names(image_of())
