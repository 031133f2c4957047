"""Images into stores of fields: small networks, one a tile, that answer at any level; and a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from distributed import Client

from tilestream.cluster.client import open_client
from tilestream.codecs.fields.decoders import decoder_text, load_decoder
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.fields.sharedfield import DEFAULT_STEPS, SharedField
from tilestream.codecs.place import Place
from tilestream.codecs.pyramid.pyramidcodec import PyramidCodec
from tilestream.codecs.pyramid.shared import load_shared
from tilestream.codecs.tilecodec import (
    ENTRY_POINTS,
    LEVELS,
    PYRAMID,
    QUALITY,
    STEPS,
    FieldCodec,
    TileCodec,
    known_codecs,
)
from tilestream.errors import ConfigError, OutputError
from tilestream.pipelines.cohort import Cohort, no_inputs
from tilestream.pipelines.compress_image import SUFFIX, CompressJob
from tilestream.pipelines.compress_relevance import RelevanceChoice
from tilestream.pipelines.compress_size import require_hours
from tilestream.pipelines.course import Course
from tilestream.pipelines.embed import RunOutcome, agreement, placed, remote_scheme, require_writable, threads_of
from tilestream.pipelines.keys import is_remote
from tilestream.pipelines.report import reporting, write_report
from tilestream.pipelines.report_advice import Setting
from tilestream.pipelines.report_rows import RunFacts
from tilestream.pipelines.running import run_jobs
from tilestream.pipelines.tally import Tally
from tilestream.sinks.fieldstore import STORE
from tilestream.sinks.tiling import STEP, TILE_PX, check_tile, halvings
from tilestream.sinks.tree import check_place
from tilestream.stream.engine import Event
from tilestream.stream.seats import begun_at, taken_seat

_STEPS = {SharedField.name: DEFAULT_STEPS}
"""Of the fit of a tile, where they are not those of most codecs."""
REFINED_STEPS = 100
"""Of a `pyramid` tile under shared networks: most of what steps can gain."""
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
    quality: float = QUALITY
    """1 to 100, as the codec understands it."""
    steps: int | None = None
    """Steps of the fit of a tile; None = as many as the codec needs."""
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
        known = known_codecs()
        if self.codec not in known:
            raise ConfigError.of(
                "`--codec`",
                got=repr(self.codec),
                expected=f"one of {', '.join(known)}",
                do=f"Choose one; packages add theirs in the entry-point group `{ENTRY_POINTS}`.",
            )
        check_tile(self.tile_px)
        require_hours(self.hours)
        codec = self._pyramid_codec() if self.codec == PYRAMID else self._field_codec()
        self._require_weighing(codec)
        return codec

    def _field_codec(self) -> FieldCodec:
        codec = FieldCodec(
            field=self.codec,
            quality=self.quality,
            steps=self.steps if self.steps is not None else _STEPS.get(self.codec, STEPS),
            levels=halvings(self.tile_px) + 1 if self.single_level else LEVELS,
            decoder=self._decoder(),
        )
        # imported and asked for its settings here, before anything is read
        codec.begin(Picture.of(np.zeros((1, 1, 1), np.uint8)))
        return codec

    def _pyramid_codec(self) -> PyramidCodec:
        if find_spec("torch") is None:
            raise ConfigError.of(
                f"`--codec {PYRAMID}`",
                got="no module `torch`",
                expected="it installed",
                do="Run `pip install -e '.[torch]'` in the clone.",
            )
        levels = halvings(self.tile_px) + 1 if self.single_level else 1  # each level has tiles of its own
        if self.weights is None:
            steps = STEPS if self.steps is None else self.steps
            codec = PyramidCodec(quality=self.quality, steps=steps, levels=levels)
            if not steps:
                raise ConfigError.of(
                    "`--steps`", got=0, expected="steps, or networks that encode in one pass", do="Give `--weights`."
                )
            return codec
        if self.quality != QUALITY:
            raise ConfigError.of(
                "`--quality`",
                got=f"{self.quality:g} with `--weights`",
                expected="none: networks are trained for one",
                do="Train others with `tilestream train codec --codec pyramid --quality`, or leave it out.",
            )
        steps = REFINED_STEPS if self.steps is None else self.steps
        return PyramidCodec(steps=steps, levels=levels, shared=load_shared(self.weights))

    def _require_weighing(self, codec: TileCodec) -> None:
        """Raise `ConfigError` where bytes are to go somewhere with a codec that spends them alike everywhere."""
        if self.relevance is not None and not codec.weighs:
            raise ConfigError.of(
                "`--relevance`",
                got=f"it with `--codec {self.codec}`, which is fitted to all pixels alike",
                expected="a codec that weighs errors: pyramid",
                do="Choose --codec pyramid, or leave it out.",
            )

    def _decoder(self) -> str:
        """Return the decoder of the run as text, empty where the codec has none."""
        if (self.codec == SharedField.name) != (self.weights is not None):
            raise ConfigError.of(
                "`--weights`",
                got="none" if self.weights is None else f"`{self.weights}` with `--codec {self.codec}`",
                expected=f"the file of a decoder with `--codec {SharedField.name}`; of others {PYRAMID} alone has one",
                do="Train one with `tilestream train codec`." if self.weights is None else "Leave it out.",
            )
        return "" if self.weights is None else decoder_text(load_decoder(self.weights))


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
    config.tile_codec()
    cohort = without_fields(cohort)
    if not cohort.entries and not cohort.unmatched:
        raise no_inputs(cohort)
    config = replace(config, out=config.out.absolute())
    require_writable(config.out)
    started = time.time()
    tally = Tally(cohort, config.out, suffix=config.suffix)
    course = run_fits(cohort, config, hear=tally.hear, on_event=on_event, client=client)
    rows = tally.rows()
    setting = Setting(command="compress", remote=remote_scheme(cohort))
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
