"""Layers of floats as layers of whole numbers, and back, with as many bits as 32 of a sum allow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from tilestream.codecs.pyramid.nets import FEATURE_BITS, FEATURE_MOST, FILTER_BITS, MOST_SHIFT, Layer

WEIGHT_BITS = 11
"""Of the fraction of a weight, at most: more would cost bytes and bring nothing."""
_SUM_MOST = 2**31 - 1 - (1 << MOST_SHIFT)


def whole_layer(weights: torch.Tensor, bias: torch.Tensor) -> Layer:
    """Return a layer in whole numbers.

    Parameters
    ----------
    weights : Tensor
        `(out, in)`, from features to features.
    bias : Tensor
        `(out,)`, in features of 1.

    Returns
    -------
    Layer
        With the largest shift up to `WEIGHT_BITS` whose sums stay below 2^31. Weights that are too large for any are
        left as they are and found by `Layer.check`.
    """
    exact = weights.detach().double().cpu().numpy()
    offset = bias.detach().double().cpu().numpy() * (1 << FEATURE_BITS)
    for shift in range(WEIGHT_BITS, 0, -1):
        found, own = np.rint(exact * 2.0**shift), np.rint(offset * 2.0**shift)
        sums = np.abs(found).sum(axis=1) * FEATURE_MOST + np.abs(own)
        if sums.max() <= _SUM_MOST and np.abs(found).max() <= np.iinfo(np.int16).max:
            break
    largest = np.iinfo(np.int32).max
    return Layer(
        weights=np.clip(found, -FEATURE_MOST, FEATURE_MOST).astype(np.int16),
        bias=np.clip(own, -largest, largest).astype(np.int32),
        shift=shift,
    )


def float_layer(layer: Layer) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return weights and bias of a layer in floats: what `whole_layer` was given, but for its rounding."""
    step = 2.0**-layer.shift
    weights, bias = layer.weights * step, layer.bias * (step / (1 << FEATURE_BITS))
    return weights.astype(np.float32), bias.astype(np.float32)


def whole_filters(taps: torch.Tensor) -> npt.NDArray[np.int16]:
    """Return `(scales − 1, 4)` taps in whole numbers."""
    exact: npt.NDArray[np.float64] = taps.detach().double().cpu().numpy()
    found = np.rint(exact * (1 << FILTER_BITS))
    return np.clip(found, -FEATURE_MOST, FEATURE_MOST).astype(np.int16)
