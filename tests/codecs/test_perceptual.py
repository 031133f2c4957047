"""Measures of other packages: what they are handed, and what is said where they are missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tilestream.codecs.perceptual import LPIPS_WEIGHTS, lpips, ssimulacra2
from tilestream.errors import ConfigError


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    grid = np.add.outer(np.sin(np.arange(48) / 7), np.cos(np.arange(40) / 5))
    a = np.stack([grid * 50 + 128, grid * 30 + 100, grid * 20 + 90])
    return a.astype(np.uint8), np.clip(a + np.random.default_rng(0).normal(0, 6, a.shape), 0, 255).astype(np.uint8)


def test_ssimulacra2_of_equal_images_is_100_and_falls_with_noise(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    worse = np.clip(a + 3.0 * (b.astype(float) - a), 0, 255).astype(np.uint8)
    assert ssimulacra2(a, a) == 100
    assert 100 > ssimulacra2(a, b) > ssimulacra2(a, worse)


def test_ssimulacra2_is_that_of_files(pair: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    from PIL import Image

    package = pytest.importorskip("ssimulacra2")
    for name, image in zip("ab", pair, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{name}.png")
    assert ssimulacra2(*pair) == package.compute_ssimulacra2(str(tmp_path / "a.png"), str(tmp_path / "b.png"))


@pytest.mark.parametrize(("measure", "edge"), [(ssimulacra2, 7), (lpips, 31)])
def test_other_than_colour_is_refused(measure, edge, monkeypatch: pytest.MonkeyPatch) -> None:
    if measure is lpips:
        pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=None))
    for image in (np.zeros((1, 64, 64), np.uint8), np.zeros((3, 64, 64), np.uint16), np.zeros((3, 64, edge), np.uint8)):
        with pytest.raises(ConfigError, match=f"at least {edge + 1} x"):
            measure(image, image)


@pytest.mark.parametrize(
    ("measure", "words"), [(ssimulacra2, r"\.\[quality\]"), (lpips, rf"{LPIPS_WEIGHTS}.*233 MB.*\.\[lpips\]")]
)
def test_a_missing_package_is_named_with_its_extra(measure, words, pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, measure.__name__, None)
    with pytest.raises(ConfigError, match=words):
        measure(*pair)


class Distance:
    """Stands for the network of `lpips`: the mean difference of what it is handed, in its units of -1 to 1."""

    def __init__(self, *, net: str, verbose: bool) -> None:
        assert (net, verbose) == ("alex", False)

    def __call__(self, a, b):
        assert a.shape == b.shape == (1, 3, 48, 40)
        assert -1 <= float(a.min()) < 0 < float(a.max()) <= 1
        return (a - b).abs().mean()


def test_lpips_hands_over_tensors_and_downloads_nothing(pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    package = ModuleType("lpips")
    package.LPIPS = Distance  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", package)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ConfigError, match=r"233 MB.*download\.pytorch\.org"):
        lpips(*pair)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / LPIPS_WEIGHTS).touch()
    expected = np.abs(pair[0].astype(float) - pair[1]).mean() / 127.5
    assert lpips(*pair) == pytest.approx(expected, rel=1e-5)
