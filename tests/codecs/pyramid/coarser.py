"""Networks whose numbers are few and small, as those of files are: they are read in no time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tilestream.codecs.pyramid.nets import Layer, PyramidNets


def coarser(nets: PyramidNets, *, zeros: int) -> PyramidNets:
    """The same with numbers that end with so many zero bits."""

    def cut(values: np.ndarray) -> np.ndarray:
        return (values >> zeros << zeros).astype(values.dtype)

    def of(layer: Layer) -> Layer:
        return replace(layer, weights=cut(layer.weights), bias=cut(layer.bias))

    return replace(
        nets,
        synth=tuple(
            replace(net, first=of(net.first), second=of(net.second), convs=tuple(map(of, net.convs)))
            for net in nets.synth
        ),
        context=tuple(tuple(map(of, layers)) for layers in nets.context),
    )
