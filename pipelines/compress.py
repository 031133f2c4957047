"""Images into stores of fields: small networks, one a tile, that answer at any level; and a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from distributed import Client

from tilestream.cluster.client import open_client
from tilestream.codecs.place import Place
from tilestream.codecs.tilecodec import PYRAMID, TileCodec
from tilestream.errors import OutputError
from tilestream.pipelines.cohort import Cohort, no_inputs
from tilestream.pipelines.compress_codec import codec_of
from tilestream.pipelines.compress_image import SUFFIX, CompressJob
from tilestream.pipelines.compress_relevance import RelevanceChoice
from tilestream.pipelines.course import Course
from tilestream.pipelines.embed import RunOutcome, agreement, placed, remote_scheme, require_writable, threads_of
from tilestream.pipelines.keys import is_remote
from tilestream.pipelines.report import reporting, write_report
from tilestream.pipelines.report_advice import Setting
from tilestream.pipelines.report_rows import RunFacts
from tilestream.pipelines.running import run_jobs
from tilestream.pipelines.tally import Tally
from tilestream.sinks.fieldstore import STORE
from tilestream.sinks.tiling import STEP, TILE_PX
from tilestream.sinks.tree import check_place
from tilestream.stream.engine import Event
from tilestream.stream.seats import begun_at, taken_seat

_LEVEL_STEP = {PYRAMID: 1}
"""Levels from one array to the next, where they are not those of most codecs: what other programs read of it is to have
every level."""
HOURS = 72.0
"""Most hours that an image may take, by its forecast, unless more are allowed."""


@dataclass(frozen=True, kw_only=True)
class CompressConfig:
    """How images are stored as fields."""

    out: Path
    """Folder of all outputs; made when it is not there."""
    codec: str = "hash"
    """Name in `tilestream.registry.CODECS` or of an entry point: a file must not choose what is imported to read it."""
    quality: float | None = None
    """1 to 100, as the codec understands it; None = 50, or what networks of `weights` are trained for."""
    max_error: int | None = None
    """Of `pyramid`: largest error of any valid sample of each stored level, 0 is lossless; None = no bound."""
    steps: int | None = None
    """Steps of the fit of a tile; None = as many as the codec needs: none where the error is bounded."""
    weights: Path | None = None
    """Of `shared` and `pyramid`: file of what tiles share, which `tilestream train codec` has written."""
    suffix: str = SUFFIX
    """What the names of stores end in, behind the whole name of an input."""
    tile_px: int = TILE_PX
    """Edge of a tile."""
    single_level: bool = False
    """Whether only level 0 is stored, whose tiles answer all levels; other programs then see no others."""
    relevance: RelevanceChoice | None = None
    """Where bytes go; None = alike everywhere."""
    hours: float = HOURS
    """Most hours that an image may take by its forecast; what would take longer is refused before it begins."""
    invalid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class layer → classes whose pixels are not valid, in every image."""
    decibels: str | None = None
    """`power` or `amplitude`: what the values of radar images are that are to be stored in decibels."""
    cluster: str | None = None
    """Profile of `tilestream.cluster.client.open_client`; None = `threads`."""
    memory_bytes: int | None = None
    """Most bytes one process may hold; None = half of what is free."""
    resume: bool = True
    """Go on from receipts; False replaces what an earlier run has made."""
    strict: bool = False
    """Count a damaged tile as a failed input."""

    @property
    def place(self) -> Place:
        """Return the folder of all outputs."""
        return Place.of(str(self.out))

    @property
    def level_step(self) -> int | None:
        """Return how many levels the tiles of an array answer; None = all."""
        return None if self.single_level else _LEVEL_STEP.get(self.codec, STEP)

    def tile_codec(self) -> TileCodec:
        """Return the codec of the run; raise `ConfigError` where an option is not understood."""
        return codec_of(self)


def without_fields(cohort: Cohort) -> Cohort:
    """Return a cohort without the stores of fields that earlier runs have put beside their images.

    Parameters
    ----------
    cohort : Cohort
        What was found.

    Returns
    -------
    Cohort
        Those that were come across in a folder are among the ignored; one that is named is an image like any other.
    """
    found = [entry for entry in cohort.entries if not entry.is_explicit and is_field_store(entry.url)]
    entries = tuple(entry for entry in cohort.entries if entry not in found)
    ignored = tuple((entry.url, "a store of fields that an earlier run has put there") for entry in found)
    return replace(cohort, entries=entries, ignored=(*cohort.ignored, *ignored))


def is_field_store(url: str) -> bool:
    """Return whether a local path is a store of fields; nothing remote is looked at."""
    if is_remote(url) or not url.rstrip("/").endswith(".zarr"):
        return False
    try:
        return (check_place(Place.of(url)) or {}).get("store") == STORE
    except OutputError:  # of somebody else
        return False


def run_compress(
    cohort: Cohort,
    config: CompressConfig,
    *,
    on_event: Callable[[Event], None] | None = None,
    client: Client | None = None,
) -> RunOutcome:
    """Store every image of a cohort as fields.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    config : CompressConfig
        How they are stored.
    on_event : callable, optional
        Hears of every tile and image; for progress.
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
    An image that fails is a row with its reason and never stops the others. An interrupt leaves receipts behind, one a
    tile: the same call goes on from there, and several processes that make it at once share the work. Equal pixels
    and options give equal bytes on one kind of device.
    """
    has_steps = config.tile_codec().settings.get("steps") != 0
    cohort = without_fields(cohort)
    if not cohort.entries and not cohort.unmatched:
        raise no_inputs(cohort)
    config = replace(config, out=config.out.absolute())
    require_writable(config.out)
    started = time.time()
    tally = Tally(cohort, config.out, suffix=config.suffix)
    course = run_fits(cohort, config, hear=tally.hear, on_event=on_event, client=client)
    rows = tally.rows()
    setting = Setting(command="compress", remote=remote_scheme(cohort), has_steps=has_steps)
    with reporting(config.out):
        facts = RunFacts.of(config=config, seconds=time.time() - started, course=course, setting=setting)
        report = write_report(config.out, facts, rows)
    return RunOutcome(
        rows=rows, facts=facts, report_html=report.html, report_json=report.json, document=report.document
    )


def run_fits(
    cohort: Cohort,
    config: CompressConfig,
    *,
    hear: Callable[[Event], None],
    on_event: Callable[[Event], None] | None = None,
    client: Client | None = None,
    has_metrics: bool = True,
) -> Course:
    """Store every image of a cohort as fields, without a report.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    config : CompressConfig
        How they are stored; `out` is absolute.
    hear : callable
        Hears of every tile and image.
    on_event : callable, optional
        Hears of them too; for progress.
    client : distributed.Client, optional
        As for `run_compress`.
    has_metrics : bool
        Whether the folder of all outputs gets a `metrics.prom`.

    Returns
    -------
    Course
        How the run has gone.
    """
    codec, course = config.tile_codec(), Course(images=len(cohort.entries))
    with ExitStack() as stack:
        client = client or stack.enter_context(open_client(config.cluster or "threads"))
        stack.enter_context(agreement(client, cohort.entries, out=config.place))
        tasks, threads = threads_of(client), all_threads(client)
        begin_at = stack.enter_context(taken_seat(Place.of(config.out / "receipts")))
        jobs = (
            CompressJob(entry=placed(entry), config=config, codec=codec, tasks=tasks, threads=threads)
            for entry in begun_at(cohort.entries, begin_at)
        )
        told = config.out if has_metrics else None
        run_jobs(client, jobs, course=course, hear=hear, on_event=on_event, out=told)
    return course


def all_threads(client: Client) -> int:
    """Return the threads of all processes of a cluster, at least 1."""
    threads: dict[str, int] = client.nthreads()  # type: ignore[no-untyped-call]  # distributed types only some methods
    return max(1, sum(threads.values()))
