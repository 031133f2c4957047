"""What stages that give maps may state and give."""

import numpy as np
import pytest

from tilestream.errors import ConfigError, StageError
from tilestream.models.dense import check_dense, checked_map
from tilestream.pipelines.encoder import require_output
from tilestream.types import StageContract


def dense(**fields) -> StageContract:
    return StageContract(**{"name": "it", "px": 64, "output": "dense", **fields})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"stride": 5}, "stride"),
        ({"halo_px": 32}, "halo_px"),
        ({"void_px": 2, "halo_px": 1}, "halo_px"),
        ({"stored": "int8"}, "stored"),
        ({"value_range": (1.0, 0.0)}, "value_range"),
        ({"value_range": (0.0, float("inf"))}, "value_range"),
        ({"classes": ("a", "b"), "stored": "float32"}, "classes"),
        ({"classes": tuple(map(str, range(256))), "stored": "uint8"}, "classes"),
        ({"output": "map"}, "output"),
        ({"output": "vector", "stride": 2}, "stride"),
        ({"output": "vector", "keeps_place": True}, "keeps_place"),
    ],
)
def test_contracts_that_contradict_themselves_are_refused(fields, named):
    with pytest.raises(ConfigError, match=f"`{named}` in the contract of `it`"):
        check_dense(dense(**fields))


@pytest.mark.parametrize(
    ("given", "kept"),
    [("float64", "float32"), ("float16", "float32"), ("bool", "uint8"), ("int64", "int32"), ("int16", "int16")],
)
def test_maps_come_in_types_that_can_be_stored(given, kept):
    found = checked_map(np.ones((2, 1, 16, 16), given), (2, 3, 64, 64), dense(stride=4))
    assert found.dtype == kept
    assert (found == 1).all()


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (1, 1, 16, 16), (2, 16, 16), (2, 0, 16, 16), (2, 2, 16, 16)])
def test_maps_of_another_shape_are_refused(shape):
    with pytest.raises(StageError, match=r"expected real numbers of shape \(2, 1, 16, 16\)"):
        checked_map(np.zeros(shape, "f4"), (2, 3, 64, 64), dense(stride=4, dim=1))


def test_whole_numbers_that_do_not_fit_are_refused():
    with pytest.raises(StageError, match="at most 32 bits"):
        checked_map(np.full((1, 1, 64, 64), 2**40), (1, 3, 64, 64), dense())


def test_class_numbers_may_come_as_floats_but_scores_have_to_match_the_classes():
    contract = dense(classes=("a", "b", "c"))
    assert checked_map(np.full((1, 1, 64, 64), 2.0), (1, 3, 64, 64), contract).dtype == np.int32
    with pytest.raises(StageError, match="a score for each of 3 classes"):
        checked_map(np.zeros((1, 2, 64, 64)), (1, 3, 64, 64), contract)


def test_maps_and_vectors_go_to_commands_of_their_own():
    with pytest.raises(ConfigError, match="tilestream map"):
        require_output(dense(), "vector")
    with pytest.raises(ConfigError, match="tilestream embed"):
        require_output(StageContract(name="it", px=64), "dense")
