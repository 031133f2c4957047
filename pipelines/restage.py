"""Vectors of regions and slides anew by other stages, from the tiles of finished stores: no pixel is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilestream.errors import ConfigError, DamagedError, TilestreamError
from tilestream.models.pool import Pool
from tilestream.pipelines.chain import (
    ChainChoice,
    Chains,
    choose_chains,
    require_bag,
    require_grid,
    require_stages,
    require_trained_on,
)
from tilestream.pipelines.embed import require_writable
from tilestream.pipelines.places import Places
from tilestream.pipelines.recipe import digest
from tilestream.sinks.chainfacts import read_chain_facts
from tilestream.sinks.factsread import image_of, iter_units, plan_of, scalars_of
from tilestream.sinks.featureread import StoredFeatures
from tilestream.sinks.features import FeatureSink
from tilestream.sinks.storerecord import SUFFIX
from tilestream.sinks.tree import OWNER, check_replaceable
from tilestream.stream.budget import memory_limit
from tilestream.types import Receipt, StageSpec


@dataclass(frozen=True, kw_only=True)
class RestageConfig:
    """What to make of every store."""

    out: Path
    """Folder of the new stores."""
    chain: ChainChoice
    """Stages above the tiles."""
    region_px: int | None = None
    """Edge of a region in plan pixels; None = what the region stage was made for, else the super-tile."""
    memory_bytes: int | None = None
    """Most bytes the process may hold; None = half of what is free."""
    resume: bool = True
    """Leave what is there of the same recipe; False replaces what another one has made."""


@dataclass(frozen=True, kw_only=True)
class Restaged:
    """What became of one store."""

    key: str
    """Relative path of its image."""
    store: Path
    """The new one."""
    reason: str = ""
    """Why there is none."""
    is_reused: bool = False
    """Whether it was there."""
    regions: int = 0
    """Regions that a stage was to make a vector of."""
    regions_failed: int = 0
    """Those on which it has failed."""
    notes: tuple[str, ...] = ()
    """What a user should know."""


def run_restage(
    paths: Sequence[str], config: RestageConfig, *, on_store: Callable[[Restaged], None] | None = None
) -> tuple[Restaged, ...]:
    """Return what became of each store when regions and slides were made anew.

    Parameters
    ----------
    paths : sequence of str
        Feature stores, or folders of them.
    config : RestageConfig
        What to make.
    on_store : callable, optional
        Hears of each when it is done.

    Returns
    -------
    tuple of Restaged
        In the order of their names.

    Raises
    ------
    ConfigError
        When there is no store, or a stage cannot be made.
    OutputError
        When nothing can be written to the folder.
    """
    found = dict(sorted(find_stores(paths)))
    if not found:
        raise ConfigError.of(
            "feature stores",
            got=f"none in {', '.join(f'`{path}`' for path in paths)}",
            expected=f"stores named `<image>{SUFFIX}`",
            do="Make them with `tilestream embed`.",
        )
    require_stages(config.chain)  # what no store could do is an error, not a row each
    require_writable(config.out)
    rows = []
    for key, root in found.items():
        try:
            row = restage(root, key, config)
        except (TilestreamError, OSError) as error:
            row = Restaged(key=key, store=Places.of(config.out, key).features, reason=str(error))
        rows.append(row)
        if on_store is not None:
            on_store(row)
    return tuple(rows)


def find_stores(paths: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Yield the relative path of the image and the place of each feature store; none is looked into.

    Parameters
    ----------
    paths : sequence of str
        Stores, or folders of them.

    Yields
    ------
    key : str
        Relative path of the image.
    root : Path
        The store.
    """
    for text in paths:
        top = Path(text)
        if top.name.endswith(SUFFIX):
            yield top.name.removesuffix(SUFFIX), top
            continue
        for folder, names, _ in os.walk(top):
            for name in (name for name in names if name.endswith(SUFFIX)):
                root = Path(folder) / name
                yield root.relative_to(top).as_posix().removesuffix(SUFFIX), root
            names[:] = [name for name in names if not name.endswith(".zarr") and name != "receipts"]


def restage(root: Path, key: str, config: RestageConfig) -> Restaged:
    """Return what became of one store: the same tiles, other regions and slides.

    Parameters
    ----------
    root : Path
        A finished feature store.
    key : str
        Relative path of its image, which the new store bears too.
    config : RestageConfig
        What to make.

    Returns
    -------
    Restaged
        Equal, to the byte, to what `tilestream embed` makes with these stages and the same tiles.

    Raises
    ------
    DamagedError, ConfigError, StageError, OutputError
        When the store cannot be read, stages do not fit, or the place is taken by another recipe.
    """
    stored = StoredFeatures.open(root, key)
    if "depths" in stored.plan:
        raise ConfigError.of(
            f"`{key}`",
            got="tiles that a budget has chosen, of several sizes or by themselves",
            expected="tiles side by side, which regions are made of",
            do="Embed it without --budget; or with --budget and the --slide-stage that is wanted.",
        )
    known = stored.attributes
    named = [name for name in known["recipe"]["stages"] if name in stored.encoders]  # in the order of its run
    specs = {name: StageSpec(target=known["recipe"]["stages"][name]["target"]) for name in named}
    chains = choose_chains(specs, config.chain, tile_px=known["plan"]["tile_px"], region_px=config.region_px)
    plan = plan_of(stored.plan, region_px=chains.region_px or stored.plan["super_tile_px"])
    bound = chains.bind({name: stored.dim(name) for name in named}, cells=plan.region_px // plan.grid.step_px)
    require_grid(bound, plan)
    require_bag(bound, plan, limit_bytes=memory_limit(config.memory_bytes))
    recipe = _recipe(known["recipe"], chains)
    require_trained_on(chains, recipe)
    places = Places.of(config.out, key)
    sink = FeatureSink(
        root=places.features,
        work=places.features.parent / f".{places.features.name}.parts",
        image=image_of(stored.image),
        plan=plan,
        encoders=tuple((name, stored.outputs(name)) for name in named),
        new_pooler=Pool,
        chains=bound,
        scalars=scalars_of(stored),
        recipe=recipe,
        recipe_digest=digest(recipe),
        version=known[OWNER]["version"],
        replace=not config.resume,
    )
    is_reused = sink.is_committed() and config.resume
    if not is_reused:
        if places.features.exists() and not sink.is_committed():
            check_replaceable(places.features, replace=sink.replace)
        sink.finish(_receipts(stored, sink))
    return _row(key, sink, is_reused=is_reused, is_partial=_is_partial(chains, recipe))


def _receipts(stored: StoredFeatures, sink: FeatureSink) -> list[Receipt]:
    receipts = []
    for unit, results in iter_units(stored, sink.plan):
        outputs = sink.write(unit, results)
        receipts.append(Receipt(key=unit.key, recipe=sink.recipe_digest, outputs=outputs, tiles=len(unit.tile_yx)))
    if sum(receipt.tiles for receipt in receipts) != sink.plan.rows:
        raise DamagedError(f"`{stored.folder}`: {sum(r.tiles for r in receipts)} tiles of {sink.plan.rows}")
    return receipts


def _recipe(known: dict[str, Any], chains: Chains) -> dict[str, Any]:
    """Return the recipe of a store with other stages above its tiles, which stay what they are."""
    kept = {name: value for name, value in known.items() if name != "chains"}
    return {**kept, "plan": {**known["plan"], "region_px": chains.region_px}, **chains.recipe}


def _is_partial(chains: Chains, recipe: dict[str, Any]) -> bool:
    """Return whether a stage that has only seen whole regions gets such that were chosen tile by tile."""
    plan = recipe["plan"]
    return chains.whole_regions and not plan.get("whole_regions", False) and plan["where"] != "all"


def _row(key: str, sink: FeatureSink, *, is_reused: bool, is_partial: bool) -> Restaged:
    facts = read_chain_facts(sink.root, sink.chains)
    notes = [note for one in facts for note in one.notes]
    if is_partial:
        notes.append("its tiles were chosen one by one, and the region stage has only seen whole regions")
    staged = [one for one in facts if one.regions is not None]
    return Restaged(
        key=key,
        store=sink.root,
        is_reused=is_reused,
        regions=max((one.regions or 0 for one in staged), default=0),
        regions_failed=sum(sum(map(len, one.failed.values())) for one in staged),
        notes=tuple(notes),
    )
