"""Our own networks as stages: what they ask for, what they say of themselves, and one tile like another."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.models.test_handcrafted import batch_of, image_of, noise  # noqa: E402
from tests.models.test_mvit import as_published  # noqa: E402
from tilestream.errors import ConfigError, StageError  # noqa: E402
from tilestream.models import ownstage, tilestages  # noqa: E402
from tilestream.models.mvit import MultiscaleTransformer, mvitv2_tiny  # noqa: E402
from tilestream.models.weights import random_weights  # noqa: E402
from tilestream.stream import work  # noqa: E402
from tilestream.stream.work import make_stage  # noqa: E402
from tilestream.types import StageSpec  # noqa: E402

NAMES = ("fpn-vit", "mvit")


def stage(name, **params):
    """Make a stage the way workers do: once for an image, then through JSON."""
    spec = make_stage(StageSpec(target=name, params=params)).for_image(image_of())
    return make_stage(StageSpec(target=spec.target, params=json.loads(json.dumps(dict(spec.params)))))


@pytest.fixture
def small(monkeypatch):
    """`mvit` as a network of milliseconds, with 768 values as the real one."""
    made = []

    def make():
        made.append(MultiscaleTransformer(dims=(8, 768), depths=(1, 1), heads=(1, 2), px=32))
        return made[-1]

    monkeypatch.setattr("tilestream.models.mvit.mvitv2_tiny", make)
    kept = (ownstage._loaded, work._stage)  # no other test may meet the small one, nor this one the real one
    for cache in kept:
        cache.cache_clear()
    yield made
    for cache in kept:
        cache.cache_clear()


def tiles(n=3, px=32):
    return noise((n, 3, px, px))


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_never_random_in_silence(name):
    with pytest.raises(ConfigError, match=f"weights of `{name}`: got none.*--weights FILE.*--random-weights SEED"):
        make_stage(StageSpec(target=name))
    if name == "mvit":
        with pytest.raises(ConfigError, match=r"facebookresearch/mvit.*timm/mvitv2_tiny.*Apache-2\.0"):
            make_stage(StageSpec(target=name))
    with pytest.raises(ConfigError, match="a file and a seed"):
        make_stage(StageSpec(target=name, params={"weights": "a.pt", "random_weights": 3}))
    with pytest.raises(ConfigError, match="no such file"):
        make_stage(StageSpec(target=name, params={"weights": "absent.pt"}))


@pytest.mark.parametrize(("name", "px"), [("fpn-vit", 256), ("mvit", 224)])
def test_the_contract_is_that_of_the_network(name, px):
    made = stage(name, random_weights=3)
    contract = made.contract
    assert (contract.name, contract.px, contract.dim, contract.channels) == (name, px, 768, 3)
    assert contract.mpp is None
    assert contract.weights == "random:3"
    assert len(made.output_names(image_of())) == 768
    (vector,) = made(batch_of(tiles(1, px)))
    assert vector.shape == (768,)
    assert np.isfinite(vector).all()
    assert vector.std() > 0


def test_samples_are_scaled_as_for_imagenet(small):
    pixels = tiles()
    found = stage("mvit", random_weights=0)(batch_of(pixels))
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (tilestages.IMAGENET_MEAN, tilestages.IMAGENET_STD))
    plain = (pixels / 255 - mean) / std
    with torch.inference_mode():
        expected = small[0](torch.from_numpy(plain.astype("f4")))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_a_tile_gives_the_same_bits_in_any_batch(small):
    made, pixels = stage("mvit", random_weights=1), tiles(5)
    together = made(batch_of(pixels))
    for k in range(5):
        assert np.array_equal(made(batch_of(pixels[k : k + 1]))[0], together[k])
    assert not np.array_equal(together[0], together[1])
    assert len(small) == 1


def test_weights_come_from_the_file(small, tmp_path):
    network = MultiscaleTransformer(dims=(8, 768), depths=(1, 1), heads=(1, 2), px=32)
    random_weights(network, seed=7)
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    made = stage("mvit", weights=str(path))
    batch = batch_of(tiles())
    assert np.array_equal(made(batch), stage("mvit", random_weights=7)(batch))
    assert made.contract.weights not in (None, "random:7")
    spec = made.for_image(image_of())
    assert spec.params["digest"] == made.contract.weights
    random_weights(network, seed=8)
    torch.save(network.state_dict(), path)
    with pytest.raises(ConfigError, match="which the run began with"):
        tilestages.mvit(**dict(spec.params))


def test_a_file_of_the_authors_loads(tmp_path):
    network = mvitv2_tiny()
    random_weights(network, seed=7)
    head = {"head.projection.weight": torch.zeros(9, 768), "head.projection.bias": torch.zeros(9)}
    checkpoint = {"epoch": 299, "model_state": {**as_published(network.state_dict()), **head}, "cfg": "MVIT: {}"}
    torch.save(checkpoint, tmp_path / "MViTv2_T_in1k.pyth")
    batch = batch_of(tiles(1, 224))
    found = stage("mvit", weights=str(tmp_path / "MViTv2_T_in1k.pyth"))(batch)
    assert np.array_equal(found, stage("mvit", random_weights=7)(batch))


def test_another_networks_weights_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises((ConfigError, StageError), match="missing"):
        stage("mvit", weights=str(path))(batch_of(tiles(1, 224)))


def test_four_channels_are_refused():
    made = make_stage(StageSpec(target="mvit", params={"random_weights": 0}))
    with pytest.raises(StageError, match="4 channels"):
        made.for_image(image_of(channels="RGBA"))
