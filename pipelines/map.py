"""Any stage over the tiles of one plan into any sink, with receipts: the engine as one call."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from tilestream.cluster.client import open_client
from tilestream.errors import StageError
from tilestream.pipelines.encoder import encoder_spec, profile_for
from tilestream.pipelines.recipe import digest, image_recipe, new_recipe, stage_recipe
from tilestream.pyramid.pyramid import Pyramid
from tilestream.stream.engine import Engine, Event, Prepared, Ready
from tilestream.stream.journal import Journal
from tilestream.stream.work import TileWork, make_stage
from tilestream.types import Plan, Receipt, Sink, StageSpec


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


def map_tiles(
    pyr: Pyramid, plan: Plan, stage: str | StageSpec, sink: Sink, *, receipts: Path | str, client: Client | None = None
) -> MapReport:
    """Return what was done when a stage has run over all tiles of a plan and the sink is finished.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    plan : Plan
        Which tiles; units that receipts open are run too.
    stage : str or StageSpec
        Registered name, `module:callable`, or a spec with parameters.
    sink : Sink
        Takes `status`, `valid` and `tissue` of each unit's tiles, and the stage's vectors under its name.
    receipts : path
        Folder of the receipts; the same call goes on from what lies there.
    client : distributed.Client, optional
        Where to run; by default on all visible devices for a stage on torch, else one thread a core of this process.

    Returns
    -------
    MapReport
        The receipts.

    Raises
    ------
    StageError
        When a unit fails; the others that were in flight have their receipts.
    OutputError
        When the folder holds receipts of another recipe.
    """
    given = stage if isinstance(stage, StageSpec) else encoder_spec(stage, {})
    spec = make_stage(given).for_image(pyr.info)
    contract = make_stage(spec).contract
    recipe = new_recipe(
        image=image_recipe(pyr.info), plan=plan.digest, stages={contract.name: stage_recipe(spec, contract)}
    )
    journal = Journal(root=Path(receipts), recipe=digest(recipe))
    journal.open(recipe)
    work = TileWork(pyramid=pyr, stages={contract.name: spec}, sink=sink, journal=journal)
    job = Ready(key="map", prepared=Prepared(plan=plan, work=work, finish=_Finish(sink=sink, journal=journal)))
    events: list[Event] = []
    with ExitStack() as stack:
        client = client or stack.enter_context(open_client(profile_for(spec)))
        Engine(client, events.append).run([job])
    failure = next((event.failure for event in events if event.failure is not None), None)
    if failure is not None:
        raise StageError(failure.reason + failure.trace)
    reused = sum(len(event.reused) for event in events)
    return MapReport(receipts=tuple(journal.receipts().values()), reused=reused)
