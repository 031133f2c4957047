from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.plan.build import info
from tilestream.errors import ConfigError, StageError
from tilestream.models.encoders.names import library_spec
from tilestream.stream.work import make_stage
from tilestream.types import Batch, Channel, ImageInfo, StageSpec

PX = 32
TINY = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": PX, "patch_size": 8}
"""Arguments of a transformer that timm makes small."""


def batch(edge: int = PX, *, channels: int = 3, tiles: int = 2) -> Batch:
    pixels = np.random.default_rng(1).integers(0, 256, (tiles, channels, edge, edge), np.uint8)
    ones, rows = np.ones(tiles, np.float32), np.arange(tiles)
    return Batch(pixels=pixels, valid=None, valid_share=ones, rows=rows, tile_yx=np.zeros((tiles, 2), np.int64))


def image_of(*channels: str) -> ImageInfo:
    return info(64, 64, channels=tuple(Channel(name=name) for name in channels))


def write_record(path: Path, **fields: Any) -> str:
    half = [0.5, 0.5, 0.5]
    stated = {"name": path.stem, "library": "timm", "model": "vit_tiny_patch16_224", "arguments": TINY}
    path.write_text(json.dumps({**stated, "px": PX, "mean": half, "std": half, **fields}))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of timm as the hub stores it."""
    import timm
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("models") / "tiny vit"
    path.mkdir()
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **TINY)
    half = [0.5, 0.4, 0.3]
    config = {"input_size": [3, PX, PX], "mean": half, "std": half, "classifier": "head"}
    document = {"architecture": "vit_tiny_patch16_224", "model_args": TINY, "pretrained_cfg": config}
    (path / "config.json").write_text(json.dumps(document))
    save_file(model.state_dict(), path / "model.safetensors")
    return path


def samples(found: Batch, mean: Any, std: Any) -> torch.Tensor:
    scaled = torch.from_numpy(found.pixels).float() / 255
    return (scaled - torch.tensor(mean).reshape(1, -1, 1, 1)) / torch.tensor(std).reshape(1, -1, 1, 1)


def test_timm_folder_gives_what_timm_gives(folder: Path) -> None:
    import timm
    from safetensors.torch import load_file

    stage = make_stage(library_spec(f"timm:{folder}", {}))
    assert (stage.contract.name, stage.contract.px) == ("tiny_vit", PX)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **TINY).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    mine = batch()
    with torch.inference_mode():
        x = samples(mine, stage.contract.mean, stage.contract.std)
        expected = model.forward_head(model.forward_features(x), pre_logits=True)
    np.testing.assert_allclose(stage(mine), expected.numpy(), atol=1e-5)


def test_pooling_sizes_and_weights_of_a_record(folder: Path, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import load_file

    name = write_record(tmp_path / "mine.json", pooling="cls+mean", px=64, mpp=0.5, input_px=48, crop_px=PX)
    stage = make_stage(library_spec(name, {"weights": str(folder / "model.safetensors")}))
    mine = batch(64)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **TINY).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.inference_mode():
        x = samples(mine, [0.5] * 3, [0.5] * 3)
        x = torch.nn.functional.interpolate(x, size=(48, 48), mode="bicubic", antialias=True)[..., 8:40, 8:40]
        tokens = model.forward_features(x)
    expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1).numpy()
    found = stage(mine)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert stage.contract.pooling == "class token, then mean of the tokens of patches"
    assert len(stage.output_names(image_of("r", "g", "b"))) == found.shape[1] == 48


def test_random_weights_are_those_of_their_seed(tmp_path: Path) -> None:
    name = write_record(tmp_path / "mine.json")
    one, same, other = (make_stage(library_spec(name, {"random_weights": seed})) for seed in (1, 1, 2))
    assert np.array_equal(one(batch()), same(batch()))
    assert not np.allclose(one(batch()), other(batch()))
    assert (one.contract.weights, one.contract.source) == ("random:1", None)


def test_moved_weights_are_the_same_and_changed_ones_are_not(folder: Path, tmp_path: Path) -> None:
    from tilestream.pipelines.recipe import stage_recipe

    name = write_record(tmp_path / "mine.json")
    image = image_of("r", "g", "b")
    paths = [tmp_path / "a.safetensors", tmp_path / "b" / "a.safetensors"]
    paths[1].parent.mkdir()
    recipes = []
    for path in paths:
        path.write_bytes((folder / "model.safetensors").read_bytes())
        stage = make_stage(library_spec(name, {"weights": str(path)}))
        recipes.append(stage_recipe(stage.for_image(image), stage.contract))
    assert recipes[0] == recipes[1]
    spec = stage.for_image(image)
    assert np.array_equal(make_stage(spec)(batch()), stage(batch()))
    state = {**spec.params, "digest": "0" * 32}
    with pytest.raises(ConfigError, match="began with"):
        make_stage(StageSpec(target=spec.target, params=state))(batch())


def test_weights_of_another_network_are_refused(folder: Path, tmp_path: Path) -> None:
    name = write_record(tmp_path / "mine.json", arguments={**TINY, "depth": 3})
    stage: Any = make_stage(library_spec(name, {"weights": str(folder)}))
    with pytest.raises(ConfigError, match="12 missing"):
        stage.load()


def test_four_channels_are_refused_by_three(folder: Path) -> None:
    stage = make_stage(library_spec(f"timm:{folder}", {}))
    with pytest.raises(StageError, match="4 channels"):
        stage(batch(channels=4))


def test_scale_of_8_bits_is_refused_on_16(folder: Path) -> None:
    stage = make_stage(library_spec(f"timm:{folder}", {}))
    with pytest.raises(StageError, match="65535"):
        stage.for_image(info(64, 64, channels=image_of("r", "g", "b").channels, dtype=np.dtype("u2")))


@pytest.mark.parametrize("kind", ["Dinov2", "ConvNext"])
def test_transformers_folder(kind: str, tmp_path: Path) -> None:
    import transformers

    sizes: dict[str, Any] = {"hidden_sizes": [8, 8, 8, 24], "depths": [1, 1, 1, 1]}
    if kind == "Dinov2":
        sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 64, "patch_size": 8}
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes)).eval()
    model.save_pretrained(tmp_path / "it")
    processor = {"do_center_crop": True, "crop_size": {"height": PX, "width": PX}, "image_mean": [0.1, 0.2, 0.3]}
    processor |= {"image_std": [0.5, 0.6, 0.7], "rescale_factor": 1 / 255}
    (tmp_path / "it" / "preprocessor_config.json").write_text(json.dumps(processor))
    stage = make_stage(library_spec(f"hf:{tmp_path / 'it'}", {}))
    assert stage.contract.px == PX
    mine = batch()
    with torch.inference_mode():
        states = model(pixel_values=samples(mine, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])).last_hidden_state
    expected = states.mean((2, 3)) if kind == "ConvNext" else states[:, 0]
    np.testing.assert_allclose(stage(mine), expected.numpy(), atol=1e-5)


def test_transformers_folder_with_other_weights_is_refused(tmp_path: Path) -> None:
    import transformers

    sizes = {"hidden_size": 24, "num_attention_heads": 3, "image_size": PX, "patch_size": 8}
    transformers.Dinov2Model(transformers.Dinov2Config(num_hidden_layers=1, **sizes)).save_pretrained(tmp_path)
    transformers.Dinov2Config(num_hidden_layers=2, **sizes).save_pretrained(tmp_path)
    stage: Any = make_stage(StageSpec(target="encoder", params={"record": stated(tmp_path), "weights": str(tmp_path)}))
    with pytest.raises(ConfigError, match="lack"):
        stage.load()


def stated(path: Path) -> dict[str, Any]:
    half = [0.5, 0.5, 0.5]
    return {"name": "it", "library": "hf", "model": path.name, "mean": half, "std": half}


def test_code_beside_weights_is_not_run(tmp_path: Path) -> None:
    auto = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto, "image_size": PX}))
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    (tmp_path / "model.safetensors").write_bytes(b"0")
    stage: Any = make_stage(StageSpec(target="encoder", params={"record": stated(tmp_path), "weights": str(tmp_path)}))
    with pytest.raises(ConfigError, match="not run"):
        stage.load()


def test_open_clip_image_tower(tmp_path: Path) -> None:
    import open_clip
    from safetensors.torch import save_file

    vision = {"image_size": PX, "layers": 2, "width": 24, "head_width": 8, "patch_size": 8}
    text = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}
    document = {"model_cfg": config, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7]}}
    torch.manual_seed(0)
    model = open_clip.CLIP(**config).eval()
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    stage = make_stage(library_spec(f"open_clip:{tmp_path}", {}))
    mine = batch()
    with torch.inference_mode():
        expected = model.encode_image(samples(mine, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]))
    np.testing.assert_allclose(stage(mine), expected.numpy(), atol=1e-5)
    assert (stage.contract.dim, stage.contract.px) == (12, PX)


HUBCONF = """
import torch

def net(pretrained=True, dim=8):
    if pretrained:
        raise RuntimeError("it would download")
    made = torch.nn.Sequential(torch.nn.Conv2d(3, dim, 8, 8), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    made.pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return made

def bare():
    return torch.nn.Flatten()
"""


def test_torch_hub_folder(tmp_path: Path) -> None:
    (tmp_path / "hubconf.py").write_text(HUBCONF)
    stage = make_stage(library_spec(f"hub:{tmp_path}:net", {"random_weights": 0}))
    assert stage(batch()).shape == (2, 8)
    with pytest.raises(ConfigError, match="`px`, `mean`, `std`"):
        make_stage(library_spec(f"hub:{tmp_path}:bare", {"random_weights": 0}))
    with pytest.raises(ConfigError, match="nothing"):
        make_stage(library_spec(f"hub:{tmp_path}:nothing", {"random_weights": 0}))


def test_package_that_makes_an_encoder(tmp_path: Path) -> None:
    """As the satellite models: built by a function, called by a method, part of a larger checkpoint."""
    from tests.models.encoders import packaged

    torch.manual_seed(3)
    whole = packaged.Whole()
    torch.save({"model": whole.state_dict()}, tmp_path / "whole.pt")
    fields = {"library": "callable", "model": f"{packaged.__name__}:make", "arguments": {"dim": 6}}
    fields |= {"call": "features", "call_arguments": {"waves": [0.5, 0.6]}, "prefix": "encoder.", "fixed": ["table"]}
    fields |= {"channels": ["green", "red"], "mean": [0.5, 0.5], "std": [0.5, 0.5], "take": 0}
    name = write_record(tmp_path / "mine.json", **fields)
    stage: Any = make_stage(library_spec(name, {"weights": str(tmp_path / "whole.pt")}))
    bound = make_stage(stage.for_image(image_of("Red", "nir", "green")))
    mine = batch(channels=3)
    x = samples(mine, [0.5] * 3, [0.5] * 3)[:, [2, 0]]
    expected = whole.encoder.features(x, waves=[0.5, 0.6]).detach()
    np.testing.assert_allclose(bound(mine), expected.numpy(), atol=1e-6)


def test_conch_is_published_without_its_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its vectors are those before the projection, as its authors have them for slides."""

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = torch.nn.Linear(3, 512)
            self.text_decoder = torch.nn.Linear(2, 2)

        def encode_image(
            self, images: torch.Tensor, normalize: bool = True, proj_contrast: bool = True
        ) -> torch.Tensor:
            assert not normalize
            assert not proj_contrast
            found: torch.Tensor = self.visual(images.mean((2, 3)))
            return found

    def create_model_from_pretrained(
        model_cfg: str, checkpoint_path: str | None = None, return_transform: bool = True
    ) -> Whole:
        assert model_cfg == "conch_ViT-B-16"
        assert checkpoint_path is not None
        assert not return_transform
        return Whole()

    package = ModuleType("conch.open_clip_custom")
    package.create_model_from_pretrained = create_model_from_pretrained  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "conch", ModuleType("conch"))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    whole = Whole()
    published = {name: one for name, one in whole.state_dict().items() if not name.startswith("text_decoder.")}
    torch.save(published, tmp_path / "pytorch_model.bin")
    stage = make_stage(library_spec("conch", {"weights": str(tmp_path / "pytorch_model.bin")}))
    mine = batch(448)
    x = samples(mine, stage.contract.mean, stage.contract.std)
    expected = whole.visual(x.mean((2, 3))).detach()
    np.testing.assert_allclose(stage(mine), expected.numpy(), atol=1e-5)
    torch.save({"visual.weight": published["visual.weight"]}, tmp_path / "cut.bin")
    with pytest.raises(ConfigError, match=r"1 missing \(visual\.bias\)"):
        make_stage(library_spec("conch", {"weights": str(tmp_path / "cut.bin")}))(mine)


@pytest.mark.parametrize(
    ("name", "params", "reason"),
    [
        ("uni2-h", {}, r"huggingface\.co/MahmoodLab/UNI2-h under CC-BY-NC-ND-4\.0, where access has to be asked for"),
        ("timm:vit_tiny_patch16_224", {}, r"published at .* under apache-2\.0"),
        ("timm:vit_tinny", {"random_weights": 0}, "Did you mean"),
        ("open_clip:ViT-B-322", {"random_weights": 0}, "Did you mean `ViT-B-32`"),
        ("open_clip:ViT-B-32:nobody", {"random_weights": 0}, "openai"),
        ("hf:some/where", {"random_weights": 0}, "no folder of it"),
        ("hub:some/where:net", {"random_weights": 0}, "Clone it"),
        ("timm:", {}, "no model"),
        ("uni", {"px": 3}, "px"),
        ("dofa-base", {"random_weights": 0}, r"`call_arguments` .\"wavelengths\": "),
        ("uni", {"weights": "download", "random_weights": 0}, "one of them"),
    ],
)
def test_what_is_missing_is_said(name: str, params: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_stage(library_spec(name, params))


def test_a_library_without_torch_is_not_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    from tilestream.models.encoders import libraries

    def without_torch(module: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(libraries, "import_module", without_torch)
    with pytest.raises(ConfigError, match=r"'\.\[encoders\]'"):
        libraries.import_library("timm")


def test_download_of_a_model_of_timm_asks_for_its_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And what is recorded is where the file is from."""
    import timm
    from safetensors.torch import save_file

    asked = []

    def fetched(repository: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
        asked.append((repository, revision, patterns))
        return path

    path = tmp_path / ("a" * 40) / "model.safetensors"
    path.parent.mkdir()
    save_file(timm.create_model("test_vit").state_dict(), path)
    monkeypatch.setattr("tilestream.models.encoders.download._fetched", fetched)
    stage = make_stage(library_spec("timm:test_vit", {"weights": "download"}))
    edge = stage.contract.px
    assert stage(batch(edge)).shape[0] == 2
    repository = timm.get_pretrained_cfg("test_vit").hf_hub_id
    assert {one[0] for one in asked} == {repository}
    assert asked[-1] == (repository, "a" * 40, ("model.safetensors",))
    assert stage.contract.source == f"https://huggingface.co/{repository}"


def test_network_that_nobody_builds_is_said() -> None:
    stage: Any = make_stage(library_spec("conch-v1.5", {"random_weights": 0}))
    with pytest.raises(ConfigError, match="TITAN"):
        stage.load()


@pytest.mark.parametrize("name", ["uni", "uni2-h", "virchow", "virchow2", "h-optimus-0", "h0-mini", "gigapath"])
def test_ready_record_is_built_by_timm(name: str) -> None:
    """With no memory for weights: names of arguments and shapes have to be right."""
    from tilestream.models.encoders import timm_models
    from tilestream.models.encoders.record import ready_records

    record = ready_records()[name]
    with torch.device("meta"):
        network = timm_models.build(record, None)
    tokens = network.num_features * (2 if record.pooling == "cls+mean" else 1)
    assert tokens == record.dim
    if record.prefix_tokens is not None:
        assert network.num_prefix_tokens == record.prefix_tokens
