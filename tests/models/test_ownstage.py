from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.models.plainvit import random_state  # noqa: E402
from tilestream.errors import ConfigError, StageError  # noqa: E402
from tilestream.models.hipt import vit256  # noqa: E402
from tilestream.models.weights import weights_digest  # noqa: E402
from tilestream.pipelines.encoder import choose_encoder  # noqa: E402
from tilestream.pyramid.pyramid import open_pyramid  # noqa: E402
from tilestream.stream.work import make_stage  # noqa: E402
from tilestream.types import Batch, StageSpec  # noqa: E402


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A checkpoint as HIPT publishes it, and its state dict."""
    state = random_state(vit256())
    path = tmp_path_factory.mktemp("weights") / "vit256_small_dino.pth"
    torch.save({"teacher": {f"module.backbone.{name}": tensor for name, tensor in state.items()}, "epoch": 1}, path)
    return path, state


def tiles(n=2, channels=3, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 256, 256, channels), np.uint8).transpose(0, 3, 1, 2)
    return Batch(
        pixels=pixels,
        valid=None,
        valid_share=np.ones(n, np.float32),
        rows=np.arange(n),
        tile_yx=np.zeros((n, 2), np.int64),
    )


def scaled(batch):
    samples = torch.from_numpy(np.ascontiguousarray(batch.pixels)).float() * float(np.float32(1 / 255))
    return (samples - 0.5) / 0.5


def slide(channels=3):
    return open_pyramid(np.zeros((256, 256, channels), np.uint8)).info


def stage(**params):
    return make_stage(StageSpec(target="hipt", params=params))


def test_it_is_the_network_on_scaled_tiles(published):
    path, state = published
    network = vit256().eval()
    network.load_state_dict(state)
    batch = tiles()
    torch.set_num_threads(1)
    with torch.inference_mode():
        expected = network(scaled(batch)).numpy()
    found = stage(weights=str(path))(batch)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_its_contract_says_what_it_was_trained_on(published):
    path, _ = published
    contract = stage(weights=str(path)).contract
    assert (contract.name, contract.px, contract.mpp, contract.channels, contract.dim) == ("hipt", 256, 0.5, 3, 384)
    assert (contract.scale, contract.mean, contract.std) == (1 / 255, (0.5,) * 3, (0.5,) * 3)
    assert contract.needs_mpp
    assert contract.framework == "torch"
    assert contract.weights == weights_digest(path, model="hipt")
    assert "Commons Clause" in contract.licence
    assert "mahmoodlab/HIPT" in contract.source
    random = stage(random_weights=3).contract
    assert (random.weights, random.source, random.licence) == ("random:3", None, None)


def test_its_vectors_may_be_stored_under_another_name():
    encoder = choose_encoder("hipt", {"random_weights": 3, "name": "teacher"}, slide())
    assert (encoder.name, encoder.spec.target) == ("teacher", "hipt")
    assert make_stage(encoder.spec).contract == encoder.contract
    assert encoder.outputs[0].startswith("teacher_")


def test_the_recipe_knows_weights_by_what_is_in_them(published, tmp_path):
    path, state = published
    elsewhere = tmp_path / "moved.pth"
    elsewhere.write_bytes(path.read_bytes())
    other = tmp_path / "other.pth"
    torch.save(state | {"norm.bias": state["norm.bias"] + 1}, other)
    recipes = [choose_encoder("hipt", {"weights": str(one)}, slide()).recipe for one in (path, elsewhere, other)]
    assert recipes[0] == recipes[1] != recipes[2]
    half = choose_encoder("hipt", {"weights": str(path), "dtype": "bfloat16"}, slide())
    assert half.recipe != recipes[0]
    assert half.contract.dtype == "bfloat16"


def test_a_file_that_changes_between_planning_and_work_is_refused(published, tmp_path):
    path, state = published
    mine = tmp_path / "mine.pth"
    mine.write_bytes(path.read_bytes())
    spec = stage(weights=str(mine)).for_image(slide())
    torch.save(state | {"norm.bias": state["norm.bias"] + 1}, mine)
    with pytest.raises(ConfigError, match="which the run began with"):
        make_stage(StageSpec(target=spec.target, params={**spec.params, "positions": [2, 1, 0]}))(tiles())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types_stay_close(dtype):
    batch = tiles()
    exact, half = stage(random_weights=1)(batch), stage(random_weights=1, dtype=dtype)(batch)
    cosine = (exact * half).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.9999
    assert half.dtype == np.float32
    assert not np.array_equal(exact, half)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "weights of `hipt`: got none.*mahmoodlab/HIPT.*Commons Clause.*--random-weights SEED"),
        ({"weights": "gone.pth"}, "no such file.*mahmoodlab/HIPT"),
        ({"weights": "gone.pth", "random_weights": 1}, "got a file and a seed"),
        ({"random_weights": -1}, "whole number from 0"),
        ({"random_weights": 1, "dtype": "int8"}, r"`dtype` of `hipt`.*float32"),
    ],
)
def test_weights_are_asked_for_before_anything_is_read(params, says):
    with pytest.raises(ConfigError, match=says):
        stage(**params)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels_are_refused(channels):
    with pytest.raises(StageError, match=rf"channels of `hipt`: got {channels} channels"):
        choose_encoder("hipt", {"random_weights": 1}, slide(channels))
    with pytest.raises(StageError, match=rf"got {channels} channels"):
        stage(random_weights=1)(tiles(channels=channels))
