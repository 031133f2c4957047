"""A stage over a coarse level: each tile in its cell, and what is refused."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from tests.plan.build import pyramid
from tilestream.errors import ConfigError, StageError
from tilestream.models.headed import packed
from tilestream.plan.where import select
from tilestream.stream.stageterm import StageTerm, coarse_reduction
from tilestream.types import StageSpec

PX = 16


@pytest.fixture(scope="module", autouse=True)
def stages():
    """A module of tile stages, as a user writes them."""
    module = ModuleType("mystages")

    def give(name, function, **contract):
        function.contract = {"px": PX, **contract}
        setattr(module, name, function)

    give("mean", lambda x: x.mean((1, 2, 3))[:, None])
    give("two", lambda x: np.zeros((len(x), 2)))
    give("short", lambda x: np.zeros((1, 1)), dim=1)
    give("nan", lambda x: np.where(x.mean((1, 2, 3)) > 100, np.nan, 0)[:, None], dim=1)
    give("raises", lambda x: 1 / 0, dim=1)
    give("fine", lambda x: x.mean((1, 2, 3))[:, None], mpp=2.0)
    sys.modules["mystages"] = module
    yield
    del sys.modules["mystages"]


def term(name: str, **fields) -> StageTerm:
    return StageTerm(spec=StageSpec(target="callable", params={"target": f"mystages:{name}"}), name=name, **fields)


RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 200, (150, 203, 3), dtype=np.uint8)


@pytest.mark.parametrize("reduce", [1.0, 2.0, 3.0])
def test_each_tile_is_scored_in_its_cell(reduce):
    found = term("mean", reduce=reduce)(pyramid(PIXELS, mpp=0.5))
    cell = int(PX * reduce)
    assert found.cell_yx == (cell, cell)
    rows, columns = 150 // cell, 203 // cell
    whole = PIXELS[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell, 3).mean((1, 3, 4))
    np.testing.assert_allclose(found.values[:rows, :columns], whole, atol=1.0)
    assert found.valid.all()


def test_the_resolution_is_that_of_the_contract_or_what_is_said():
    image = pyramid(PIXELS, mpp=0.5)
    assert term("mean")(image).cell_yx == (PX, PX)
    assert term("fine")(image).cell_yx == (4 * PX, 4 * PX)
    assert term("mean", mpp=1.0, reduce=8.0)(image).cell_yx == (2 * PX, 2 * PX)
    assert term("mean", mpp=1.0, reduce=4.0)(pyramid(PIXELS)).cell_yx == (4 * PX, 4 * PX)
    with pytest.raises(ConfigError, match="resolution"):
        term("mean", mpp=1.0)(pyramid(PIXELS))


def test_empty_tiles_and_those_that_are_not_wanted_are_not_valid(tmp_path):
    holed = PIXELS.astype(np.float32)
    holed[:40, :40] = np.nan
    found = term("mean", reduce=1.0)(pyramid(holed))
    assert not found.valid[:2, :2].any()
    assert found.valid[3:, 3:].all()
    outline = tmp_path / "part.geojson"
    outline.write_text('{"type": "Polygon", "coordinates": [[[0, 0], [64, 0], [64, 64], [0, 64], [0, 0]]]}')
    image = pyramid(PIXELS)
    part = term("mean", reduce=1.0, where=str(outline))(image)
    assert part.valid.sum() == 16
    assert part.valid[:4, :4].all()
    assert select(image, str(outline), tile_level0_px=PX).mask.any()


def test_threads_decide_nothing():
    image = pyramid(np.tile(PIXELS, (4, 4, 1)))
    one, again = term("mean", reduce=1.0)(image), term("mean", reduce=1.0)(image)
    assert one.values.tobytes() == again.values.tobytes()


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("two", ConfigError, "2 values a tile"),
        ("short", StageError, "shape"),
        ("nan", StageError, "not finite"),
        ("raises", StageError, "ZeroDivisionError"),
    ],
)
def test_stages_that_give_something_else_are_refused(name, error, told):
    with pytest.raises(error, match=told):
        term(name, reduce=1.0)(pyramid(PIXELS + np.uint8(40)))


def test_a_stage_of_maps_is_none_of_tiles():
    with pytest.raises(ConfigError, match="maps"):
        StageTerm(spec=StageSpec(target="gradient"), name="g", reduce=1.0)(pyramid(PIXELS))


def test_recipes_say_what_decides_and_not_where_files_lie(tmp_path):
    one = term("mean", reduce=2.0).recipe
    assert one != term("mean", reduce=4.0).recipe
    assert one != term("nan", reduce=2.0).recipe
    for name in ("a", "b"):
        (tmp_path / name).write_text("{}")
    first, same = (term("mean", where=str(tmp_path / name)).recipe for name in ("a", "b"))
    assert first == same
    assert first != term("mean").recipe


def test_recipes_know_the_source_of_a_callable_also_inside_another_stage(tmp_path, monkeypatch):
    """As a scorer of vectors has an encoder inside it."""
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for name, body in (("one", "x.mean((1, 2, 3))[:, None]"), ("two", "x.max((1, 2, 3))[:, None]")):
        (tmp_path / f"scorer_{name}.py").write_text(
            f"def score(x):\n    return {body}\nscore.contract = {{'px': 16}}\n"
        )
        inside = {"target": "callable", "params": {"target": f"scorer_{name}:score"}}
        vector = packed(np.ones((1, 1), np.float32))
        params = {"encoder": inside, "wanted": vector, "unwanted": vector, "dim": 1}
        spec = StageSpec(target="query", params=params)
        found.append([StageTerm(spec=StageSpec(**inside), name="s").recipe, StageTerm(spec=spec, name="s").recipe])
    for recipes in found:
        assert recipes[0]["stage"]["source"]
        assert recipes[1]["stage"]["params"]["encoder"]["source"] == recipes[0]["stage"]["source"]
    assert found[0][0]["stage"]["source"] != found[1][0]["stage"]["source"]


@pytest.mark.parametrize(
    ("edge", "tile", "reduction"), [(100_000, 224, 8), (28_672, 224, 8), (28_671, 224, 4), (4000, 224, 1), (10, 224, 1)]
)
def test_a_coarse_look_has_enough_tiles(edge, tile, reduction):
    assert coarse_reduction(edge, tile) == reduction
