from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tilestream.cli.encoding import encoder_choices
from tilestream.errors import ConfigError
from tilestream.models.encoders.names import library_spec


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(b"0")
    return tmp_path


def test_one_encoder_has_the_weights(files: Path) -> None:
    (one,) = encoder_choices(["uni"], weights=["a.pth"])
    assert one.params == {"weights": str(files / "a.pth")}
    (one,) = encoder_choices(["uni"], weights=["download@v1"])
    assert one.params == {"weights": "download@v1"}


def test_weights_say_whose_they_are(files: Path) -> None:
    names = ["small=timm:vit_small_patch16_224", "uni", "virchow"]
    small, uni, virchow = encoder_choices(names, weights=["uni=b.pth", "small=a.pth"], random_weights=3)
    assert small.name == "timm:vit_small_patch16_224"
    assert small.params == {"name": "small", "weights": str(files / "a.pth")}
    assert uni.params == {"weights": str(files / "b.pth")}
    assert virchow.params == {"random_weights": 3}


def test_the_type_is_for_those_on_torch() -> None:
    hipt, handcrafted = encoder_choices(["hipt", "handcrafted"], random_weights=1, dtype="bfloat16")
    assert hipt.params == {"random_weights": 1, "dtype": "bfloat16"}
    assert handcrafted.params == {}
    assert library_spec("uni", {"dtype": "bfloat16"}).params["record"]["dtype"] == "bfloat16"
    assert "dtype" not in library_spec("uni", {"random_weights": 1}).params


def test_value_range_is_for_handcrafted_among_several() -> None:
    uni, handcrafted = encoder_choices(["uni", "handcrafted"], value_range=(0, 1), random_weights=1)
    assert uni.params == {"random_weights": 1}
    assert handcrafted.params == {"value_range": [0, 1]}
    with pytest.raises(ConfigError, match="among them, whose it would be"):
        encoder_choices(["uni", "virchow"], value_range=(0, 1), random_weights=1)


@pytest.mark.parametrize(
    ("names", "weights", "reason"),
    [
        (["uni", "virchow"], ["a.pth"], "`uni=FILE` or `virchow=FILE`"),
        (["uni"], ["vircow=a.pth"], "whose weights"),
        (["uni"], ["a.pth", "b.pth"], "two for `uni`"),
        (["uni"], ["c.pth"], "where nothing is"),
        (["uni", "uni"], [], "2 encoders called `uni`"),
        (None, ["a.pth"], "for `handcrafted`, which has none"),
    ],
)
def test_unclear_weights_are_refused(files: Path, names: list[str] | None, weights: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        encoder_choices(names, weights=weights)


def test_encoders_are_listed(call: Call) -> None:
    text = call("encoders").stdout
    assert all(word in text for word in ("uni2-h", "1536", "CC-BY-NC-ND-4.0 (gated)", "prithvi-eo-2.0-300m"))
    record = json.loads(call("encoders", "virchow2").stdout)
    assert (record["pooling"], record["dim"], record["px"]) == ("cls+mean", 2560, 224)
    own = json.loads(call("encoders", "hipt").stdout)
    assert (own["px"], own["mpp"], own["dim"]) == (256, 0.5, 384)
    assert set(json.loads(call("encoders", "--json").stdout)) > {"uni", "conch", "hipt", "mvit", "fpn-vit"}
    assert "Apache-2.0 with Commons Clause" in " ".join(text.split())
    assert "Did you mean `virchow2`?" in call("encoders", "virchow22").stderr


def test_encoder_without_weights_ends_the_run_at_once(call: Call, slide: Path, tmp_path: Path) -> None:
    result = call("embed", slide, "--out", tmp_path / "out", "--encoder", "uni2-h")
    assert result.exit_code == 2
    assert "huggingface.co/MahmoodLab/UNI2-h under CC-BY-NC-ND-4.0" in result.stderr
    assert not (tmp_path / "out").exists()
