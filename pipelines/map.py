"""Any stage over the tiles of one plan into any sink, or its map into a pyramid: the engine as one call."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from tilestream.cluster.client import open_client
from tilestream.cluster.handshake import agreed
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, StageError
from tilestream.kernels.checks import need_kind
from tilestream.pipelines.embed import tasks_of_machine, threads_of
from tilestream.pipelines.encoder import choose_encoder, encoder_spec, profile_for, require_json
from tilestream.pipelines.ingest_image import StorePlaces
from tilestream.pipelines.map_features import prepare_features
from tilestream.pipelines.map_store import MapRequest, MapTiles, prepare_map
from tilestream.pipelines.map_work import receipts_of_tiles
from tilestream.pipelines.recipe import digest, image_recipe, new_recipe, stage_recipe
from tilestream.plan.tiles import TilePlan
from tilestream.pyramid.pyramid import OPEN_FIRST, Pyramid
from tilestream.sources.stamps import stamps_of
from tilestream.stream.engine import Engine, Event, Prepared, Ready, pickled_bytes
from tilestream.stream.journal import Journal
from tilestream.stream.work import TileWork, make_stage
from tilestream.types import Hierarchy, Plan, Receipt, Sink, StageSpec


@dataclass(frozen=True, kw_only=True)
class MapReport:
    """What `map_tiles` has done."""

    receipts: tuple[Receipt, ...]
    """One a super-tile, those of an earlier run included."""
    reused: int
    """How many of them an earlier run had written."""

    @property
    def tiles(self) -> int:
        """Return the number of tiles."""
        return sum(receipt.tiles for receipt in self.receipts)

    @property
    def damaged(self) -> int:
        """Return the number of tiles that could not be decoded."""
        return sum(len(rows) for receipt in self.receipts for rows in receipt.damaged.values())


@dataclass(frozen=True, kw_only=True)
class _Finish:
    sink: Sink
    journal: Journal

    def __call__(self) -> None:
        self.sink.finish(self.journal.receipts().values())


def map_tiles(  # noqa: PLR0913 - the public call: each option is one keyword
    pyr: Pyramid,
    plan: Plan,
    stage: str | StageSpec | Hierarchy,
    sink: Sink | Path | str,
    *,
    blend: bool = False,
    receipts: Path | str | None = None,
    client: Client | None = None,
) -> MapReport:
    """Return what was done when a stage has run over all tiles of a plan and what it gives is stored.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    plan : Plan
        Which tiles, with their halo; for a stage of vectors units that receipts open are run too.
    stage : str, StageSpec or Hierarchy
        Registered name, `module:callable`, or a spec with parameters; or a tile stage with stages above it.
    sink : Sink, path or str
        For a stage of vectors what takes `status`, `valid` and `tissue` of each unit's tiles, and the stage's vectors
        under its name. For a stage whose output is dense the store of its map, a name that ends in `.zarr`, local or
        an fsspec URL. For a hierarchy the store of its tiles, regions and slide, a local name that ends in
        `.features.zarr`.
    blend : bool
        Feather the maps of neighbouring tiles over each other, in what the stage's contract leaves of the halo.
    receipts : path, optional
        Folder of the receipts, needed with a sink; those of a store lie in `receipts/` beside it. The same call goes on
        from what lies there.
    client : distributed.Client, optional
        Where to run; by default on all visible devices for a stage on torch, else one thread a core of this process.

    Returns
    -------
    MapReport
        The receipts.

    Raises
    ------
    ConfigError
        When stage, sink and options do not belong together, or one of them cannot be sent to workers.
    StageError
        When a unit fails; the others that were in flight have their receipts.
    OutputError
        When the folder holds receipts of another recipe.

    Examples
    --------
    >>> import tilestream as ts
    >>> slide = ts.open_pyramid("slide.svs")  # doctest: +SKIP
    >>> plan = ts.plan_tiles(slide, tile_px=256, halo_px=16)  # doctest: +SKIP
    >>> ts.map_tiles(slide, plan, "gradient", "slide.gradient.zarr")  # doctest: +SKIP
    >>> chain = ts.Hierarchy.of("handcrafted", region="my_module:encode_region")
    >>> ts.map_tiles(slide, plan, chain, "slide.features.zarr")  # doctest: +SKIP
    """
    need_kind("map_tiles", "pyr", pyr, Pyramid, do=OPEN_FIRST)
    if isinstance(stage, Hierarchy):
        return _features(pyr, plan, stage, sink, receipts=receipts, client=client)
    given = stage if isinstance(stage, StageSpec) else encoder_spec(stage, {})
    require_json(given.target, given.params)
    contract = make_stage(given).contract
    is_dense, is_store = contract.output == "dense", isinstance(sink, str | Path)
    if is_dense != is_store or (not is_dense and (blend or receipts is None)):
        raise ConfigError.of(
            f"`sink`, `blend` and `receipts` for `{contract.name}`",
            got=f"{type(sink).__name__}, {blend} and {receipts!r}",
            expected="a store's name for a stage of maps; a sink and a folder of receipts for one of vectors",
            do="See `output` in the contract of the stage.",
        )
    with ExitStack() as stack:
        client = client or stack.enter_context(open_client(profile_for(given)))
        folder = Place.of(str(receipts)) if receipts is not None else _beside(str(sink)).at("receipts")
        stack.enter_context(agreed(client, stages=[_name(given)], out=folder))
        if not isinstance(sink, str | Path):
            return _vectors(pyr, plan, given, sink, journal_at=Path(str(receipts)), client=client)
        if not isinstance(plan, TilePlan):
            do = "Make it with ts.plan_tiles."
            raise ConfigError.of("`plan`", got=type(plan).__name__, expected="a plan of tiles", do=do)
        name, params = (stage, {}) if isinstance(stage, str) else (stage.target, stage.params)
        encoder = choose_encoder(name, params, pyr.info, output="dense")
        tiles = MapTiles(pyramid=pyr, plan=plan, encoder=encoder, is_blended=blend, stamps=stamps_of(pyr.source))
        return _map(tiles, str(sink), receipts, client)


def _vectors(pyr: Pyramid, plan: Plan, given: StageSpec, sink: Sink, *, journal_at: Path, client: Client) -> MapReport:
    _require_portable(sink)
    spec = make_stage(given).for_image(pyr.info)
    contract = make_stage(spec).contract
    source = _name(given) if ":" in _name(given) else None
    stages = {contract.name: stage_recipe(spec, contract, source=source)}
    recipe = new_recipe(image=image_recipe(pyr.info), plan=plan.digest, stages=stages)
    journal = Journal(root=journal_at, recipe=digest(recipe))
    journal.open(recipe)
    work = TileWork(pyramid=pyr, stages={contract.name: spec}, sink=sink, journal=journal)
    reused = _run(Prepared(plan=plan, work=work, finish=_Finish(sink=sink, journal=journal)), client)
    return MapReport(receipts=tuple(journal.receipts().values()), reused=reused)


def _features(
    pyr: Pyramid,
    plan: Plan,
    hierarchy: Hierarchy,
    sink: Sink | Path | str,
    *,
    receipts: Path | str | None,
    client: Client | None,
) -> MapReport:
    if not isinstance(sink, str | Path) or not isinstance(plan, TilePlan):
        got, do = (
            f"{type(sink).__name__} and {type(plan).__name__}",
            "Name the store, and make the plan by ts.plan_tiles.",
        )
        raise ConfigError.of("`sink` and `plan` of a hierarchy", got=got, expected="a store's name and tiles", do=do)
    dst = Path(sink).absolute()
    at = Path(receipts).absolute() if receipts is not None else dst.parent / "receipts" / dst.name
    with ExitStack() as stack:
        tile = encoder_spec(hierarchy.tile.target, hierarchy.tile.params, tile_px=plan.grid.tile_px)
        client = client or stack.enter_context(open_client(profile_for(tile)))
        parts = [one.target for one in (hierarchy.region, hierarchy.slide) if one is not None and ":" in one.target]
        stack.enter_context(agreed(client, stages=[_name(tile), *parts], out=Place.of(str(at))))
        prepared, journal = prepare_features(pyr, plan, hierarchy, dst=dst, journal_at=at)
        reused = _run(prepared, client)
    return MapReport(receipts=tuple(journal.receipts().values()), reused=reused)


def _map(tiles: MapTiles, dst: str, receipts: Path | str | None, client: Client) -> MapReport:
    name = Place.of(dst).name
    if not name.endswith(".zarr"):
        raise ConfigError.of("`sink`", got=f"`{dst}`", expected="a name that ends in .zarr", do="Name it so.")
    places = StorePlaces.of(_beside(dst), name)
    if receipts is not None:
        places = StorePlaces(root=places.root, journal=Place.of(str(receipts)))
    recipe = new_recipe(
        image=image_recipe(tiles.pyramid.info),
        channels=[channel.name for channel in tiles.pyramid.channels],
        plan={"digest": tiles.plan.digest, "blend": tiles.is_blended},
        stages={tiles.encoder.name: dict(tiles.encoder.recipe)},
    )
    request = MapRequest(
        tiles=tiles, recipe=recipe, places=places, output=name, tasks=threads_of(client),
        machine_tasks=tasks_of_machine(client),
    )  # fmt: skip
    prepared = prepare_map(request)
    journal = Journal(root=places.journal, recipe=digest(recipe))
    if isinstance(prepared, Prepared):
        reused = _run(prepared, client)
    done = receipts_of_tiles(list(journal.receipts().values()))
    return MapReport(receipts=tuple(done), reused=reused if isinstance(prepared, Prepared) else len(done))


def _run(prepared: Prepared, client: Client) -> int:
    """Return how many units were done before, when all are done and finished."""
    events: list[Event] = []
    Engine(client, events.append).run([Ready(key="map", prepared=prepared)])
    failure = next((event.failure for event in events if event.failure is not None), None)
    if failure is not None:
        raise StageError(failure.reason + failure.trace)
    return sum(len(event.reused) for event in events)


def _beside(dst: str) -> Place:
    return Place.of(Place.of(dst).url.rpartition("/")[0] or ".")


def _name(given: StageSpec) -> str:
    return str(given.params.get("target", given.target))  # `callable` is the adapter of a user's own


def _require_portable(sink: Sink) -> None:
    try:
        pickled_bytes(sink)
    except Exception as error:  # whatever a class of the user's raises when it is taken apart
        raise ConfigError.of(
            f"sink `{type(sink).__name__}`",
            got=f"{type(error).__name__}: {error}",
            expected="one that can be pickled, since workers are other processes",
            do="Define its class at the top of a module, and open files inside `write`.",
        ) from error
