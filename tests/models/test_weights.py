from __future__ import annotations

import argparse
import pickle
import warnings
import zipfile

import pytest

torch = pytest.importorskip("torch")

from tests.models.plainvit import random_state  # noqa: E402
from tilestream.errors import ConfigError  # noqa: E402
from tilestream.models.hipt import SlideTransformer, vit4k, vit256  # noqa: E402
from tilestream.models.vit import GridEmbed, VisionTransformer  # noqa: E402
from tilestream.models.weights import load_weights, missing_weights, random_weights, weights_digest  # noqa: E402


def tiny(**options):
    return VisionTransformer(GridEmbed(channels=10, dim=24), dim=24, heads=2, grid_yx=(4, 4), **{"depth": 2, **options})


@pytest.fixture
def state():
    return random_state(tiny(), seed=5)


def equals(module, state):
    return all(torch.equal(module.state_dict()[name], tensor) for name, tensor in state.items())


def dino(state):
    """A training state as DINO's loop saves it: both networks with heads, optimizer, options."""
    head = {"head.mlp.0.weight": torch.zeros(3, 24), "head.last_layer.weight_g": torch.zeros(3, 1)}
    other = {name: tensor + 1 for name, tensor in state.items()}
    return {
        "student": {f"module.{k}": v for k, v in ({f"backbone.{k}": v for k, v in other.items()} | head).items()},
        "teacher": {f"backbone.{k}": v for k, v in state.items()} | head,
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "epoch": 7,
        "args": argparse.Namespace(arch="vit_xs", local_crops_scale=(0.05, 0.4), use_fp16=True, teacher_temp=None),
        "dino_loss": {"center": torch.zeros(1, 3)},
    }


def safetensors(state, path):
    from safetensors.torch import save_file

    save_file(state, path)


FORMS = {
    "dino": lambda state, path: torch.save(dino(state), path),
    "dino of old torch": lambda state, path: torch.save(dino(state), path, _use_new_zipfile_serialization=False),
    "plain": torch.save,
    "data parallel": lambda state, path: torch.save({f"module.{k}": v for k, v in state.items()}, path),
    "lightning": lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path),
    "classifier": lambda state, path: torch.save(state | {"head.weight": torch.zeros(2, 24)}, path),
    "half": lambda state, path: torch.save({k: v.double() for k, v in state.items()}, path),
    "safetensors": safetensors,
}


@pytest.mark.parametrize("form", FORMS)
def test_published_layouts_load(form, state, tmp_path):
    FORMS[form](state, tmp_path / "weights.bin")
    module = tiny()
    found = load_weights(module, tmp_path / "weights.bin", model="tiny")
    assert equals(module, state)
    assert module.pos_embed.dtype == torch.float32
    assert found == weights_digest(tmp_path / "weights.bin", model="tiny")
    assert len(found) == 32


def test_the_student_loads_where_it_is_asked_for(state, tmp_path):
    torch.save(dino(state), tmp_path / "both.pth")
    module = tiny()
    load_weights(module, tmp_path / "both.pth", model="tiny", key="student")
    assert equals(module, {name: tensor + 1 for name, tensor in state.items()})
    with pytest.raises(ConfigError, match=r"keys \['args', 'dino_loss', .*expected `ema`"):
        load_weights(module, tmp_path / "both.pth", model="tiny", key="ema")


@pytest.mark.parametrize(("make", "tensors"), [(vit256, 150), (vit4k, 78)])
def test_checkpoints_of_hipt_load_all_tensors(make, tensors, tmp_path):
    source, module = make(), make()
    random_weights(source, seed=1)
    torch.save(dino(source.state_dict()), tmp_path / "hipt.pth")
    load_weights(module, tmp_path / "hipt.pth", model=make.__name__)
    assert sum(torch.equal(module.state_dict()[k], v) for k, v in source.state_dict().items()) == tensors


@pytest.mark.parametrize("form", ["dino", "safetensors"])
def test_a_file_of_another_network_is_refused_with_what_differs(form, state, tmp_path):
    wrong = {name: tensor for name, tensor in state.items() if "blocks.1" not in name}
    wrong["blocks.0.attn.relative"] = torch.zeros(3)
    wrong["norm.weight"] = torch.zeros(25)
    wrong["norm.bias"] = wrong["norm.bias"] * float("nan")
    FORMS[form](wrong, tmp_path / "wrong.pth")
    module = tiny()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(ConfigError) as error:
        load_weights(module, tmp_path / "wrong.pth", model="tiny")
    assert "12 missing (blocks.1.norm1.weight, blocks.1.norm1.bias, blocks.1.attn.qkv.weight, …)" in str(error.value)
    assert "1 not the network's (blocks.0.attn.relative)" in str(error.value)
    assert "1 of another shape (norm.weight (25,) for (24,))" in str(error.value)
    assert "1 not finite (norm.bias)" in str(error.value)
    assert "wrong.pth" in str(error.value)
    assert equals(module, before)  # nothing was loaded


class Opens:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (open, ("ran.txt", "w"))


def truncated(path):
    torch.save(random_state(tiny()), path)
    path.write_bytes(path.read_bytes()[:-3000])


def truncated_safetensors(path):
    safetensors(random_state(tiny()), path)
    path.write_bytes(path.read_bytes()[:-100])


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "x")


def scripted(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch would have it exported now
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


BAD = {
    "absent": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "a folder"),
    "empty": (lambda path: path.touch(), "an empty file"),
    "pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 704238867\n"),
        "a pointer of Git LFS.*git lfs pull",
    ),
    "text": (lambda path: path.write_text("<html>Not found</html>"), "neither a file of torch.save nor safetensors"),
    "module": (lambda path: torch.save(tiny(), path), "a pickled object, which runs code"),
    "old module": (
        lambda path: torch.save(tiny(), path, _use_new_zipfile_serialization=False),
        "a pickled object, which runs code",
    ),
    "code": (lambda path: torch.save({"teacher": Opens()}, path), "a pickled object, which runs code"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(Opens())), "a pickled object, which runs code"),
    "scripted": (scripted, "a pickled object, which runs code"),
    "truncated": (truncated, "cannot be read"),
    "truncated safetensors": (truncated_safetensors, "cannot be read"),
    "zip": (zipped, "cannot be read"),
    "list": (lambda path: torch.save([torch.zeros(2)], path), "a list"),
    "numbers": (lambda path: torch.save({"epoch": 3, "loss": 0.1}, path), r"keys \['epoch', 'loss'\]"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_weights_is_refused_and_runs_no_code(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, says = BAD[kind]
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(ConfigError, match=says) as error:
        load_weights(tiny(), path, model="tiny")
    assert "weights.pth" in str(error.value)
    assert not (tmp_path / "ran.txt").exists()


@pytest.mark.parametrize("model", ["vit256", "vit4k"])
def test_missing_weights_say_where_they_are_and_under_which_licence(model, tmp_path):
    with pytest.raises(ConfigError) as absent:
        weights_digest(tmp_path / "x", model=model)
    for error in (missing_weights(model), absent.value):
        assert "mahmoodlab/HIPT" in str(error)
        assert "Commons Clause, for non-commercial academic use" in str(error)
    assert "--random-weights SEED" in str(missing_weights(model))
    assert "published" not in str(missing_weights("mine"))


def test_random_weights_follow_from_the_seed_alone():
    first, second, other = tiny(), tiny(), tiny()
    random_weights(first, seed=3)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    random_weights(second, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    random_weights(other, seed=4)
    assert equals(first, second.state_dict())
    assert not torch.equal(first.pos_embed, other.pos_embed)
    deeper = tiny(depth=3)
    random_weights(deeper, seed=3)
    assert equals(first, {k: v for k, v in deeper.state_dict().items() if "blocks.2" not in k})
    # the numbers themselves: features of a seed must not change from version to version
    found = first.pos_embed.detach().flatten()[[0, 200, 407]].tolist()
    assert found == pytest.approx(PINNED)


PINNED = [0.006797563284635544, -0.008971055038273335, -0.015772003680467606]


def test_random_weights_keep_the_size_of_what_passes_through():
    module = SlideTransformer().eval()
    random_weights(module, seed=0)
    weight = module.global_phi[0].weight.detach()
    assert abs(float(weight.std()) * 192**0.5 - 1) < 0.05
    assert abs(float(weight.mean())) < 0.01
    assert not module.global_phi[0].bias.any()
    assert (module.global_transformer.layers[0].norm1.weight == 1).all()
    for seed in (-1, 1.5):
        with pytest.raises(ConfigError, match="whole number from 0"):
            random_weights(module, seed=seed)


def test_a_digest_follows_the_file(tmp_path):
    path = tmp_path / "weights"
    found = set()
    for content in (b"a", b"bb", b"a"):
        path.write_bytes(content)
        found.add(weights_digest(path, model="tiny"))
    assert len(found) == 2
