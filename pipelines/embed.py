"""The main job: a cohort of images in, features, entropy rasters and a report out."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distributed import Client

from tilestream.cache.stack import DISK_BYTES, CacheConfig
from tilestream.cluster.caching import install_caches
from tilestream.cluster.client import open_client
from tilestream.cluster.handshake import agreed
from tilestream.codecs.durable import ensure_directory
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, OutputError
from tilestream.models.encoders.names import is_library_encoder
from tilestream.pipelines.chain import ChainChoice
from tilestream.pipelines.cohort import Cohort, Entry, no_inputs
from tilestream.pipelines.cohort_table import record_cohort
from tilestream.pipelines.course import Course
from tilestream.pipelines.encoder import encoder_spec, load_here, profile_for
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pipelines.image import ImageJob
from tilestream.pipelines.report import reporting, write_report
from tilestream.pipelines.report_advice import Setting
from tilestream.pipelines.report_rows import InputRow, RunFacts
from tilestream.pipelines.running import run_jobs
from tilestream.pipelines.tally import Tally
from tilestream.pipelines.tokens import TokenChoice
from tilestream.pipelines.where_folder import give_coordinates
from tilestream.pyramid.pyramid import CACHE_BYTES
from tilestream.registry import weights_files
from tilestream.stream.engine import Event
from tilestream.stream.seats import begun_at, taken_seat


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """What to make of every image of a cohort."""

    out: Path
    """Folder of all outputs; made when it is not there."""
    encoders: tuple[EncoderChoice, ...] = (EncoderChoice(name="handcrafted"),)
    """What turns tiles into vectors, all in one pass over the pixels: a variable each in the store."""
    chain: ChainChoice = field(default_factory=ChainChoice)
    """Stages above the tiles: regions from grids of vectors, slides from regions."""
    where: str = "tissue"
    """`tissue`, `all`, or a mask or GeoJSON file."""
    tile_px: int | None = None
    """Tile edge; None = what the encoder's contract says."""
    mpp: float | None = None
    """Micrometres per plan pixel; None = what the contract says."""
    halo_px: int = 0
    """Overlap around each tile."""
    tokens: TokenChoice | None = None
    """Budget of tokens, and what decides where they lie; None = all tiles are read."""
    invalid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class layer → classes whose pixels are not valid, in every image."""
    decibels: str | None = None
    """`power` or `amplitude`: what the values of radar images are that are to be used in decibels."""
    region_px: int | None = None
    """Edge of the regions; None = what the region stage was made for, else the super-tile."""
    super_tile_px: int | None = None
    """Edge of the unit of work; None = about 4096, a common multiple of tile and region."""
    batch: int = 64
    """Tiles that enter the encoder together; no part of the recipe."""
    cluster: str | None = None
    """Profile of `tilestream.cluster.client.open_client`; None = `gpus` for an encoder on torch where there are any,
    else `threads`."""
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


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """What a run has made."""

    rows: tuple[InputRow, ...]
    """One row an input, ignored files included."""
    facts: RunFacts
    """Figures of the whole run."""
    report_html: Path
    """For people."""
    report_json: Path
    """For programs."""
    document: Mapping[str, Any]
    """What was written there; another run on the same outputs may have replaced it since."""

    def exit_code(self, *, strict: bool = False) -> int:
        """Return 0 when all was done, 3 when inputs failed (with `strict` also when tiles were damaged)."""
        failed = any(row.status == "failed" for row in self.rows)
        damaged = strict and any(row.tiles_damaged for row in self.rows)
        return 3 if failed or damaged else 0


def run_embed(
    cohort: Cohort,
    config: EmbedConfig,
    *,
    on_event: Callable[[Event], None] | None = None,
    client: Client | None = None,
) -> RunOutcome:
    """Run the main job on a cohort.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    config : EmbedConfig
        What to make of them.
    on_event : callable, optional
        Hears of every unit and image; for progress.
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
    same call goes on from there. Several processes that make it at once, on this machine or on nodes that share a file
    system, share the work super-tile by super-tile.
    """
    if not cohort.entries and not cohort.unmatched:
        raise no_inputs(cohort)
    # Workers on a cluster have working folders of their own.
    config = replace(config, out=config.out.absolute(), where=absolute(config.where))
    cohort = give_coordinates(cohort, config.where)
    require_one_for_file(cohort, config.where)
    require_writable(config.out)
    started = time.time()
    tally = Tally(cohort, config.out)
    receipts = config.out / "receipts"
    with ExitStack() as stack:
        if client is None:
            wanted = [encoder_spec(one.name, one.params, tile_px=config.tile_px) for one in config.encoders]
            client = stack.enter_context(open_client(config.cluster or profile_for(*wanted)))
            load_here(client, wanted)
        stages = [*(one.name for one in config.encoders if not is_library_encoder(one.name)), *config.chain.targets]
        files = [*(str(path) for one in config.encoders for path in weights_files(one.params)), *config.chain.files]
        place = Place.of(config.out)
        stack.enter_context(agreement(client, cohort.entries, out=place, stages=stages, files=files))
        install_caches(client, config.caches)
        threads, beside = threads_of(client), tasks_of_machine(client)
        begin_at = stack.enter_context(taken_seat(Place.of(receipts)))
        jobs = (
            ImageJob(entry=placed(entry), config=config, tasks=threads, machine_tasks=beside, begin_at=begin_at)
            for entry in begun_at(cohort.entries, begin_at)
        )
        course = Course(images=len(cohort.entries))
        run_jobs(client, jobs, course=course, hear=tally.hear, on_event=on_event, out=config.out)
    rows = tally.rows()
    setting = Setting(
        remote=remote_scheme(cohort),
        has_disk_cache=config.disk_cache is not None,
        halo_px=config.halo_px,
        looks_for_tissue=config.where == "tissue",
    )
    with reporting(config.out):
        notes = record_cohort(config.out, cohort.entries, rows)
        seconds = time.time() - started
        facts = RunFacts.of(config=config, seconds=seconds, course=course, setting=setting, notes=notes)
        report = write_report(config.out, facts, rows)
    return RunOutcome(
        rows=rows, facts=facts, report_html=report.html, report_json=report.json, document=report.document
    )


def agreement(
    client: Client, entries: Iterable[Entry], *, out: Place, stages: Iterable[str] = (), files: Iterable[str] = ()
) -> AbstractContextManager[None]:
    """Return what keeps workers out of a run that lack its code, its images or its folder.

    Parameters
    ----------
    client : distributed.Client
        Where it runs.
    entries : iterable of Entry
        The inputs.
    out : Place
        Folder of the outputs.
    stages : iterable of str
        Encoders by name, and stages above them that the user brings.
    files : iterable of str
        Weights, which each worker reads.

    Returns
    -------
    context manager
        Raises `ConfigError` when a worker that is there now has to be refused.
    """
    inputs = [*files, *(placed(entry).url for entry in entries)]
    return agreed(client, stages=stages, inputs=inputs, out=out.at("receipts"))


def threads_of(client: Client) -> int:
    """Return the threads of the cluster's largest process, at least 1."""
    threads: dict[str, int] = client.nthreads()  # type: ignore[no-untyped-call]  # distributed types only some methods
    return max([1, *threads.values()])


def tasks_of_machine(client: Client) -> int:
    """Return how many tasks run at once on the cluster's busiest machine, at least 1."""
    threads: dict[str, int] = client.nthreads()  # type: ignore[no-untyped-call]  # distributed types only some methods
    by_machine: Counter[str] = Counter()
    for address, count in threads.items():
        by_machine[urlsplit(address).hostname or address] += count
    return max([1, *by_machine.values()])


def remote_scheme(cohort: Cohort) -> str:
    """Return the schemes of the remote inputs, such as `s3`; nothing where all are local."""
    schemes = {entry.url.partition("://")[0].rpartition("::")[2] for entry in cohort.entries if "://" in entry.url}
    return " and ".join(sorted(schemes - {"file", "local"}))


def placed(entry: Entry) -> Entry:
    """Return an entry whose paths do not depend on the working folder."""
    url = entry.url if "://" in entry.url else str(Path(entry.url).absolute())
    return replace(entry, url=url, mask=None if entry.mask is None else absolute(entry.mask))


def absolute(where: str) -> str:
    """Return a path that does not depend on the working folder, and a word as it is."""
    path = Path(where)
    return str(path.absolute()) if path.is_file() else where


def require_one_for_file(cohort: Cohort, where: str) -> None:
    """Refuse one image's mask or outline for many images: it would select the wrong places in silence."""
    unmasked = [entry.key for entry in cohort.entries if entry.mask is None]
    if where not in ("tissue", "all") and len(unmasked) > 1:
        raise ConfigError.of(
            "`--where`",
            got=f"one file for {len(unmasked)} images",
            expected="a file that belongs to the one image that it is given with",
            do="Name one image, or give each its own in the column `mask` of a manifest.",
        )


def require_writable(out: Path) -> None:
    """Raise `OutputError` unless files can be made in a folder, which is made where it is not there."""
    ensure_directory(out)
    if not os.access(out, os.W_OK | os.X_OK):
        raise OutputError.of(
            f"`{out}`",
            got="a folder without write permission",
            expected="one that can be written",
            do="Choose another.",
        )
