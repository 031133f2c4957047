"""Relevance as it is named on the command line: what its models find, and what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch

import tilestream as ts
from tests.plan.build import pyramid
from tests.torchvisions import stand_in
from tilestream.errors import ConfigError, SourceError
from tilestream.pipelines.embedder import TileEmbedder, corners_of
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pipelines.relevance import examples_of, relevance_of, scoring_spec
from tilestream.plan.marked import Marked
from tilestream.relevance.query import Place
from tilestream.stream.batches import stream_tiles
from tilestream.stream.work import make_stage
from tilestream.torch.train_scorer import ScorerSettings
from tilestream.types import Box, Shape

PX = 16
HANDCRAFTED = EncoderChoice(name="handcrafted")


def test_terms_that_need_only_the_image_come_by_name():
    found = relevance_of("entropy:0.5,gradient:1.5", normalise="rank")
    assert found.shares == {"entropy": 0.25, "gradient": 0.75}
    assert found.normalise == "rank"
    with pytest.raises(ConfigError, match="entropy"):
        relevance_of("entrpy")


def test_masks_come_by_name_and_must_be_there(tmp_path):
    (tmp_path / "area.geojson").touch()
    found = relevance_of(f"mask:tissue:2,mask:{tmp_path}/area.geojson,entropy")
    assert found.terms["mask:tissue"] == Marked(where="tissue")
    assert found.weights["mask:tissue"] == 2
    assert relevance_of("mask:s3://bucket/mask.tif").terms["mask"].where == "s3://bucket/mask.tif"
    for text, told in (
        ("mask", "nothing behind it"),
        ("mask:0.5", "nothing behind it"),
        ("mask:/no/such.tif", "not there"),
    ):
        with pytest.raises(ConfigError, match=told):
            relevance_of(text)


@pytest.fixture(autouse=True)
def pair(monkeypatch):
    """A pair of towers for tiles of 16 px: the mean colour of a tile, and of a word."""
    module, colours = ModuleType("colours"), {"red": [1.0, 0, 0], "green": [0, 1.0, 0], "dark": [0.1, 0.1, 0.1]}
    contract = {"px": PX, "channels": 3, "scale": 1 / 255, "dim": 3}
    module.pair = SimpleNamespace(
        contract=contract,
        encode_image=lambda x: x.mean((2, 3)),
        encode_text=lambda words: np.array([colours[word] for word in words]),
    )
    module.other = lambda x: x.mean((2, 3))
    module.other.contract = contract
    monkeypatch.setitem(sys.modules, "colours", module)


COLOURS = EncoderChoice(name="colours:pair")


def mosaic() -> np.ndarray:
    """Grey, with a red square in rows 64 to 96 and columns 128 to 160, and a green one below it."""
    found = np.full((160, 240, 3), 90, np.uint8)
    found[64:96, 128:160] = (200, 20, 20)
    found[96:128, 128:160] = (20, 200, 20)
    return found


RED = np.zeros((10, 15), bool)
RED[4:6, 8:10] = True


def best(text: str, *encoders: EncoderChoice, count: int = 4) -> np.ndarray:
    """The cells of the highest scores."""
    found = relevance_of(text, encoders=encoders, normalise="none").maps(pyramid(mosaic()))["query"]
    assert found.values.shape == (10, 15)
    return found.values >= np.sort(found.values, axis=None)[-count]


@pytest.mark.parametrize(
    "text", ['query:"red"', 'query:"red; -green"', 'query:"box=64,128,32,32"', 'query:"box=70,134,4,4; -box=0,0,32,32"']
)
def test_what_is_asked_for_is_found(text):
    assert (best(text, COLOURS) == RED).all()


def test_the_first_encoder_with_texts_is_asked_and_else_the_first():
    assert (best('query:"red"', HANDCRAFTED, COLOURS) == RED).all()
    term = relevance_of('query:"box=0,0,9,9"', encoders=(HANDCRAFTED, COLOURS)).terms["query"]
    assert term.embedder.encoder == "handcrafted"


def test_texts_are_encoded_once_for_all_images(monkeypatch):
    asked = []
    pair = sys.modules["colours"].pair
    encode = pair.encode_text
    monkeypatch.setattr(pair, "encode_text", lambda words: (asked.append(words), encode(words))[1])
    monkeypatch.setattr("tilestream.pipelines.embedder._encoded", {})
    for _ in range(2):
        for seed in range(2):
            relevance_of('query:"red; green; -dark"', encoders=(COLOURS,))(pyramid(mosaic() + np.uint8(seed)))
    assert asked == [["red", "green", "dark"]]


def test_what_is_wrong_with_a_text_is_told_before_an_image_is_open():
    with pytest.raises(ConfigError, match=r"KeyError.*blue"):
        relevance_of('query:"blue"', encoders=(COLOURS,))


def test_examples_lie_in_files_and_on_other_images(tmp_path):
    np.save(tmp_path / "v.npy", np.array([3.0, 0, 0]))
    tifffile.imwrite(tmp_path / "picture.tif", np.full((40, 64, 3), (250, 0, 0), np.uint8), tile=(16, 16))
    outline = {"type": "Polygon", "coordinates": [[[128, 64], [160, 64], [160, 96], [128, 96], [128, 64]]]}
    (tmp_path / "red.geojson").write_text(json.dumps(outline))
    examples = [f"file={tmp_path / name}" for name in ("v.npy", "picture.tif", "red.geojson")]
    for example in (*examples, f"box=0,0,32,64@{tmp_path / 'picture.tif'}"):
        assert (best(f'query:"{example}"', COLOURS) == RED).all()


def test_examples_without_a_stated_light_are_seen_in_that_of_the_image(tmp_path):
    """Handcrafted vectors of transmitted light are longer; a picture cut from a slide does not say what it shows."""
    tifffile.imwrite(tmp_path / "picture.tif", np.full((40, 64, 3), (200, 20, 20), np.uint8), photometric="rgb")
    slide = pyramid(mosaic(), modality="brightfield")
    for example in ("file=picture.tif", "box=0,0,32,64@picture.tif"):
        text = f'query:"{example}"'.replace("picture.tif", str(tmp_path / "picture.tif"))
        found = relevance_of(text, encoders=(HANDCRAFTED,), normalise="none").maps(slide)["query"]
        assert found.valid.any()


def test_examples_are_read_from_text():
    assert examples_of("a, b; - c;box=1,2,3,4;-file=x.npy;box=1,2,3,4@s.svs") == (
        ("a, b", Box(y=1, x=2, height=3, width=4), Place(image="s.svs", box=Box(y=1, x=2, height=3, width=4))),
        ("c", Path("x.npy")),
    )


@pytest.mark.parametrize(
    ("text", "encoders", "told"),
    [
        ('query:"red"', (), "no encoder.*--encoder"),
        ('query:"red"', (HANDCRAFTED,), "images only.*open_clip"),
        ('query:"red"', (EncoderChoice(name="colours:other"),), "images only"),
        ("query", (COLOURS,), "nothing behind it"),
        ('query:" "', (COLOURS,), "an empty one"),
        ('query:"red;"', (COLOURS,), "an empty one"),
        ('query:"-red"', (COLOURS,), "nothing that is wanted"),
        ('query:"box=1,2,3"', (COLOURS,), "four whole numbers"),
        ('query:"box=1,2,3,-4"', (COLOURS,), "four whole numbers"),
        ('query:"file=nowhere.npy"', (COLOURS,), "no such file"),
        ("query:file=", (COLOURS,), "nothing behind `file=`"),
        ("query:box=1,2,3,4@nowhere.svs#page=2", (COLOURS,), "nothing there"),
        ("scorer", (), "no file"),
        ("query:red", (EncoderChoice(name="gradient"),), "map"),
    ],
)
def test_queries_that_cannot_be_answered_say_what_to_do(text, encoders, told):
    with pytest.raises(ConfigError, match=told):
        relevance_of(text, encoders=encoders)


def test_places_that_are_not_there_are_refused(tmp_path):
    image, embedder = pyramid(mosaic()), TileEmbedder(encoder="colours:pair")
    for box in ((150, 0, 20, 20), (0, 0, 0, 5), (-1, 0, 5, 5), (0, 235, 5, 6)):
        with pytest.raises(ConfigError, match="inside the image of 160 x 240 px"):
            embedder.place(image, Box(y=box[0], x=box[1], height=box[2], width=box[3]))
    holed = pyramid(np.full((64, 64, 3), np.nan, np.float32))
    with pytest.raises(ConfigError, match="nothing that was measured"):
        embedder.place(holed, Box(y=0, x=0, height=20, width=20))
    tifffile.imwrite(tmp_path / "small.tif", np.zeros((PX - 1, 64, 3), np.uint8))
    with pytest.raises(ConfigError, match="at least 16 px"):
        embedder.picture(tmp_path / "small.tif")
    (tmp_path / "far.geojson").write_text('{"type": "Point", "coordinates": [9, 9]}')
    with pytest.raises(ConfigError):
        embedder.place(image, tmp_path / "far.geojson")


@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("box", [(0, 0, 1, 1), (3, 5, 100, 40), (640, 900, 384, 124), (0, 0, 1024, 1024)])
def test_tiles_of_a_box_cover_it_and_stay_inside(box, scale):
    from fractions import Fraction

    from tilestream.types import PlanLevel

    size = int(1024 / scale)
    ratio = Fraction(int(scale))
    level = PlanLevel(stored=0, ratio_yx=(ratio, ratio), shape=Shape(y=size, x=size), scale_yx=(scale, scale))
    where = Box(y=box[0], x=box[1], height=box[2], width=box[3])
    corners = corners_of(where, Shape(y=1024, x=1024), level, 32)
    seen = np.zeros((size, size), bool)
    for y, x in corners.tolist():
        assert 0 <= y <= size - 32
        assert 0 <= x <= size - 32
        seen[y : y + 32, x : x + 32] = True
    part = np.s_[
        int(box[0] / scale) : int((box[0] + box[2]) / scale), int(box[1] / scale) : int((box[1] + box[3]) / scale)
    ]
    assert seen[part].all()
    tiles = np.ceil(box[2] / scale / 32) * np.ceil(box[3] / scale / 32)
    assert len(corners) == tiles


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    """A scorer of pixels that likes red, for tiles of half resolution."""
    colours = np.array([(90, 90, 90), (200, 20, 20), (20, 200, 20)])[np.arange(90) % 3]
    noise = np.random.default_rng(0).integers(-15, 16, (90, 3, PX, PX))
    tiles, labels = (colours[:, :, None, None] + noise).astype(np.uint8), np.arange(90) % 3 == 1
    found = ts.torch.train_scorer(tiles, labels, settings=ScorerSettings(epochs=4, width=4), about={"downsample": 2.0})
    path = tmp_path_factory.mktemp("scorer") / "red.safetensors"
    found.save(path)
    return path


def test_a_scorer_in_a_file_is_a_term_of_its_own_weight(scorer):
    found = relevance_of(f"entropy,scorer:{scorer}")
    assert found.shares == {"entropy": 0.0, "scorer": 1.0}
    image = pyramid(mosaic())
    scores = found(image)
    assert scores.cell_yx == (2 * PX, 2 * PX)
    assert np.unravel_index(scores.values.argmax(), scores.values.shape) == (2, 4)
    assert 0 <= scores.values.min() <= scores.values.max() <= 1
    assert json.loads(json.dumps(found.recipe)) == found.recipe
    assert str(scorer.parent) not in json.dumps(found.recipe)
    with pytest.raises(SourceError, match="scorer"):
        relevance_of("scorer:nowhere.safetensors")


def test_a_scorer_without_torch_says_what_to_install(scorer, monkeypatch):
    monkeypatch.setattr("tilestream.models.scorerstage.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"\[torch\]"):
        relevance_of(f"scorer:{scorer}")


def test_a_scorer_of_vectors_takes_the_encoder_that_it_was_trained_on(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    about = {"encoder": "pair_encode_image", "downsample": 1.0}
    found = ts.torch.train_scorer(vectors, np.arange(20) % 2, settings=ScorerSettings(epochs=1, width=2), about=about)
    found.save(tmp_path / "s")
    term = f"scorer:{tmp_path / 's'}"
    mine = EncoderChoice(name="colours:pair.encode_image", params=ts_contract())
    scores = relevance_of(term, encoders=(HANDCRAFTED, mine))(pyramid(mosaic()))
    assert scores.values.shape == (10, 15)
    for encoders in ((), (HANDCRAFTED,)):
        with pytest.raises(ConfigError, match="--encoder pair_encode_image"):
            relevance_of(term, encoders=encoders)


def ts_contract() -> dict:
    return dict(sys.modules["colours"].pair.contract)


@pytest.mark.parametrize("text", ['query:"red; -green"', 'query:"box=64,128,32,32"', "scorer:FILE"])
def test_the_same_stage_scores_a_map_and_any_tile(text, scorer):
    image, text = pyramid(mosaic()), text.replace("FILE", str(scorer))
    reduce = 2 if "scorer" in text else 1
    found = relevance_of(text, encoders=(COLOURS,), normalise="none")
    scores = next(iter(found.maps(image).values()))
    spec = scoring_spec(text, image, encoders=(COLOURS,))
    stage = make_stage(type(spec)(target=spec.target, params=json.loads(json.dumps(spec.params))))
    assert stage.output_names(image.info) == ("relevance",)
    plan = ts.plan_tiles(image, tile_px=PX, where="all", mpp=reduce, source_mpp=1.0)
    for batch in stream_tiles(image, plan, batch=7):
        y, x = (batch.tile_yx // PX).T
        assert stage(batch)[:, 0].tobytes() == scores.values[y, x].tobytes()


def test_vectors_of_handcrafted_are_standardised_in_maps_and_for_single_tiles_alike():
    noise = np.random.default_rng(0).integers(0, 256, (512, 1024, 3), np.uint8)
    noise[:256, 512:768] //= 2
    image = pyramid(noise)
    query = 'query:"box=0,512,256,256"'
    term = relevance_of(query, encoders=(HANDCRAFTED,)).terms["query"]
    assert term.standardise
    assert term(image).cell_yx == (64.0, 64.0)  # tiles of 32 px, reduced by 2: 16 of them along the longer edge
    assert not relevance_of(query, encoders=(COLOURS,)).terms["query"].standardise
    scores = replace(term, embedder=replace(term.embedder, params={}, reduce=1.0))(image)
    assert np.unravel_index(scores.values.argmax(), scores.values.shape) == (0, 2)
    assert scores.values.min() < 0 < scores.values.max()  # without it all of them are above 0.9
    spec = scoring_spec(query, image, encoders=(HANDCRAFTED,))
    stage = make_stage(type(spec)(target=spec.target, params=json.loads(json.dumps(spec.params))))
    for batch in stream_tiles(image, ts.plan_tiles(image, tile_px=256, where="all"), batch=3):
        y, x = (batch.tile_yx // 256).T
        assert stage(batch)[:, 0].tobytes() == scores.values[y, x].tobytes()


def test_several_terms_are_no_single_stage(scorer):
    for text in ("entropy", f"entropy,scorer:{scorer}"):
        with pytest.raises(ConfigError, match="one term"):
            scoring_spec(text, pyramid(mosaic()))


def test_a_text_finds_tiles_by_a_model_of_open_clip(tmp_path):
    stand_in()
    import open_clip
    from safetensors.torch import save_file

    vision = {"image_size": PX, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
    torch.manual_seed(0)
    model, half = open_clip.CLIP(**config).eval(), [0.5, 0.5, 0.5]
    document = {"model_cfg": config, "preprocess_cfg": {"size": PX, "mean": half, "std": half}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    image = pyramid(mosaic())
    found = relevance_of(
        'query:"a word; -another"', encoders=(EncoderChoice(name=f"open_clip:{tmp_path}"),), normalise="none"
    ).maps(image)["query"]
    tiles = torch.from_numpy(mosaic().reshape(10, PX, 15, PX, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, PX, PX).copy())
    with torch.inference_mode():
        seen = model.encode_image((tiles / 255 - 0.5) / 0.5, normalize=True)
        words = model.encode_text(open_clip.SimpleTokenizer(context_length=8)(["a word", "another"]), normalize=True)
    expected = (seen @ words.T).numpy()
    np.testing.assert_allclose(found.values.ravel(), expected[:, 0] - expected[:, 1], atol=1e-5)
