"""Shared networks are trained on crops, the same for the same seed, and go on from others."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.codecs.fields.pictures import picture
from tests.codecs.pyramid.madeshared import made_shared
from tilestream.codecs.pyramid.model import PyramidShape
from tilestream.codecs.pyramid.sharedcrops import Crops
from tilestream.codecs.pyramid.sharedtraining import PyramidTraining, train_shared
from tilestream.errors import ConfigError

SMALL = {"scales": 4, "levels": 2, "hidden": 8, "context": 8, "own_contexts": 4}


def settings(**given) -> PyramidTraining:
    return PyramidTraining(
        **({"shape": PyramidShape(**SMALL), "crop_px": 32, "batch": 2, "steps": 40, "lr": 1e-2} | given)
    )


def test_it_learns_and_is_the_same_again() -> None:
    pictures, told = [picture(64, 96, seed=1)], []
    shared = train_shared(pictures, settings(), hear=told.append, every=10)
    assert [step.step for step in told] == [10, 20, 30, 40]
    first, last = (10 ** (-step.psnr / 10) + 1e-3 * step.bpp for step in (told[0], told[-1]))
    assert last < 0.5 * first
    again = train_shared(pictures, settings())
    assert again.nets.digest == shared.nets.digest
    np.testing.assert_array_equal(again.analysis.weights, shared.analysis.weights)
    assert train_shared(pictures, settings(seed=1, steps=2)).nets.digest != shared.nets.digest


def test_it_goes_on_from_others() -> None:
    start, told = made_shared(), []
    found = train_shared([picture(64, 64)], settings(steps=2, lmbda=1e-2), start=start, hear=told.append, every=1)
    assert found.lmbda == 1e-2
    assert found.nets.digest != start.nets.digest
    assert (found.nets.scales, found.analysis.widths) == (start.nets.scales, start.analysis.widths)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_crops_of_other_types_span_their_range(dtype: str) -> None:
    pixels = (picture(64, 64).astype(np.float32) * 100 + 5).astype(dtype)
    found = Crops([pixels], px=32, seed=0).draw(3)
    assert found.shape == (3, 3, 32, 32)
    assert found.dtype == np.float32
    assert 0 <= found.min() < found.max() <= 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"crop_px": 33}, "multiple of 8"),
        ({"lmbda": 0.0}, "lmbda"),
        ({"steps": 0}, "steps"),
        ({"batch": 0}, "batch"),
        ({"lr": float("nan")}, "lr"),
    ],
)
def test_settings_that_cannot_be_are_said(given: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        settings(**given)


@pytest.mark.parametrize("pictures", [[], [np.zeros((3, 16, 64), np.uint8)], [np.zeros((1, 64, 64), np.uint8)]])
def test_pictures_that_do_not_fit_are_refused(pictures: list) -> None:
    with pytest.raises(ConfigError, match="pictures to train on"):
        train_shared(pictures, settings())


def test_a_training_that_diverges_says_so() -> None:
    with pytest.raises(ConfigError, match="not finite"):
        train_shared([picture(64, 64)], settings(lr=1e12))
