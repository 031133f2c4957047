"""Maps of a cohort: any stage `[n, c, y, x] -> [n, k, y, x]` over whole images, each into a pyramid, and a report."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distributed import Client

from tilestream.cache.stack import DISK_BYTES, CacheConfig
from tilestream.cluster.caching import install_caches
from tilestream.cluster.client import open_client
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, OutputError
from tilestream.pipelines.cohort import Cohort, Entry, no_inputs
from tilestream.pipelines.course import Course
from tilestream.pipelines.embed import (
    RunOutcome,
    absolute,
    agreement,
    placed,
    remote_scheme,
    require_one_for_file,
    require_writable,
    tasks_of_machine,
    threads_of,
)
from tilestream.pipelines.encoder import encoder_spec, profile_for, require_known, require_output
from tilestream.pipelines.export import SUFFIXES, ExportRow, export_config, run_export
from tilestream.pipelines.keys import is_remote
from tilestream.pipelines.map_image import MapJob
from tilestream.pipelines.report import reporting, write_report
from tilestream.pipelines.report_advice import Setting
from tilestream.pipelines.report_rows import InputRow, RunFacts
from tilestream.pipelines.running import run_jobs
from tilestream.pipelines.tally import Tally
from tilestream.pipelines.where_folder import give_coordinates
from tilestream.pyramid.pyramid import CACHE_BYTES
from tilestream.sinks.tree import check_place
from tilestream.stream.engine import BUSY_WAIT_S, Event
from tilestream.stream.leasefiles import LeaseFile, lease_file
from tilestream.stream.leases import claim
from tilestream.stream.seats import begun_at, taken_seat
from tilestream.stream.work import make_stage

NAME = re.compile(r"(?!(?:features|entropy)$)[\w-]+")
"""What stages that name files may be called; `embed` has stores of the names that are left out."""


@dataclass(frozen=True, kw_only=True)
class MapConfig:
    """What to map of every image of a cohort."""

    out: Path
    """Folder of all outputs; made when it is not there."""
    stage: str
    """Registered name or `module:callable` of a stage whose output is dense."""
    stage_params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the stage; JSON values."""
    where: str = "tissue"
    """`tissue`, `all`, or a mask or GeoJSON file; tiles outside are nodata."""
    tile_px: int | None = None
    """Edge of what counts of a tile; None = what the stage's contract leaves beside the halo."""
    halo_px: int | None = None
    """Overlap around each tile; None = what the contract says, and with `blend` an eighth of a tile more."""
    mpp: float | None = None
    """Micrometres per plan pixel; None = what the contract says."""
    blend: bool = False
    """Feather tiles over each other in what the contract leaves of their halo."""
    invalid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class layer → classes whose pixels are not valid, in every image."""
    decibels: str | None = None
    """`power` or `amplitude`: what the values of radar images are that are to be used in decibels."""
    super_tile_px: int | None = None
    """Edge of the unit of work, plan pixels; None = about 4096."""
    batch: int = 64
    """Tiles that enter the stage together; no part of the recipe."""
    to: str | None = None
    """`cog` or `ome-tiff`: files that are made of the finished maps too."""
    cluster: str | None = None
    """Profile of `tilestream.cluster.client.open_client`; None = `gpus` for a stage on torch where there are any, else
    `threads`."""
    memory_bytes: int | None = None
    """Most bytes one process may hold; None = half of what is free."""
    cache_bytes: int = CACHE_BYTES
    """Decoded blocks kept in each process at most."""
    machine_cache_bytes: int | None = None
    """Memory that the caches of all processes of a machine may take; None = the usual."""
    disk_cache: str | None = None
    """Folder for tiles of remote images and of those on network shares; None = they are not kept on a disk."""
    disk_cache_bytes: int = DISK_BYTES
    """Budget of that folder on each machine."""
    resume: bool = True
    """Go on from receipts; False replaces what an earlier run has made."""
    strict: bool = False
    """Count a damaged tile as a failed input."""

    @property
    def caches(self) -> CacheConfig:
        """Return what caches may take on each machine."""
        return CacheConfig(host_bytes=self.machine_cache_bytes, disk=self.disk_cache, disk_bytes=self.disk_cache_bytes)

    @property
    def place(self) -> Place:
        """Return the folder of all outputs."""
        return Place.of(str(self.out))


def stage_name(config: MapConfig) -> str:
    """Return the name of the stage of a run, which its stores carry.

    Parameters
    ----------
    config : MapConfig
        Names it.

    Returns
    -------
    str
        As its contract says.

    Raises
    ------
    ConfigError
        When there is no such stage, it contradicts itself, or gives vectors.
    """
    require_known(config.stage, "dense")
    contract = make_stage(encoder_spec(config.stage, config.stage_params)).contract
    require_output(contract, "dense")
    if not NAME.fullmatch(contract.name):
        raise ConfigError.of(
            "`name` in the contract of a stage",
            got=repr(contract.name),
            expected="letters, digits, `_` and `-`, since files are named after it, and not `features` or `entropy`",
            do="Rename it.",
        )
    return contract.name


def run_map(
    cohort: Cohort,
    config: MapConfig,
    *,
    on_event: Callable[[Event], None] | None = None,
    on_file: Callable[[ExportRow], None] = lambda row: None,
    then: Callable[[tuple[InputRow, ...]], tuple[InputRow, ...]] = lambda rows: rows,
    client: Client | None = None,
) -> RunOutcome:
    """Run a stage over every image of a cohort and store what it gives.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    config : MapConfig
        What to make of them.
    on_event : callable, optional
        Hears of every unit and image; for progress.
    on_file : callable, optional
        Hears what became of each file that is made of a map.
    then : callable
        Makes more of finished maps, before the report is written: takes the rows of all inputs, and returns them.
    client : distributed.Client, optional
        Where to run; by default one is opened for `config.cluster` and closed again.

    Returns
    -------
    RunOutcome
        Rows and the paths of the report.

    Raises
    ------
    ConfigError
        When there is nothing to do or an option cannot be met.
    OutputError
        When `config.out` cannot be written.

    Notes
    -----
    An image that fails is a row with its reason and never stops the others. An interrupt leaves receipts behind: the
    same call goes on from there, and several processes that make it at once share the work.
    """
    name = stage_name(config)
    cohort = without_maps(cohort)
    if not cohort.entries and not cohort.unmatched:
        raise no_inputs(cohort)
    config = replace(config, out=config.out.absolute(), where=absolute(config.where))
    cohort = give_coordinates(cohort, config.where)
    require_one_for_file(cohort, config.where)
    require_writable(config.out)
    started = time.time()
    receipts = config.out / "receipts"
    tally = Tally(cohort, config.out, suffix=f".{name}.zarr", makes_maps=True)
    course = Course(images=len(cohort.entries))
    with ExitStack() as stack:
        profile = config.cluster or profile_for(encoder_spec(config.stage, config.stage_params))
        client = client or stack.enter_context(open_client(profile))
        stack.enter_context(agreement(client, cohort.entries, out=config.place, stages=[config.stage]))
        install_caches(client, config.caches)
        tasks, beside = threads_of(client), tasks_of_machine(client)
        begin_at = stack.enter_context(taken_seat(Place.of(receipts)))
        jobs = (
            MapJob(entry=placed(entry), config=config, name=name, tasks=tasks, machine_tasks=beside)
            for entry in begun_at(cohort.entries, begin_at)
        )
        run_jobs(client, jobs, course=course, hear=tally.hear, on_event=on_event, out=config.out)
    rows = tally.rows()
    if config.to is not None:
        with sole(lease_file(Place.of(receipts), f".{name}.{config.to}.lease")):  # the others find the files written
            rows = _exported(rows, config, config.to, name, on_file)
    rows = then(rows)
    setting = Setting(
        command="map",
        remote=remote_scheme(cohort),
        has_disk_cache=config.disk_cache is not None,
        halo_px=config.halo_px or 0,
        looks_for_tissue=config.where == "tissue",
    )
    with reporting(config.out):
        facts = RunFacts.of(config=config, seconds=time.time() - started, course=course, setting=setting)
        report = write_report(config.out, facts, rows)
    return RunOutcome(
        rows=rows, facts=facts, report_html=report.html, report_json=report.json, document=report.document
    )


def without_maps(cohort: Cohort) -> Cohort:
    """Return a cohort without the maps that earlier runs have put beside their images, and the files made of them.

    Parameters
    ----------
    cohort : Cohort
        What was found.

    Returns
    -------
    Cohort
        Those that were come across in a folder are among the ignored; one that is named is an image like any other.
    """
    found = [entry for entry in cohort.entries if not entry.is_explicit and not is_remote(entry.url) and _is_map(entry)]
    entries = tuple(entry for entry in cohort.entries if entry not in found)
    ignored = tuple((entry.url, "a map that an earlier run has put there") for entry in found)
    return replace(cohort, entries=entries, ignored=(*cohort.ignored, *ignored))


def _is_map(entry: Entry) -> bool:
    url = entry.url
    for suffix in SUFFIXES.values():
        url = f"{url.removesuffix(suffix)}.zarr" if url.endswith(suffix) else url
    try:
        return url.endswith(".zarr") and "map" in (check_place(Place.of(url)) or {})
    except OutputError:  # of somebody else
        return False


@contextmanager
def sole(file: LeaseFile) -> Iterator[None]:
    """Hold a lease for the block, after as long a wait as another living process has it.

    Parameters
    ----------
    file : LeaseFile
        The lease.

    Yields
    ------
    None
        Nothing.
    """
    while (lease := claim(file)) is None:
        time.sleep(BUSY_WAIT_S)
    with lease:
        yield


def _exported(
    rows: tuple[InputRow, ...], config: MapConfig, to: str, name: str, on_file: Callable[[ExportRow], None]
) -> tuple[InputRow, ...]:
    """Return the rows after the finished maps are files too; a file that cannot be written fails its input."""
    stores = {f"{row.path}.{name}": row for row in rows if row.status == "done"}
    entries = tuple(Entry(key=key, url=str(config.out / f"{key}.zarr"), id=key, is_explicit=True) for key in stores)
    if not entries:
        return rows
    options = export_config(out=config.out, to=to, codec="deflate", quality=90, resume=config.resume)
    made = {row.path: row for row in run_export(Cohort(entries=entries), options, on_row=on_file).rows}
    changed: dict[str, InputRow] = {}
    for key, row in stores.items():
        file = made[key]
        if file.status == "failed":
            changed[row.path] = replace(row, status="failed", reason=file.reason)
        elif file.output is not None:
            output = Path(file.output).relative_to(config.out).as_posix()
            changed[row.path] = replace(row, outputs=(*row.outputs, output), notes=(*row.notes, *file.notes))
    return tuple(changed.get(row.path, row) if row.status == "done" else row for row in rows)
