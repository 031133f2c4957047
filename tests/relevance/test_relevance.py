import json
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

import tilestream as ts
from tests.plan.build import pyramid
from tests.relevance.made import as_floats, flawed, glass, slide, texture
from tilestream.errors import ConfigError
from tilestream.metrics import collect
from tilestream.relevance import Entropy, Gradient, Relevance, regrid, term_recipe
from tilestream.relevance.normalise import normalised
from tilestream.types import ScoreMap, Shape

BOTH = {"entropy": Entropy(), "gradient": Gradient()}


def columns(pyr):
    """A user's term: 0 on the left, 1 on the right."""
    return np.repeat([[0.0, 1.0]], 2, axis=0)


@dataclass(frozen=True)
class Fixed:
    """A term that returns what it was given."""

    found: object

    def __call__(self, pyr):
        return self.found


def on_glass(height=256, width=320):
    picture = glass(height, width)
    picture[64:128, 64:160] = texture(64, 96)
    return slide(picture)


def test_is_the_weighted_mean_of_its_terms():
    pyr = on_glass()
    found = Relevance(terms=BOTH, weights={"entropy": 3, "gradient": 1})(pyr)
    parts = [normalised(term(pyr), "robust") for term in BOTH.values()]
    np.testing.assert_allclose(found.values, 0.75 * parts[0] + 0.25 * parts[1], atol=1e-6)
    assert (found.name, found.absolute, found.shape) == ("relevance", True, pyr.info.shape)


@pytest.mark.parametrize("how", ["robust", "rank"])
def test_tissue_is_above_glass(how):
    found = Relevance(terms=BOTH, normalise=how)(on_glass())
    tissue = np.zeros(found.values.shape, np.bool_)
    tissue[8:16, 8:20] = True
    around = np.zeros_like(tissue)
    around[7:17, 7:21] = True
    assert found.values[tissue].min() > found.values[~around].max() + 0.05


def test_the_coarse_picture_is_read_once(monkeypatch):
    from tilestream.relevance import look

    read = []
    spied = look.read_coarse
    monkeypatch.setattr(look, "read_coarse", lambda *args, **rest: read.append(args) or spied(*args, **rest))
    Relevance.of("entropy,gradient")(on_glass())
    assert len(read) == 1


def test_an_empty_slide_is_0_and_says_so():
    found = Relevance(terms=BOTH)(slide(glass(128, 128)))
    assert found.valid.all()
    assert not found.values.any()
    assert found.notes == ("relevance: nothing stands out",)


def test_nothing_valid_is_not_valid():
    found = Relevance(terms=BOTH)(as_floats(np.zeros((64, 64)), np.s_[:, :]))
    assert not found.valid.any()
    assert not found.values.any()


def test_holes_are_not_valid_and_do_not_shine():
    picture = np.full((192, 192), 100.0)
    picture[:, 128:] += np.random.default_rng(0).normal(0, 20, (192, 64))
    hole = np.s_[40:88, 40:88]
    whole, holed = (Relevance(terms=BOTH)(as_floats(picture, one)) for one in (None, hole))
    assert not holed.valid[5:11, 5:11].any()
    outside = holed.valid
    np.testing.assert_allclose(holed.values[outside], whole.values[outside], atol=1e-5)


def test_damage_is_not_valid_whatever_a_term_says():
    found = Relevance(terms={"entropy": Entropy(), "all": Fixed(np.ones((24, 24)))})(flawed(texture(192, 192)))
    assert not found.valid[8:16, 8:16].any()
    assert not found.values[8:16, 8:16].any()
    assert "a cut stream" in found.notes[0]


def test_grids_that_differ_meet_by_area():
    pyr = on_glass()
    found = Relevance(terms={"entropy": Entropy(cell_px=16), "columns": columns}, normalise="rank")(pyr)
    assert found.cell_yx == (16.0, 16.0)
    other = ScoreMap(
        name="c", values=normalised(pyr_map(pyr), "rank"), valid=np.ones((2, 2), np.bool_), cell_yx=(128.0, 160.0),
        shape=pyr.info.shape,
    )  # fmt: skip
    expected = normalised(Entropy(cell_px=16)(pyr), "rank") / 3 + regrid(other, (16.0, 16.0)).values * 2 / 3
    np.testing.assert_allclose(found.values, expected, atol=1e-6)


def pyr_map(pyr):
    values = columns(pyr).astype(np.float32)
    return ScoreMap(
        name="c", values=values, valid=np.ones((2, 2), np.bool_), cell_yx=(128.0, 160.0), shape=pyr.info.shape
    )


def test_where_one_term_is_silent_the_others_decide():
    pyr = slide(texture(64, 64))
    valid = np.ones((8, 8), np.bool_)
    valid[:, 4:] = False
    half = ScoreMap(
        name="half", values=valid.astype(np.float32), valid=valid, cell_yx=(8.0, 8.0), shape=pyr.info.shape,
        absolute=True,
    )  # fmt: skip
    found = Relevance(terms={"entropy": Entropy(), "half": Fixed(half)}, weights={"entropy": 1, "half": 1})(pyr)
    alone = Relevance(terms={"entropy": Entropy()})(pyr)
    np.testing.assert_allclose(found.values[:, :4], (alone.values[:, :4] + 1) / 2, atol=1e-6)
    np.testing.assert_allclose(found.values[:, 4:], alone.values[:, 4:], atol=1e-6)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (None, "got NoneType"),
        (np.ones((2, 2, 2)), "an array \\(2, 2, 2\\)"),
        (np.ones((0, 2)), "an array \\(0, 2\\)"),
        (np.ones((2, 2), complex), "an array \\(2, 2\\) of complex128"),
        (np.array([[1.0, np.nan]]), "1 of 2 values that are not finite"),
        (
            ScoreMap(name="x", values=np.ones((1, 1), np.float32), valid=np.ones((1, 1), np.bool_), cell_yx=(9, 9),
                     shape=Shape(y=9, x=9)),
            "of an image of 9 x 9 px",
        ),
    ],
)  # fmt: skip
def test_terms_that_return_something_else(returned, told):
    with pytest.raises(ConfigError, match=told):
        Relevance(terms={"mine": Fixed(returned)})(on_glass())


def test_maps_of_another_grid_are_refused_where_they_are_made():
    with pytest.raises(ConfigError, match="score map `x`"):
        ScoreMap(name="x", values=np.ones((3, 3), np.float32), valid=np.ones((3, 3), np.bool_), cell_yx=(8, 8),
                 shape=Shape(y=64, x=64))  # fmt: skip


def test_terms_are_callables_and_terms_of_weight_0_are_not_called():
    with pytest.raises(ConfigError, match=r"`Relevance\.of` takes names"):
        Relevance(terms={"entropy": "entropy"})
    found = Relevance(terms={"entropy": Entropy(), "mine": Fixed(None)}, weights={"entropy": 1, "mine": 0})
    assert found(on_glass()).values.any()
    assert list(found.recipe["terms"]) == ["entropy"]


def test_beside_a_learned_scorer_the_others_are_told_to_be_left_out():
    def scorer(pyr):
        return np.eye(2)

    scorer.group = "scorer"
    terms = {"entropy": Entropy(), "scorer": scorer}
    told = "relevance: beside a learned scorer entropy count only where weights say so"
    assert told in Relevance(terms=terms)(on_glass()).notes
    assert told not in Relevance(terms=terms, weights={"entropy": 0, "scorer": 1})(on_glass()).notes


def test_a_world_is_judged_by_its_coarse_level_alone(shared_data, monkeypatch):
    """648 million pixels, of which the fifth level is read, and none of its blocks twice."""
    from tilestream.pyramid.coarse import mask_level

    pyr = ts.open_pyramid(str(shared_data / "satellite" / "cog_world.tif"), cache_bytes=0)
    blocks = []
    source = type(pyr.source)
    read_block = source.read_block

    def spy(self, level, iy, ix, *rest):
        blocks.append((level, iy, ix))
        return read_block(self, level, iy, ix, *rest)

    monkeypatch.setattr(source, "read_block", spy)
    with collect() as meter:
        found = ts.Relevance.of("entropy,gradient,residual,itti")(pyr)
    level = pyr.levels[mask_level(pyr.info).stored]
    assert level.index == 4
    assert sorted(set(blocks)) == sorted(blocks)
    assert {one[0] for one in blocks} == {4}
    assert len(blocks) == level.blocks.area
    assert 0 < meter.counts["bytes_read"] < 40_000  # of 2.9 MB
    assert found.values.shape == (141, 282)


def test_recipe_names_all_that_decides():
    found = Relevance(terms={**BOTH, "columns": columns}, weights={"entropy": 2, "gradient": 1, "columns": 1})
    recipe = json.loads(json.dumps(found.recipe))
    assert recipe["normalise"] == "robust"
    assert recipe["terms"]["entropy"] == {
        "weight": 0.5, "term": "entropy-1", "cell_px": 8, "bins": None, "value_range": None
    }  # fmt: skip
    mine = recipe["terms"]["columns"]
    assert mine["term"] == f"{__name__}:columns"
    assert len(mine["source"]) == 32
    assert term_recipe(found) == found.recipe


@pytest.mark.parametrize("term", [lambda pyr: None, Fixed(None), Fixed(None).__call__])
def test_a_term_that_nobody_could_find_again_has_no_recipe(term):
    with pytest.raises(ConfigError, match="a function at the top of a module"):
        term_recipe(term)


@pytest.mark.parametrize("recipe", [{"x": object()}, {"x": float("nan")}, [1], {"weight": 1}])
def test_a_recipe_is_json(recipe):
    class Odd:
        def __call__(self, pyr):
            return None

    odd = Odd()
    odd.recipe = recipe
    with pytest.raises(ConfigError, match="a mapping of JSON values"):
        term_recipe(odd)


def test_public_name_and_pickle():
    found = ts.Relevance.of("entropy,gradient")
    again = pickle.loads(pickle.dumps(found))
    pyr = on_glass()
    np.testing.assert_array_equal(found(pyr).values, again(pyr).values)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 8), (65, 1)])
def test_images_of_any_size(size):
    found = Relevance(terms=BOTH)(pyramid(np.full(size, 7, np.uint8)))
    assert found.values.shape == (-(-size[0] // 8), -(-size[1] // 8))
