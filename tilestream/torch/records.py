"""What a training feed is given and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tilestream.errors import ConfigError
from tilestream.plan.tiles import TilePlan
from tilestream.pyramid.pyramid import Pyramid
from tilestream.types import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedImage:
    """An image, the tiles of it that are wanted, and what is to be learned of them."""

    pyramid: Pyramid
    """The image: `ts.open_pyramid`."""
    plan: TilePlan
    """Its tiles: `ts.plan_tiles`."""
    label: Any = None
    """Number or array that all of its tiles get."""
    tile_labels: Array | None = None
    """Number or array for each tile instead, in the order of the plan's rows (that of feature stores)."""


class TileBatch(NamedTuple):
    """Tiles in the order in which they are learned from; all tensors are on the device."""

    pixels: torch.Tensor
    """`(n, c, h, w)` as stored, halo included; channels last in memory."""
    label: torch.Tensor | None
    """`(n, …)` int64 or float32; None where images have no labels."""
    image: torch.Tensor
    """`(n,)` int64, place in the list of images."""
    row: torch.Tensor
    """`(n,)` int64, feature row in the image's plan."""
    yx: torch.Tensor
    """`(n, 2)` int64, top-left corner of the core, plan pixels."""
    valid_share: torch.Tensor
    """`(n,)` float32, share of valid pixels in the core."""
    seed: int
    """Seed of this batch, the same whenever it is made: for transforms that draw random numbers."""


def labels_of(images: Sequence[PlannedImage]) -> tuple[Array, ...] | None:
    """Return the labels of each image: one for all of its tiles, `(1, …)`, or one a tile; None where none has any.

    Parameters
    ----------
    images : sequence of PlannedImage
        The images.

    Returns
    -------
    tuple of ndarray or None
        int64 where all are whole numbers, else float32.

    Raises
    ------
    ConfigError
        When only some have labels, or labels are no numbers or differ in shape.
    """
    given = [image.label is not None or image.tile_labels is not None for image in images]
    if not any(given):
        return None
    if not all(given):
        raise _error(f"labels for {sum(given)} of {len(given)} images", "them for all, or for none")
    found = []
    for number, image in enumerate(images):
        values = np.asarray(image.label)[None] if image.tile_labels is None else np.asarray(image.tile_labels)
        if image.tile_labels is not None and len(values) != len(image.plan):
            raise _error(f"{len(values)} for the {len(image.plan)} tiles of image {number}", "one a tile")
        if values.dtype.kind not in "biuf":
            raise _error(f"{values.dtype} in image {number}", "numbers: map classes to 0, 1, 2 …")
        found.append(values)
    shapes = {values.shape[1:] for values in found}
    if len(shapes) > 1:
        raise _error(f"shapes {sorted(shapes)}", "one shape")
    dtype: npt.DTypeLike = np.float32 if any(values.dtype.kind == "f" for values in found) else np.int64
    return tuple(values.astype(dtype) for values in found)


def _error(got: str, expected: str) -> ConfigError:
    return ConfigError.of("labels", got=got, expected=expected, do="Correct `label` or `tile_labels` of the images.")
