"""SSIM and MS-SSIM against pytorch-msssim, which computes them in torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tilestream.codecs.structure import ms_ssim, ssim
from tilestream.errors import ConfigError

torch = pytest.importorskip("torch")


def pair(shape: tuple[int, ...], dtype: str = "uint8") -> tuple[np.ndarray, np.ndarray]:
    """A smooth image and a noisy one of it."""
    rng = np.random.default_rng(3)
    grid = np.add.outer(np.sin(np.arange(shape[-2]) / 7), np.cos(np.arange(shape[-1]) / 5))
    smooth = np.broadcast_to(grid * 50 + 128, shape) + rng.normal(0, 8, shape)
    noisy = smooth + rng.normal(0, 12, shape)
    return tuple(np.clip(image, 0, 255).astype(dtype) for image in (smooth, noisy))  # type: ignore[return-value]


def reference(name: str, a: np.ndarray, b: np.ndarray) -> float:
    """The value of pytorch-msssim in float64, its window too: its own has taps of float32."""
    import pytorch_msssim

    first, second = (torch.from_numpy(image.astype(np.float64))[None] for image in (a, b))
    window = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    window = (window / window.sum()).repeat(len(a), 1, 1, 1)
    return float(getattr(pytorch_msssim, name)(first, second, data_range=255, win=window))


@pytest.mark.parametrize(
    ("measure", "shape"), [(ssim, (3, 64, 51)), (ssim, (1, 11, 11)), (ms_ssim, (3, 176, 192)), (ms_ssim, (2, 240, 176))]
)
def test_it_is_what_torch_computes(measure: Callable[..., float], shape: tuple[int, ...]) -> None:
    a, b = pair(shape)
    assert measure(a, b) == pytest.approx(reference(measure.__name__, a, b), abs=1e-9)
    assert measure(a, a) == pytest.approx(1)


def test_odd_edges_differ_little() -> None:
    a, b = pair((1, 177, 181))
    assert ms_ssim(a, b) == pytest.approx(reference("ms_ssim", a, b), abs=2e-3)


def test_an_odd_edge_is_the_mean_of_what_exists() -> None:
    """An image and itself with the last row doubled have the same coarser scales."""
    a, b = pair((161, 162))
    doubled = [np.vstack([image, image[-1:]]) for image in (a, b)]
    from tilestream.codecs.structure import _halved

    assert np.array_equal(_halved(a), _halved(doubled[0]))


def test_a_span_of_other_samples_scales_it() -> None:
    a, b = pair((32, 32))
    assert ssim(a / np.float32(255), b / np.float32(255), high=1) == pytest.approx(ssim(a, b), abs=1e-6)


def test_opposite_images_are_0_over_scales() -> None:
    a, _ = pair((192, 192))
    assert ms_ssim(a, 255 - a) == 0


@pytest.mark.parametrize(("measure", "edge"), [(ssim, 10), (ms_ssim, 160)])
def test_too_small_images_are_refused(measure: Callable[..., float], edge: int) -> None:
    a, b = pair((3, edge, 500))
    with pytest.raises(ConfigError, match=f"at least {edge + 1} x {edge + 1} px"):
        measure(a, b)


def test_samples_that_are_not_finite_are_refused() -> None:
    a, b = pair((16, 16), "float32")
    b[3, 3] = np.nan
    with pytest.raises(ConfigError, match="NaN"):
        ssim(a, b, high=255)
