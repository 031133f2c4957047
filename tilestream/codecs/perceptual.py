"""Perceptual measures that other packages compute: SSIMULACRA 2, and LPIPS, which needs a download."""

from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np

from tilestream.codecs.quality import require_pair
from tilestream.errors import ConfigError
from tilestream.types import Array

LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"
"""What `lpips` needs besides its package: AlexNet as torchvision publishes it, 233 MB."""
_LPIPS_DOWNLOAD = (
    "The weights: python -c \"import torchvision; torchvision.models.alexnet(weights='DEFAULT')\" "
    "downloads them from download.pytorch.org."
)


def ssimulacra2(a: Array, b: Array) -> float:
    """Return the perceptual score SSIMULACRA 2 of two colour images, as the package of this name computes it.

    Parameters
    ----------
    a : ndarray of uint8
        `(3, y, x)` sRGB, the original, at least 8 pixels along both edges.
    b : ndarray of uint8
        The decoded one.

    Returns
    -------
    float
        100 is equality, 90 cannot be told apart, 70 is high, 50 medium, 30 low quality; it may be below 0.

    Raises
    ------
    ConfigError
        When the package is missing, or the images are no such pair.
    """
    try:
        from ssimulacra2 import compute_ssimulacra2
    except ImportError as error:
        raise ConfigError.of(
            "SSIMULACRA 2",
            got=str(error),
            expected="the package `ssimulacra2`",
            do="Install it from the clone: pip install '.[quality]'.",
        ) from error
    _require_colour("SSIMULACRA 2", a, b, least_px=8)
    return float(compute_ssimulacra2(_as_file(a), _as_file(b)))


def lpips(a: Array, b: Array) -> float:
    """Return the learned perceptual distance LPIPS of two colour images, by AlexNet.

    Parameters
    ----------
    a, b : ndarray of uint8
        `(3, y, x)` sRGB, at least 32 pixels along both edges.

    Returns
    -------
    float
        0 is equality.

    Raises
    ------
    ConfigError
        When the package `lpips` or AlexNet's weights are missing (nothing is downloaded here), or the images are no
        such pair.

    References
    ----------
    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018.
    """
    try:
        import torch
        from lpips import LPIPS
    except ImportError as error:
        raise ConfigError.of(
            "LPIPS",
            got=str(error),
            expected=f"the packages `lpips` and torchvision, and AlexNet's weights, `{LPIPS_WEIGHTS}` (233 MB)",
            do=f"Install them from the clone: pip install '.[lpips]'. {_LPIPS_DOWNLOAD}",
        ) from error
    _require_colour("LPIPS", a, b, least_px=32)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not (folder / LPIPS_WEIGHTS).is_file():
        raise ConfigError.of(
            "the weights of LPIPS",
            got=f"no `{LPIPS_WEIGHTS}` in {folder}",
            expected="AlexNet as torchvision publishes it, 233 MB",
            do=_LPIPS_DOWNLOAD,
        )
    network = LPIPS(net="alex", verbose=False)
    with torch.no_grad():
        first, second = (torch.from_numpy(image / np.float32(127.5) - 1)[None] for image in (a, b))
        return float(network(first, second))


def _require_colour(name: str, a: Array, b: Array, *, least_px: int) -> None:
    require_pair(a, b)
    if a.ndim != 3 or a.shape[0] != 3 or a.dtype != np.uint8 or min(a.shape[1:]) < least_px:
        raise ConfigError.of(
            f"images to compare by {name}",
            got=f"{a.shape} {a.dtype}",
            expected=f"(3, y, x) uint8 in sRGB, at least {least_px} x {least_px} px",
            do="Use `psnr` or `ssim` for other images.",
        )


def _as_file(image: Array) -> io.BytesIO:
    """Return an image as the file that the package reads: it takes no arrays."""
    return io.BytesIO(imagecodecs.png_encode(np.ascontiguousarray(image.transpose(1, 2, 0)), level=1))
