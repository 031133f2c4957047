"""Measures of quality against their definitions and, where one exists, a trusted implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilestream.codecs.quality import H_AND_E, od_psnr, psnr
from tilestream.errors import ConfigError


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@given(dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "float32"]), seed=st.integers(0, 99))
def test_psnr_is_its_definition(dtype: str, seed: int) -> None:
    limits = np.array([-0.5, 0.5]) if dtype == "float32" else np.array([np.iinfo(dtype).min, np.iinfo(dtype).max])
    a, b = (np.random.default_rng(seed + k).uniform(*limits, (3, 5, 7)).astype(dtype) for k in (0, 1))
    high = float(limits[1] - limits[0])
    expected = 20 * math.log10(high) - 10 * math.log10(np.mean((a.astype(float) - b.astype(float)) ** 2))
    assert psnr(a, b, high=high) == pytest.approx(expected, abs=1e-9)
    assert psnr(a, a, high=high) == math.inf
    assert psnr(a[0], b[0], high=high) == psnr(a[:1], b[:1], high=high)


def test_psnr_of_one_code_apart_is_that_of_8_bits() -> None:
    a = np.full((3, 4, 4), 7, np.uint8)
    assert psnr(a, a + 1) == pytest.approx(48.1308, abs=1e-4)
    assert psnr(a - 7, a + 248) == pytest.approx(0)  # no wrap-around


def test_what_is_not_valid_does_not_count() -> None:
    a = np.zeros((2, 4, 4), np.float32)
    b = a + 0.1
    b[:, 0, 0] = np.nan
    valid = np.isfinite(b[0])
    assert psnr(a, b, high=1, valid=valid) == pytest.approx(20, abs=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "options", "words"),
    [
        (noise((3, 4, 4)), noise((3, 4, 5)), {}, "one shape and type"),
        (noise((3, 4, 4)), noise((3, 4, 4)).astype(np.uint16), {}, "one shape and type"),
        (np.zeros((3, 0, 4), np.uint8), np.zeros((3, 0, 4), np.uint8), {}, "one shape and type"),
        (noise((4, 4)).astype(np.uint16), noise((4, 4)).astype(np.uint16), {}, "what samples of uint16 span"),
        (noise((4, 4)), noise((4, 4)), {"high": 0.0}, "above 0"),
        (noise((4, 4)), noise((4, 4)), {"valid": np.zeros((4, 4), bool)}, "no valid pixel"),
        (noise((4, 4)), noise((4, 4)), {"valid": np.zeros((4, 5), bool)}, "bool"),
        (np.full((4, 4), np.inf, np.float32), np.full((4, 4), np.inf, np.float32), {"high": 1.0}, "infinite"),
        (np.full((4, 4), np.nan, np.float32), np.zeros((4, 4), np.float32), {"high": 1.0}, "NaN"),
    ],
)
def test_what_cannot_be_compared_is_refused(a: np.ndarray, b: np.ndarray, options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        psnr(a, b, **options)


def tissue(edge: int = 64, seed: int = 0) -> np.ndarray:
    """Two stains in amounts of a random smooth field, as 8-bit transmitted light."""
    amounts = np.random.default_rng(seed).uniform(0, 1.2, (2, edge, edge))
    rows = np.array(H_AND_E) / np.linalg.norm(H_AND_E, axis=1, keepdims=True)
    density = np.einsum("kyx,kc->cyx", amounts, rows)
    return np.clip(np.rint(256 * 10**-density - 1), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("stains", [H_AND_E, None])
def test_od_psnr_is_its_definition_in_float64(stains: tuple | None) -> None:
    a, b = tissue(seed=1), tissue(seed=2)
    density = [-np.log10((image.astype(float) + 1) / 256).reshape(3, -1) for image in (a, b)]
    if stains:
        rows = np.array(stains) / np.linalg.norm(stains, axis=1, keepdims=True)
        third = np.cross(*rows)
        mixing = np.vstack([rows, third / np.linalg.norm(third)])
        density = [(np.linalg.inv(mixing.T) @ of)[:2] for of in density]
    expected = 10 * math.log10(math.log10(256) ** 2 / np.mean((density[0] - density[1]) ** 2))
    assert od_psnr(a, b, stains=stains) == pytest.approx(expected, abs=1e-5)
    assert od_psnr(a, a, stains=stains) == math.inf


def test_od_psnr_weighs_dark_pixels_more() -> None:
    dark, light = np.full((3, 8, 8), 20, np.uint8), np.full((3, 8, 8), 220, np.uint8)
    assert psnr(dark, dark + 4) == psnr(light, light + 4)
    assert od_psnr(dark, dark + 4, stains=None) < od_psnr(light, light + 4, stains=None) - 10


def test_od_psnr_of_other_than_light_is_refused() -> None:
    with pytest.raises(ConfigError, match="transmitted light"):
        od_psnr(noise((4, 8, 8)), noise((4, 8, 8)))
