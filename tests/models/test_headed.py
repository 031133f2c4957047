"""Stages of one number: an encoder with a query or a trained scorer behind it, and scorers of pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import tilestream as ts
from tests.plan.build import info
from tilestream.errors import ConfigError, SourceError, StageError
from tilestream.models.headed import packed, unpacked
from tilestream.relevance.likeness import likeness, unit_vectors
from tilestream.stream.work import make_stage
from tilestream.torch.train_scorer import ScorerSettings
from tilestream.types import Batch, Channel, StageSpec

RGB = tuple(Channel(name=name) for name in "RGB")
IMAGE = info(64, 64, channels=RGB)
HANDCRAFTED = {"target": "handcrafted", "params": {}}
FAST = ScorerSettings(epochs=2, width=4)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch(tiles: int = 5, *, edge: int = 16, channels: int = 3, dtype=np.uint8) -> Batch:
    pixels = np.random.default_rng(1).integers(0, 256, (tiles, channels, edge, edge)).astype(dtype)
    ones, rows = np.ones(tiles, np.float32), np.arange(tiles)
    return Batch(pixels=pixels, valid=None, valid_share=ones, rows=rows, tile_yx=np.zeros((tiles, 2), np.int64))


def encoded(one: Batch) -> np.ndarray:
    return make_stage(make_stage(StageSpec(**HANDCRAFTED)).for_image(IMAGE))(one)


def made(spec: StageSpec):
    """The stage for the image, as another process makes it."""
    bound = make_stage(spec).for_image(IMAGE)
    return make_stage(StageSpec(target=bound.target, params=json.loads(json.dumps(bound.params))))


def test_a_query_is_the_likeness_of_the_encoders_vectors():
    vectors = encoded(batch())
    wanted, unwanted = (unit_vectors(vectors[part], what="v") for part in (slice(1, 3), slice(3, 4)))
    params = {"encoder": HANDCRAFTED, "wanted": packed(wanted), "unwanted": packed(unwanted), "dim": vectors.shape[1]}
    stage = made(StageSpec(target="query", params=params))
    found = stage(batch())
    np.testing.assert_array_equal(found[:, 0], likeness(vectors, wanted, unwanted))
    assert (stage.contract.dim, stage.contract.name, stage.output_names(IMAGE)) == (1, "query", ("query",))
    other = made(StageSpec(target="query", params={**params, "combine": "mean", "name": "relevance"}))
    assert other.contract.name == "relevance"
    assert other.contract.weights != stage.contract.weights


def test_a_query_of_nothing_says_who_makes_it():
    with pytest.raises(ConfigError, match=r"--relevance query:"):
        make_stage(StageSpec(target="query"))


def test_vectors_come_back_to_the_bit():
    vectors = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    assert unpacked(packed(vectors), 7).tobytes() == vectors.tobytes()
    for text in ("$", packed(vectors[:, :3])):
        with pytest.raises(ConfigError, match="base64"):
            unpacked(text, 7)


def test_vectors_of_another_encoder_are_refused():
    params = {"encoder": HANDCRAFTED, "wanted": packed(np.ones((1, 7), np.float32)), "dim": 7}
    with pytest.raises(ConfigError, match=r"\(n, 7\)"):
        made(StageSpec(target="query", params=params))(batch())
    with pytest.raises(ConfigError, match="vectors of 7 values"):
        make_stage(StageSpec(target="query", params={**params, "encoder": {"target": "entropy", "params": {}}}))
    with pytest.raises(ConfigError, match="maps of tiles"):
        make_stage(StageSpec(target="query", params={**params, "encoder": {"target": "gradient", "params": {}}}))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A scorer of pixels and one of vectors, with the tiles that they were trained on."""
    folder, tiles, labels = tmp_path_factory.mktemp("scorers"), batch(40).pixels, np.arange(40) % 2
    pixels = ts.torch.train_scorer(tiles, labels, settings=FAST)
    pixels.save(folder / "pixels.safetensors")
    about = {"encoder": "handcrafted"}
    vectors = ts.torch.train_scorer(encoded(batch(40)), labels, settings=FAST, about=about)
    vectors.save(folder / "vectors.safetensors")
    return {"pixels": (pixels, folder / "pixels.safetensors"), "vectors": (vectors, folder / "vectors.safetensors")}


@pytest.mark.parametrize("kind", ["pixels", "vectors"])
def test_a_scorer_from_a_file_gives_the_same_numbers_as_in_python(files, kind):
    scorer, path = files[kind]
    params = {"weights": str(path)} | ({"encoder": HANDCRAFTED} if kind == "vectors" else {})
    stage = made(StageSpec(target="scorer", params=params))
    tiles = batch(7)
    found = stage(tiles)
    expected = scorer(tiles.pixels if kind == "pixels" else encoded(tiles))
    assert found.shape == (7, 1)
    assert found[:, 0].tobytes() == expected.tobytes()
    assert stage.output_names(IMAGE) == ("scorer",)


def test_scorers_that_do_not_fit_are_refused(files, tmp_path):
    pixels, vectors = (files[kind][1] for kind in ("pixels", "vectors"))
    with pytest.raises(ConfigError, match="--encoder handcrafted"):
        make_stage(StageSpec(target="scorer", params={"weights": str(vectors)}))
    with pytest.raises(ConfigError, match="no file"):
        make_stage(StageSpec(target="scorer"))
    with pytest.raises(SourceError, match="scorer"):
        make_stage(StageSpec(target="scorer", params={"weights": str(tmp_path / "nowhere")}))
    with pytest.raises(ConfigError, match="digest"):
        make_stage(StageSpec(target="scorer", params={"weights": str(pixels), "digest": "ab"}))
    stage = make_stage(StageSpec(target="scorer", params={"weights": str(pixels)}))
    with pytest.raises(StageError, match="3"):
        stage.for_image(info(64, 64))
    with pytest.raises(ConfigError, match="uint8"):
        stage(batch(dtype=np.uint16))
