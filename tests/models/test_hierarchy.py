"""Region stages and aggregators as users name them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tests.models import gridstages
from tilestream.errors import ConfigError, StageError
from tilestream.models.gridparts import REGION, SLIDE, _made, make_part, region_contract
from tilestream.models.hierarchy import chain_of
from tilestream.registry import AGGREGATORS, REGION_STAGES
from tilestream.types import Hierarchy, RegionContract, StageSpec

STAGES = "tests.models.gridstages"
TILE = StageSpec(target="handcrafted")


def grid_of(n=1, d=3, edge=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d, edge, edge)).astype(np.float32), np.ones((n, edge, edge), bool)


def spec(name: str, **params) -> StageSpec:
    return StageSpec(target=f"{STAGES}:{name}", params=params)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (spec("corner_weighted"), gridstages.corner_weighted),
        (spec("Only", factor=2.0), gridstages.Only(factor=2.0)),
        (spec("made_for", out=5), gridstages.made_for(3, out=5)),
    ],
    ids=["function", "class", "factory"],
)
def test_a_stage_is_a_function_or_what_makes_one(given, expected):
    grid, mask = grid_of()
    part = make_part(REGION, given, dim=3)
    np.testing.assert_array_equal(part(grid, mask), expected(grid, mask).astype(np.float32))
    assert make_part(REGION, given, dim=3) is part  # made once a process


def test_it_is_made_again_when_the_file_of_its_weights_was_changed(tmp_path):
    weights = tmp_path / "w.npy"
    given = spec("Scaled", weights=str(weights))
    for factor in (2.0, 3.25):
        np.save(weights, np.full(int(factor), factor, np.float32))
        assert make_part(REGION, given, dim=3).function.factor == factor


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (StageSpec(target="vit4"), "Did you mean `vit4k`"),
        (spec("nothing"), "expected a module that can be imported and an attribute"),
        (spec("corner_weighted", factor=2), r"got parameters \['factor'\], expected none"),
        (spec("Only", size=2), "unexpected keyword argument 'size'"),
        (spec("WEIGHTS"), "got a ndarray, expected something that can be called"),
        (spec("made_for", weights="x.pth"), "expected none of these: it is no torch module"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(given, message):
    with pytest.raises(ConfigError, match=message):
        make_part(REGION, given, dim=3)


def test_a_contract_with_unknown_fields_is_refused(monkeypatch):
    assert region_contract(spec("Only")) == RegionContract(tiles=4)
    assert region_contract(spec("corner_weighted")) == RegionContract()
    assert region_contract(StageSpec(target="vit4k")).tiles == 16
    monkeypatch.setattr(gridstages.Only, "contract", {"cells": 4})
    with pytest.raises(ConfigError, match=r"contract of `.*Only`: got {'cells': 4}"):
        region_contract(spec("Only"))


def test_a_stage_made_for_other_vectors_is_refused_before_the_first_tile():
    chain_of(Hierarchy(tile=TILE, region=spec("Only", length=7)), dim=7, cells=4)
    with pytest.raises(StageError, match=r"ValueError: vectors of 8 values.*Choose one that takes vectors of 8 values"):
        chain_of(Hierarchy(tile=TILE, region=spec("Only", length=7)), dim=8, cells=4)
    with pytest.raises(StageError, match=r"got float32 of shape \(1,\)"):
        chain_of(Hierarchy(tile=TILE, region=spec("flat")), dim=8, cells=4)


def test_a_chain_gives_what_its_parts_give():
    hierarchy = Hierarchy(tile=TILE, region=spec("made_for", out=5), slide=spec("greatest"))
    chain = chain_of(hierarchy, dim=3, cells=4)
    assert (chain.region_dim, chain.slide_dim) == (5, 5)
    grid, mask = grid_of(n=6)
    chain = pickle.loads(pickle.dumps(chain))
    regions = np.stack([chain.of_region(*one) for one in zip(grid, mask, strict=True)])
    np.testing.assert_array_equal(
        regions,
        np.concatenate([gridstages.made_for(3, out=5)(g[None], m[None]) for g, m in zip(grid, mask, strict=True)]),
    )
    np.testing.assert_array_equal(chain.of_slide(regions), regions.max(axis=0))
    assert chain_of(Hierarchy(tile=TILE), dim=3, cells=4) is None


def test_weights_that_change_under_a_run_are_refused(tmp_path):
    weights = tmp_path / "w.npy"
    np.save(weights, np.float32([2.0]))
    chain = chain_of(Hierarchy(tile=TILE, region=spec("Scaled", weights=str(weights))), dim=3, cells=4)
    grid, mask = grid_of()
    np.testing.assert_array_equal(chain.of_region(grid[0], mask[0]), grid[0].mean(axis=(1, 2)) * 2)
    np.save(weights, np.float32([2.0, 1.0]))
    with pytest.raises(ConfigError, match="which the run began with"):
        chain.of_region(grid[0], mask[0])


def test_want_of_memory_is_no_failure_of_a_region():
    chain = chain_of(Hierarchy(tile=TILE, region=spec("made_for")), dim=3, cells=4)
    part = make_part(REGION, spec("exhausted"), dim=3)
    assert chain is not None
    with pytest.raises(MemoryError):
        part(*grid_of())


def test_torch_modules_get_tensors_and_weights(tmp_path):
    torch = pytest.importorskip("torch")
    grid, mask = grid_of(n=2)
    given = {"target": f"{STAGES}_torch:GridMean", "params": {"random_weights": 3}}
    part = make_part(REGION, StageSpec(**given), dim=3)
    assert part.contract.framework == "torch"
    first = part(grid, mask)
    assert first.shape == (2, 4)
    assert first.dtype == np.float32
    torch.save(part.function.state_dict(), tmp_path / "w.pt")
    again = make_part(REGION, StageSpec(**given | {"params": {"weights": str(tmp_path / "w.pt")}}), dim=3)
    np.testing.assert_array_equal(again(grid, mask), first)
    other = make_part(REGION, StageSpec(**given | {"params": {"random_weights": 4}}), dim=3)
    assert not np.array_equal(other(grid, mask), first)


def test_a_module_without_weights_is_the_same_in_every_process():
    torch = pytest.importorskip("torch")
    given = StageSpec(target=f"{STAGES}_torch:GridMean")
    grid, mask = grid_of()
    found = []
    for seed in (1, 2):
        _made.cache_clear()  # as in another process
        torch.manual_seed(seed)
        found.append(make_part(REGION, given, dim=3)(grid, mask))
        assert torch.initial_seed() == seed
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(("kind", "name", "where"), [(REGION, "vit4k", "mahmoodlab/HIPT"), (SLIDE, "abmil", "")])
def test_missing_weights_are_an_error_that_says_where_they_are(kind, name, where):
    pytest.importorskip("torch")
    with pytest.raises(ConfigError, match=f"weights of `{name}`: got none.*{where}.*--random-weights SEED"):
        make_part(kind, StageSpec(target=name), dim=192)


def test_an_aggregator_without_weights_of_its_own_needs_none():
    pytest.importorskip("torch")
    bag = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    found = make_part(SLIDE, StageSpec(target="mean"), dim=3)(bag, np.ones((1, 2), bool))
    np.testing.assert_array_equal(found, bag.mean(axis=1))


@pytest.mark.parametrize("name", sorted(REGION_STAGES))
def test_region_stages_of_ours_leave_masked_cells_out(name):
    pytest.importorskip("torch")
    part = make_part(REGION, StageSpec(target=name, params={"random_weights": 1}), dim=384)
    grid, mask = grid_of(d=384)
    mask[0, 2:, 1:] = False
    found = part(np.where(mask[:, None], grid, 0), mask)
    assert found.shape == (1, 192)
    np.testing.assert_allclose(part(np.where(mask[:, None], grid, 7), mask), found, rtol=1e-4, atol=1e-5)
    assert not np.allclose(part(grid, np.ones_like(mask)), found, atol=1e-3)


@pytest.mark.parametrize("name", sorted({*AGGREGATORS} - {"head"}))
def test_aggregators_of_ours_give_one_vector_of_a_bag(name):
    pytest.importorskip("torch")
    params = {} if name == "mean" else {"random_weights": 1}
    bag = np.random.default_rng(0).standard_normal((1, 5, 192)).astype(np.float32)
    part = make_part(SLIDE, StageSpec(target=name, params=params), dim=192)
    found = part(bag, np.ones((1, 5), bool))
    assert found.ndim == 2
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(part(bag, np.ones((1, 5), bool)), found)
