"""Which stages above the tiles a run has, before any image is open."""

from __future__ import annotations

import pytest

from tests.sinks.build import make_image, make_plan
from tilestream.errors import BudgetError, ConfigError
from tilestream.pipelines.chain import ChainChoice, choose_chains, require_bag
from tilestream.types import StageSpec

STAGES = "tests.models.gridstages"
HIPT, OTHER = StageSpec(target="hipt"), StageSpec(target="handcrafted")


def test_hipt_has_its_own_region_stage_on_whole_regions_of_its_size():
    chains = choose_chains({"hipt": HIPT, "other": OTHER}, ChainChoice(random_weights=3), tile_px=256)
    assert set(chains.each) == {"hipt"}
    assert chains.each["hipt"].region == StageSpec(target="vit4k", params={"random_weights": 3})
    assert chains.each["hipt"].slide is None
    assert (chains.region_px, chains.whole_regions) == (4096, True)


def test_what_the_user_says_goes_before_it():
    choice = ChainChoice(region="mean", slide=f"{STAGES}:greatest", whole_regions=False)
    chains = choose_chains({"hipt": HIPT}, choice, tile_px=256, region_px=2048)
    assert chains.each["hipt"].region is None
    assert (chains.region_px, chains.whole_regions) == (2048, False)


def test_no_stage_is_no_recipe():
    chains = choose_chains({"a": OTHER}, ChainChoice(random_weights=3), tile_px=64)
    assert chains.recipe == {}
    assert chains.plan_recipe == {"region_px": None}


def test_hipt_without_weights_says_where_they_are():
    with pytest.raises(ConfigError, match=r"weights of `vit4k`.*mahmoodlab/HIPT.*--weights-4k FILE"):
        choose_chains({"hipt": HIPT}, ChainChoice(), tile_px=256)


def test_parameters_of_a_stage_that_is_not_there_are_refused():
    with pytest.raises(ConfigError, match="got no aggregator that takes it"):
        choose_chains({"a": OTHER}, ChainChoice(slide_params={"weights": "x"}), tile_px=64)


def test_a_bag_that_memory_cannot_hold_is_refused_with_its_size():
    image = make_image(height=6400, width=6400)
    facts = make_plan(image)
    chains = choose_chains({"a": OTHER}, ChainChoice(slide=f"{STAGES}:greatest"), tile_px=64).bind({"a": 8}, cells=2)
    require_bag(chains, facts, limit_bytes=10_000 * 8 * 4 * 3)
    with pytest.raises(BudgetError, match="1 MiB for 10,000 vectors at once"):
        require_bag(chains, facts, limit_bytes=10_000 * 8 * 4 * 3 - 1)
    choice = ChainChoice(region=f"{STAGES}:corner_weighted", slide=f"{STAGES}:greatest")
    regions = choose_chains({"a": OTHER}, choice, tile_px=64).bind({"a": 8}, cells=2)
    require_bag(regions, facts, limit_bytes=2500 * 3 * 4 * 3)
