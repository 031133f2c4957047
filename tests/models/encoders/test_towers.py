"""The towers of texts: of open_clip, and of any pair."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from tilestream.errors import ConfigError
from tilestream.models.encoders.names import library_spec
from tilestream.models.encoders.towers import encode_texts, has_text_tower, image_tower
from tilestream.types import StageContract, StageSpec

PX = 32
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": PX, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny model of open_clip as the hub stores it."""
    import open_clip
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    model = open_clip.CLIP(**CONFIG)
    half = [0.5, 0.5, 0.5]
    document = {"model_cfg": CONFIG, "preprocess_cfg": {"size": PX, "mean": half, "std": half}}
    (path / "open_clip_config.json").write_text(json.dumps(document))
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
    return path


def test_open_clip_encodes_texts_as_the_library_does(folder):
    import open_clip
    from safetensors.torch import load_file

    words = ["lymphocytes", "adipose tissue"]
    found = encode_texts(library_spec(f"open_clip:{folder}", {}), words)
    model = open_clip.CLIP(**CONFIG).eval()
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    with torch.inference_mode():
        expected = model.encode_text(open_clip.SimpleTokenizer(context_length=12)(words))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    alone = encode_texts(library_spec(f"open_clip:{folder}", {}), words[1:])
    assert alone[0].tobytes() == found[1].tobytes()  # whatever other texts there are
    random = [encode_texts(library_spec(f"open_clip:{folder}", {"random_weights": seed}), words) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(random[0], random[1])
    assert not np.array_equal(random[0], random[2])


def test_a_tokenizer_that_is_not_there_is_not_fetched(folder, tmp_path):
    document = json.loads((folder / "open_clip_config.json").read_text())
    document["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "somebody/bert"
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document))
    (tmp_path / "open_clip_model.safetensors").write_bytes((folder / "open_clip_model.safetensors").read_bytes())
    spec = library_spec(f"open_clip:{tmp_path}", {})
    with pytest.raises(ConfigError, match=r"somebody/bert.*tokenizer\.json"):
        encode_texts(spec, ["a"])


@pytest.fixture
def pairs(monkeypatch):
    """A module whose pairs say what they are asked."""
    module = ModuleType("mypairs")
    contract = StageContract(name="pair", px=8, mean=(0.5,), std=(0.5,), scale=0.1)
    images, texts = (lambda x: x.mean((2, 3))), (lambda words: np.array([[len(one), 1.0] for one in words]))
    module.pair = SimpleNamespace(encode_image=images, encode_text=texts, contract=contract)
    module.encode_image, module.encode_text = images, texts
    module.image_only = images
    module.broken = SimpleNamespace(encode_text=lambda words: 1 / 0)
    module.flat = SimpleNamespace(encode_text=lambda words: np.zeros(3))
    monkeypatch.setitem(sys.modules, "mypairs", module)


def callable_spec(name: str) -> StageSpec:
    return StageSpec(target="callable", params={"target": f"mypairs:{name}"})


@pytest.mark.parametrize("name", ["pair", "pair.encode_image", "encode_image"])
def test_any_pair_has_a_tower_of_texts(pairs, name):
    assert encode_texts(callable_spec(name), ["ab", "c"]).tolist() == [[2, 1], [1, 1]]


def test_the_contract_of_a_pair_is_that_of_its_tower_of_images(pairs):
    found = image_tower("mypairs:pair")
    assert (found["target"], found["px"], found["mean"]) == ("mypairs:pair.encode_image", 8, [0.5])
    assert image_tower("mypairs:image_only") == {"target": "mypairs:image_only"}


@pytest.mark.parametrize(
    "spec",
    [
        StageSpec(target="handcrafted"),
        callable_spec("image_only"),
        library_spec("timm:vit_tiny_patch16_224", {"random_weights": 0}),
    ],
    ids=lambda spec: spec.target,
)
def test_an_encoder_of_images_says_what_else_there_is(pairs, spec):
    assert not has_text_tower(spec)
    with pytest.raises(ConfigError, match=r"images only.*open_clip:NAME.*file="):
        encode_texts(spec, ["lymphocytes"])


@pytest.mark.parametrize(("name", "told"), [("broken", "ZeroDivisionError"), ("flat", r"\(3,\)")])
def test_towers_that_fail_are_named(pairs, name, told):
    with pytest.raises(ConfigError, match=told):
        encode_texts(callable_spec(name), ["a"])


def test_weights_that_are_missing_are_asked_for():
    with pytest.raises(ConfigError, match="--weights"):
        encode_texts(library_spec("open_clip:ViT-B-32", {}), ["a"])
