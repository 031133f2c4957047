"""Networks are checked before anything is decoded by them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.codecs.pyramid.made import made_nets
from tilestream.codecs.pyramid.nets import Layer, PyramidNets, grid_shapes
from tilestream.errors import DamagedError
from tilestream.types import Shape


@pytest.mark.parametrize("scales", [1, 2, 7, 8])
@pytest.mark.parametrize("channels", [1, 3, 13])
def test_what_fits_together_passes(scales: int, channels: int) -> None:
    nets = made_nets(scales=scales, channels=channels, levels=1)
    assert nets.check() is nets
    assert (nets.scales, nets.channels) == (scales, channels)


def with_first(nets: PyramidNets, layer: Layer) -> PyramidNets:
    return replace(nets, synth=(replace(nets.synth[0], first=layer), *nets.synth[1:]))


WRONG: dict[str, Callable[[PyramidNets], PyramidNets]] = {
    "filters of 5 taps": lambda nets: replace(nets, filters=np.zeros((3, 5), np.int16)),
    "too many grids": lambda nets: replace(nets, filters=np.zeros((8, 4), np.int16)),
    "filters that overflow": lambda nets: replace(nets, filters=np.full((3, 4), 32767, np.int16)),
    "no context": lambda nets: replace(nets, context=()),
    "a table of what is not there": lambda nets: replace(nets, table=np.full((4, 3), 3, np.int8)),
    "a negative table": lambda nets: replace(nets, table=np.full((4, 3), -1, np.int8)),
    "more levels than grids": lambda nets: replace(nets, synth=nets.synth * 3),
    "a shift of 0": lambda nets: with_first(nets, replace(nets.synth[0].first, shift=0)),
    "a bias that overflows": lambda nets: with_first(
        nets, replace(nets.synth[0].first, bias=np.full(8, 2**31 - 1, np.int32))
    ),
    "weights that overflow": lambda nets: with_first(
        nets, replace(nets.synth[0].first, weights=np.full((8, 4), -32768, np.int16))
    ),
    "another width": lambda nets: with_first(
        nets, replace(nets.synth[0].first, weights=np.zeros((8, 5), np.int16))
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_is_refused(wrong: str) -> None:
    with pytest.raises(DamagedError, match="networks of a pyramid"):
        WRONG[wrong](made_nets()).check()


def test_a_digest_names_all_of_them() -> None:
    nets = made_nets()
    assert nets.digest == made_nets().digest
    assert len(nets.digest) == 8
    first = nets.synth[0].first
    other = replace(first, weights=first.weights + np.int16(1))
    assert with_first(nets, other).digest != nets.digest


def test_grids_halve_and_round_up() -> None:
    assert [one.yx for one in grid_shapes(Shape(y=5, x=64), 4)] == [(5, 64), (3, 32), (2, 16), (1, 8)]
