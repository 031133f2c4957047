"""A pyramid of one colour: the base of a bounded error that nothing is fitted for, in some hundred bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.pyramid.file import PyramidFile
from tilestream.codecs.pyramid.nets import (
    CONTEXT_OUT,
    NEIGHBOURS,
    PASSES,
    PIXEL_MOST,
    TAPS,
    Layer,
    PyramidNets,
    SynthNet,
)

_SHIFT = 1


def flat_file(levels: Levels) -> PyramidFile:
    """Return the file of one grid of zeros, and of networks that make the mean colour of it.

    Parameters
    ----------
    levels : Levels
        What it stands for; what is not valid does not count.

    Returns
    -------
    PyramidFile
        Without a residual.
    """
    picture, valid = levels.picture, levels.valid[0]
    unit = picture.to_unit(levels.pixels[0]).reshape(picture.channels, -1)
    seen = unit if valid is None else unit[:, valid.reshape(-1)]
    colour = np.rint(seen.mean(axis=1, dtype=np.float64) * PIXEL_MOST).astype(np.int32)
    synth = SynthNet(first=_layer(np.zeros(1), 1), second=_layer(colour, 2))
    context = (_layer(np.zeros(1), NEIGHBOURS), _layer(np.zeros(1), 1), _layer(np.zeros(CONTEXT_OUT), 1))
    nets = PyramidNets(
        filters=np.zeros((0, TAPS), np.int16),
        synth=(synth,),
        context=(context,),
        table=np.zeros((1, PASSES), np.int8),
    )
    return PyramidFile.of(picture, nets.check(), [np.zeros(picture.shape.yx, np.int16)])


def _layer(values: npt.NDArray[np.generic], inputs: int) -> Layer:
    """Return a layer that gives the same values whatever comes in."""
    weights = np.zeros((len(values), inputs), np.int16)
    return Layer(weights=weights, bias=values.astype(np.int32) << _SHIFT, shift=_SHIFT)
