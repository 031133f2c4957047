"""The stages above the tiles that a run has: chosen, checked, and bound to the encoders of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tilestream.errors import BudgetError, ConfigError
from tilestream.models.gridparts import REGION, SEED, SLIDE, WEIGHTS, PartKind, region_contract
from tilestream.models.hierarchy import StageChain, chain_of
from tilestream.models.weights import missing_weights
from tilestream.pipelines.recipe import params_recipe
from tilestream.registry import source_digest
from tilestream.sinks.facts import PlanFacts
from tilestream.sinks.storerecord import is_mixed, token_levels
from tilestream.types import Hierarchy, StageSpec

HEAD = "head"
"""Aggregator that is a trained head, a file of `tilestream train head`."""
DECISIVE = ("weights", "scale", "mean", "std", "channels", "input_px", "pooling")
"""What of an encoder's contract makes other vectors of the same tiles."""
MEAN = "mean"
"""Region stage or aggregator that needs no stage: pooling, in bounded memory."""
BAG_COPIES = 3
"""Vectors of a bag stand in the rows that came, in one array, and in the aggregator."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What belongs above the tiles of an encoder unless the user says otherwise."""

    region: str = MEAN
    """Region stage."""
    slide: str = MEAN
    """Aggregator."""


PRESETS: Mapping[str, Preset] = {"hipt": Preset(region="vit4k")}
"""By the registered name of the encoder. HIPT's third stage has no published weights: its slides are means."""


@dataclass(frozen=True, kw_only=True)
class ChainChoice:
    """The stages above the tiles as a user names them."""

    region: str | None = None
    """Registered name or `module:callable`, `mean` for none; None = the encoder's own."""
    slide: str | None = None
    """Registered name or `module:callable`, `mean` for none; None = the encoder's own."""
    region_params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the region stage; JSON values."""
    slide_params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the aggregator; JSON values."""
    random_weights: int | None = None
    """Seed for stages of ours that are given no weights."""
    whole_regions: bool | None = None
    """Whether regions have all of their tiles or none; None = as the region stage was trained."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Return what of it is the user's own code."""
        return tuple(name for name in (self.region, self.slide) if name is not None and ":" in name)

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files of its weights."""
        return tuple(str(each[WEIGHTS]) for each in (self.region_params, self.slide_params) if WEIGHTS in each)


@dataclass(frozen=True, kw_only=True)
class Chains:
    """The hierarchies of a run, one an encoder; all of one region, since they share the plan."""

    each: Mapping[str, Hierarchy] = field(default_factory=dict)
    """By the encoder's name; only those with a stage above the tiles."""
    region_px: int | None = None
    """Edge of a region in plan pixels; None = the super-tile."""
    whole_regions: bool = False
    """Whether a region has all of its tiles or none."""

    @property
    def plan_recipe(self) -> dict[str, Any]:
        """Return what belongs to the part of a recipe that says which tiles."""
        return {"region_px": self.region_px, **({"whole_regions": True} if self.whole_regions else {})}

    @property
    def recipe(self) -> dict[str, Any]:
        """Return the part of a recipe that says what the stages are; empty where there are none."""
        chains = {
            name: {
                word: _stage_recipe(spec)
                for word, spec in (("region", one.region), ("slide", one.slide))
                if spec is not None
            }
            for name, one in self.each.items()
        }
        return {"chains": chains} if chains else {}

    def only(self, name: str) -> Chains:
        """Return the same with the hierarchy of one encoder."""
        return replace(self, each={name: self.each[name]})

    def bind(self, encoders: Mapping[str, int], *, cells: int) -> dict[str, StageChain]:
        """Return the stages above the tiles of each encoder, tried on zeros.

        Parameters
        ----------
        encoders : Mapping
            Length of its vectors by the encoder's name.
        cells : int
            Edge of a region in tiles.

        Returns
        -------
        dict
            By the encoder's name; those that only pool are left out.

        Raises
        ------
        ConfigError
            When a stage cannot be made.
        StageError
            When one does not take what the one before it gives.
        """
        bound = {name: chain_of(one, dim=encoders[name], cells=cells) for name, one in self.each.items()}
        return {name: chain for name, chain in bound.items() if chain is not None}


def choose_chains(
    encoders: Mapping[str, StageSpec], choice: ChainChoice, *, tile_px: int, region_px: int | None = None
) -> Chains:
    """Return the hierarchies of a run.

    Parameters
    ----------
    encoders : Mapping
        Tile stage by the encoder's name.
    choice : ChainChoice
        What the user has named.
    tile_px : int
        Edge of a tile, plan pixels.
    region_px : int, optional
        Edge of a region that the user has asked for; None = what the region stages were made for.

    Returns
    -------
    Chains
        Ready to be planned with.

    Raises
    ------
    ConfigError
        When there is no such stage, one of ours has no weights, weights were given for none, or region stages want
        different regions.
    """
    each: dict[str, Hierarchy] = {}
    wanted: dict[str, int] = {}
    whole: list[bool] = []
    for name, tile in encoders.items():
        preset = PRESETS.get(tile.target, Preset())
        region = _spec(REGION, choice.region or preset.region, choice.region_params, choice.random_weights)
        slide = _spec(SLIDE, choice.slide or preset.slide, choice.slide_params, choice.random_weights)
        if region is None and slide is None:
            continue
        if region is not None:
            contract = region_contract(region)
            whole.append(contract.whole_regions)
            if contract.tiles is not None:
                wanted[region.target] = contract.tiles * tile_px
        each[name] = Hierarchy(tile=tile, region=region, slide=slide)
        _require_its_level(name, each[name])
    _require_used(list(each.values()), choice)
    is_whole = any(whole) if choice.whole_regions is None else choice.whole_regions
    return Chains(each=each, region_px=region_px or _shared(wanted), whole_regions=is_whole)


def require_stages(choice: ChainChoice) -> None:
    """Raise unless the stages that a user has named are there and have weights, whatever the encoder is.

    Parameters
    ----------
    choice : ChainChoice
        What the user has named.

    Raises
    ------
    ConfigError
        When there is no such stage, one of ours has no weights, or weights were given for none.
    """
    region = _spec(REGION, choice.region or MEAN, choice.region_params, choice.random_weights)
    slide = _spec(SLIDE, choice.slide or MEAN, choice.slide_params, choice.random_weights)
    if region is not None:
        region_contract(region)
    if choice.region is not None:  # else an encoder may have one of its own
        _require_used([Hierarchy(tile=StageSpec(target="any"), region=region, slide=slide)], choice)


def require_grid(chains: Mapping[str, StageChain], facts: PlanFacts) -> None:
    """Raise unless the tiles that a region stage sees lie on a grid.

    Parameters
    ----------
    chains : Mapping
        Stages by the encoder's name.
    facts : PlanFacts
        The plan.

    Raises
    ------
    ConfigError
        For tiles of several sizes, or that another program has cut off any grid.
    """
    for name, chain in chains.items():
        if facts.depths and chain.region is not None:
            raise ConfigError.of(
                f"region stage `{chain.region.target}` of `{name}`",
                got="a budget: tiles of several sizes, which lie on no common grid",
                expected="tiles side by side, of which it takes squares",
                do="Give --region-stage mean for the mean of all tiles, or leave out --budget.",
            )
        if facts.is_listed and chain.region is not None:
            raise ConfigError.of(
                f"region stage `{chain.region.target}` of `{name}`",
                got="coordinates of patches that lie on no common grid",
                expected="tiles side by side, of which it takes squares",
                do="Give another --where, or embed without a region stage.",
            )


def require_bag(chains: Mapping[str, StageChain], facts: PlanFacts, *, limit_bytes: int) -> None:
    """Raise unless the vectors that an aggregator sees at once fit into memory.

    Parameters
    ----------
    chains : Mapping
        Stages by the encoder's name.
    facts : PlanFacts
        The plan.
    limit_bytes : int
        Most bytes that one process may hold.

    Raises
    ------
    BudgetError
        With the numbers and what to change.
    """
    cells = facts.region_px // facts.grid.step_px
    regions = -(-facts.grid.shape.y // cells) * -(-facts.grid.shape.x // cells)
    for name, chain in chains.items():
        if chain.slide is None:
            continue
        rows = facts.rows if chain.region is None else min(regions, facts.rows)
        nbytes = BAG_COPIES * 4 * rows * (chain.region_dim or chain.dim)
        if nbytes > limit_bytes:
            raise BudgetError.of(
                f"memory for the aggregator `{chain.slide.target}` of `{name}`",
                got=f"{nbytes / 2**20:,.0f} MiB for {rows:,} vectors at once",
                expected=f"at most {limit_bytes / 2**20:,.0f} MiB",
                do="Raise --memory, add a --region-stage, or take `--slide-stage mean`, which needs one at a time.",
            )


def _spec(kind: PartKind, name: str, params: Mapping[str, Any], seed: int | None) -> StageSpec | None:
    """Return how a stage is made; None where pooling does it."""
    if name == MEAN:
        return None
    given = dict(params)
    if name in kind.table and WEIGHTS not in given and SEED not in given:
        if name == HEAD:
            do = f"Give it with {kind.option} {HEAD}=FILE."
            raise ConfigError.of("trained head", got="no file", expected="one of `tilestream train head`", do=do)
        if seed is None:
            pooled = f", or do without by `{kind.option} {MEAN}`" if kind is REGION else ""
            raise missing_weights(name, option=f"{kind.weights_option}{pooled}")
        given[SEED] = seed
    return StageSpec(target=name, params=given)


def _require_its_level(encoder: str, hierarchy: Hierarchy) -> None:
    """Refuse a trained head on other vectors than those that it was trained on, as far as it says."""
    if hierarchy.slide is None or hierarchy.slide.target != HEAD:
        return
    from tilestream.models.head import read_record

    record = read_record(Path(str(hierarchy.slide.params[WEIGHTS])))
    level = "tile" if hierarchy.region is None else "region"
    if (record.level, record.encoder) != (level, encoder):
        raise ConfigError.of(
            f"head `{hierarchy.slide.params[WEIGHTS]}`",
            got=f"vectors of {level}s by `{encoder}`",
            expected=f"vectors of {record.level}s by `{record.encoder}`, on which it was trained",
            do="Add the --region-stage that it was trained with."
            if record.level == "region" and level == "tile"
            else "Leave --region-stage out, or give the head of these features.",
        )


def require_trained_on(chains: Chains, recipe: Mapping[str, Any]) -> None:
    """Raise unless the tiles of a run are described as those that a trained head has learned from.

    Parameters
    ----------
    chains : Chains
        The hierarchies.
    recipe : Mapping
        Of the store that is made.

    Raises
    ------
    ConfigError
        When the encoder has other weights, scaling or tiles, as far as both say so; a type that it computes in does
        not count.
    """
    for name, one in chains.each.items():
        if one.slide is None or one.slide.target != HEAD:
            continue
        from tilestream.models.head import read_record

        path = Path(str(one.slide.params[WEIGHTS]))
        known, new = _described(read_record(path).features.get("recipe") or {}), _described_by(recipe, name)
        for what, value in new.items():
            if what in known and known[what] != value:
                raise ConfigError.of(
                    f"head `{path}`",
                    got=f"tiles by `{name}` with {what} {value}",
                    expected=f"{what} {known[what]}, with which the features were made that it was trained on",
                    do="Embed with the options of that run, or train a head on these features.",
                )


def _described(features: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the vectors of a feature set, as far as it says."""
    contract = (features.get("stage") or {}).get("contract") or {}
    found = {name: contract.get(name) for name in DECISIVE}
    found |= {name: features.get(name) for name in ("tile_px", "mpp")}
    found["levels"] = features.get("levels", "the finest alone") if features else None
    above = features.get("chain") or {}
    found |= {"region stage": above.get("region"), "region_px": above.get("region_px")}
    return {name: value for name, value in found.items() if value is not None}


def _described_by(recipe: Mapping[str, Any], encoder: str) -> dict[str, Any]:
    plan = recipe["plan"]
    stage, chain = recipe["stages"].get(encoder), recipe.get("chains", {}).get(encoder, {})
    features = {"stage": stage, "tile_px": plan["tile_px"], "mpp": plan["mpp"]}
    features |= {"levels": token_levels(recipe)} if is_mixed(recipe) else {}
    return _described({**features, "chain": {**chain, "region_px": plan.get("region_px")} if "region" in chain else {}})


def _require_used(known: Sequence[Hierarchy], choice: ChainChoice) -> None:
    """Refuse parameters of a stage that there is not: weights that nobody loads would look as if they had been used."""
    for kind, params, used in (
        (REGION, choice.region_params, any(one.region is not None for one in known)),
        (SLIDE, choice.slide_params, any(one.slide is not None for one in known)),
    ):
        if params and not used:
            given = f"`{kind.weights_option.split()[0]}`" if WEIGHTS in params else f"parameters {sorted(params)}"
            raise ConfigError.of(
                given,
                got=f"no {kind.word} that takes it",
                expected="a stage that it belongs to",
                do=f"Name it with {kind.option}, one of {[*_names(kind)]} or `module:callable`, or leave this out.",
            )


def _names(kind: PartKind) -> list[str]:
    return sorted(name for name in kind.table if name != MEAN)


def _shared(wanted: Mapping[str, int]) -> int | None:
    """Return the one edge that all region stages want, None where none says."""
    if len(set(wanted.values())) > 1:
        raise ConfigError.of(
            "region stages of one run",
            got=", ".join(f"`{name}` for regions of {px} px" for name, px in wanted.items()),
            expected="one edge for all",
            do="Give --region, or run the encoders one by one, each with an --out of its own.",
        )
    return next(iter(wanted.values()), None)


def _stage_recipe(spec: StageSpec) -> dict[str, Any]:
    return {
        "target": spec.target,
        "params": params_recipe(spec.params),
        "source": source_digest(spec.target) if ":" in spec.target else None,
    }
