"""Networks of coordinates in torch: inputs of samples, the network with our kernels or plain, and pixels of a box."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from tilestream.codecs.fields.coordinateparts import CoordinateParts
from tilestream.codecs.fields.encoding import Encoding
from tilestream.codecs.fields.query import Query
from tilestream.kernels.mlp_layers import MlpLayers

CHUNK = 1 << 14
"""Positions whose temporaries stay in a cache."""


def inputs_at(coords_xy: torch.Tensor, encoding: Encoding, *, level: float) -> torch.Tensor:
    """Return the inputs of a network at positions of one level.

    Parameters
    ----------
    coords_xy : Tensor
        `(n, 2)`, 0 to 1 over the longer edge.
    encoding : Encoding
        Which inputs.
    level : float
        Of all of them.

    Returns
    -------
    Tensor
        `(n, encoding.inputs)`: those of x, of y, of the level.
    """
    centred = coords_xy * 2 - 1
    if encoding.octaves:
        angles = centred[:, :, None] * torch.from_numpy(encoding.frequencies).to(centred)
        waves = torch.stack([angles.sin(), angles.cos()], dim=3)
        waves = waves * torch.from_numpy(encoding.fading(level)).to(centred)[:, None]
        centred = waves.flatten(1)
    shared = torch.from_numpy(encoding.shared(level)).to(centred)
    return torch.cat([centred, shared.expand(len(centred), -1)], dim=1)


def reference_network(inputs: torch.Tensor, weights: torch.Tensor, *, layers: MlpLayers) -> torch.Tensor:
    """Return what a perceptron with biases gives, in plain torch; as `tilestream.ops.field.mlp`."""
    value, last = inputs, len(layers.layout) - 1
    for number, (taken, given, start, bias, _) in enumerate(layers.layout.tolist()):
        value = F.linear(value, weights[start:bias].reshape(given, taken), weights[bias : bias + given])
        if number < last:
            value = value.sin() if layers.activation == "sine" else value.relu()
    return value


@torch.inference_mode()
def reference_decode(parts: CoordinateParts, query: Query) -> npt.NDArray[np.float32]:
    """Return the pixels of a box by plain torch on the CPU: what the kernels are compared with.

    Parameters
    ----------
    parts : CoordinateParts
        Fitted.
    query : Query
        Box and level.

    Returns
    -------
    ndarray of float32
        `(c, y, x)` of 0 to 1.
    """
    weights = torch.from_numpy(parts.network(query.level))
    values = [
        reference_network(inputs_at(part, parts.encoding, level=query.level), weights, layers=parts.layers)
        for part in torch.split(torch.from_numpy(query.centres_xy()), CHUNK)
    ]
    found: npt.NDArray[np.float32] = torch.cat(values).numpy()
    return found.reshape(*query.shape[1:], -1).transpose(2, 0, 1)
