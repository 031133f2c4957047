"""Which stages above the tiles a run has, before any image is open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.sinks.build import make_image, make_plan
from tilestream.errors import BudgetError, ConfigError
from tilestream.pipelines.chain import ChainChoice, choose_chains, require_bag, require_trained_on
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


@pytest.fixture
def head(tmp_path):
    pytest.importorskip("torch")
    from tilestream.models.head import HeadRecord, new_head, save_head

    made = new_head("abmil", {"hidden": 4}, dim=3, classes=2)
    record = HeadRecord(
        aggregator="abmil", params={"hidden": 4}, dim=3, labels=("a", "b"), level="region", encoder="uni", features={}
    )
    save_head(tmp_path / "model.safetensors", made, record)
    return made.eval(), tmp_path / "model.safetensors"


def test_a_trained_head_gives_the_vector_of_the_slide(head):
    import torch

    made, path = head
    choice = ChainChoice(region=f"{STAGES}:corner_weighted", slide="head", slide_params={"weights": str(path)})
    chain = choose_chains({"uni": OTHER}, choice, tile_px=64).bind({"uni": 8}, cells=4)["uni"]
    bag = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    with torch.inference_mode():
        expected = made.forward_vector(torch.from_numpy(bag)[None], torch.ones(1, 5, dtype=torch.bool))[0].numpy()
    np.testing.assert_allclose(chain.of_slide(bag), expected, rtol=1e-6)
    assert chain.weights[1] is not None


@pytest.mark.parametrize(
    ("encoder", "region", "words"),
    [
        ("uni", None, "got vectors of tiles by `uni`, expected vectors of regions.*Add the --region-stage"),
        ("other", "corner_weighted", "got vectors of regions by `other`, expected vectors of regions by `uni`"),
    ],
)
def test_a_head_of_other_vectors_is_refused(head, encoder, region, words):
    given = {} if region is None else {"region": f"{STAGES}:{region}"}
    choice = ChainChoice(slide="head", slide_params={"weights": str(head[1])}, **given)
    with pytest.raises(ConfigError, match=words):
        choose_chains({encoder: OTHER}, choice, tile_px=64)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, None),
        ({"dtype": "bfloat16"}, None),
        ({"weights": "b"}, "got tiles by `uni` with weights b, expected weights a, with which the features were made"),
        ({"mean": [0.0]}, r"with mean \[0.0\], expected mean \[0.5\]"),
        ({"mpp": 0.25}, "with mpp 0.25, expected mpp 0.5"),
        ({"tokens": {"levels": None}}, "with levels all, expected levels the finest alone"),
        ({"tokens": {"levels": [0]}}, None),
        ({"region_px": 512}, "with region_px 512, expected region_px 256"),
        ({"region": {"target": "vit"}}, "with region stage .'target': 'vit'.*expected region stage .'target': 'vit4k'"),
    ],
)
def test_a_head_is_for_tiles_as_it_was_trained_on(head, changed, words):
    from tilestream.models.head import load_head, save_head

    made, record = load_head(head[1])
    contract = {"weights": "a", "mean": [0.5], "dtype": "float32", **changed}
    above = {"region": {"target": "vit4k"}}
    features = {
        "stage": {"contract": {**contract, "weights": "a", "mean": [0.5]}},
        "tile_px": 64,
        "mpp": 0.5,
        "chain": {**above, "region_px": 256},
    }
    save_head(head[1], made, replace(record, features={"recipe": features}))
    choice = ChainChoice(region=f"{STAGES}:corner_weighted", slide="head", slide_params={"weights": str(head[1])})
    recipe = {
        "stages": {"uni": {"contract": contract}},
        "plan": {
            "tile_px": 64,
            "mpp": changed.get("mpp", 0.5),
            "region_px": changed.get("region_px", 256),
            "tokens": changed.get("tokens"),
        },
        "chains": {"uni": {"region": changed.get("region", above["region"])}},
    }
    chains = choose_chains({"uni": OTHER}, choice, tile_px=64)
    if words is None:
        require_trained_on(chains, recipe)
    else:
        with pytest.raises(ConfigError, match=words):
            require_trained_on(chains, recipe)


def test_a_head_for_longer_vectors_is_refused(head):
    choice = ChainChoice(region=f"{STAGES}:made_for", slide="head", slide_params={"weights": str(head[1])})
    with pytest.raises(ConfigError, match="got vectors of 2 values, expected 3, those of regions by `uni`"):
        choose_chains({"uni": OTHER}, choice, tile_px=64).bind({"uni": 8}, cells=4)
