"""Images into pyramids: one store a slide or scene that OME-Zarr tools, GeoZarr tools, GDAL and xarray open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from distributed import Client

from tilestream.cache import forget_blocks
from tilestream.cluster.client import open_client
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, OutputError
from tilestream.pipelines.cohort import Cohort, Entry, no_inputs, read_cohort
from tilestream.pipelines.course import Course
from tilestream.pipelines.embed import agreement, placed, remote_scheme, threads_of
from tilestream.pipelines.ingest_image import IngestJob, StorePlaces
from tilestream.pipelines.ingest_neural import NEURAL, NeuralOptions, neural_options, require_neural, run_neural
from tilestream.pipelines.report_advice import Setting
from tilestream.pipelines.running import run_jobs
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.pyramid.reducing import MEAN, Reducer
from tilestream.sinks.layout import PROFILES, Profile
from tilestream.sinks.tree import check_place
from tilestream.sources.remotefiles import forget_below
from tilestream.stream.engine import Event
from tilestream.stream.seats import begun_at, taken_seat


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """How images are stored."""

    out: Place
    """Folder of all stores."""
    profile: Profile | Literal["neural"] | None = None
    """None = `archive` where the tiles of the source can be copied, else `portable`; `neural` fits tiles."""
    neural: NeuralOptions | None = None
    """How tiles are fitted, of the profile `neural`; None = as usual."""
    fill_levels: bool = False
    """Whether an archive gets the halvings too that its source does not have."""
    jpegxl: bool = False
    """Whether the JPEG tiles of an archive become JPEG XL, which gives their bytes back."""
    keep_identifying: bool = False
    """Whether label and macro images and identifying metadata go into the store."""
    invalid: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Class layer of scenes → classes or bit rules whose pixels are not valid."""
    decibels: str | None = None
    """`power` or `amplitude`: what the values of radar images are that are to be stored in decibels."""
    cluster: str | None = None
    """Profile of `tilestream.cluster.client.open_client`; None = `threads`."""
    reducer: Reducer = MEAN
    """How coarser levels are made of finer ones."""
    memory_bytes: int | None = None
    """Most bytes one process may hold; None = half of what is free."""
    resume: bool = True
    """Go on from receipts; False replaces what an earlier run has made."""

    def __post_init__(self) -> None:
        if self.profile is not None and self.profile not in (*PROFILES, NEURAL):
            raise ConfigError.of(
                "`profile` (`--profile`)",
                got=repr(self.profile),
                expected=f"one of {', '.join([*PROFILES, NEURAL])}",
                do="Choose one.",
            )
        require_neural(self)
        if self.jpegxl and self.profile not in (None, "archive"):
            raise ConfigError.of(
                "`jpegxl` (`--jpegxl`)",
                got=f"it together with the profile {self.profile}",
                expected="the profile archive, which alone keeps JPEG tiles",
                do="Leave one of the two out.",
            )
        if (self.profile == "archive" or self.jpegxl) and not (self.reducer.is_mean or self.fill_levels):
            raise ConfigError.of(
                "`filter` (`--filter`, `--light`)",
                got=f"{self.reducer.filter} for an archive, whose levels are those of its source",
                expected="levels that are made",
                do="Leave --profile out, choose portable, or give --fill-levels.",
            )

    def pixel_profile(self) -> Profile | None:
        """Return the profile of a store that is made of pixels alone; raise `ConfigError` where nothing is."""
        if self.profile == NEURAL:
            raise ConfigError.of(
                "an update",
                got=f"the profile {NEURAL}",
                expected="one whose chunks are made of pixels alone",
                do="Leave --update out, and give --no-resume.",
            )
        return self.profile


@dataclass(frozen=True, kw_only=True)
class StoreRow:
    """What became of one input."""

    key: str
    """Its name."""
    url: str
    """Where it was read."""
    store: str
    """Where its store is, or would be."""
    status: str
    """`done` or `failed`."""
    reason: str = ""
    """Why it failed."""
    summary: Mapping[str, Any] | None = None
    """What the finished store is."""

    @property
    def damaged(self) -> tuple[str, ...]:
        """Return the reason of each block that could not be decoded."""
        return tuple((self.summary or {}).get("damaged", ()))


def ingest_cohort(paths: Sequence[str], *, manifest: str | None, config: IngestConfig) -> Cohort:
    """Return the inputs of an ingest; stores that an earlier run has put beside their images are none.

    Parameters
    ----------
    paths : sequence of str
        Files, folders and URLs.
    manifest : str, optional
        As for `read_cohort`.
    config : IngestConfig
        Where the stores go.

    Returns
    -------
    Cohort
        The inputs.

    Raises
    ------
    ConfigError, SourceError
        As `read_cohort` raises them.
    """
    out = config.out.path.absolute() if config.out.is_local else None
    cohort = read_cohort(paths, manifest=manifest, out=out)
    if out is None:
        return cohort
    place = Place.of(out)
    stores = {StorePlaces.of(place, entry.key).root.url for entry in cohort.entries}
    ours = [entry for entry in cohort.entries if str(Path(entry.url).absolute()) in stores and _is_ours(entry.url)]
    entries = tuple(entry for entry in cohort.entries if entry not in ours)
    ignored = tuple((entry.url, "a store that an earlier ingest has put there") for entry in ours)
    return replace(cohort, entries=entries, ignored=(*cohort.ignored, *ignored))


def _is_ours(url: str) -> bool:
    try:
        return check_place(Place.of(url)) is not None
    except OutputError:
        return False


def run_ingest(
    cohort: Cohort,
    config: IngestConfig,
    *,
    on_event: Callable[[Event], None] | None = None,
    client: Client | None = None,
    has_metrics: bool = True,
) -> tuple[StoreRow, ...]:
    """Return what became of each input when all are stored.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    config : IngestConfig
        How they are stored.
    on_event : callable, optional
        Hears of every unit and image; for progress.
    client : distributed.Client, optional
        Where to run; by default one is opened for `config.cluster` and closed again.
    has_metrics : bool
        Whether a local folder gets a `metrics.prom`.

    Returns
    -------
    tuple of StoreRow
        In the order of the inputs; one that fails never stops the others.

    Raises
    ------
    ConfigError
        When there is nothing to do.
    OutputError
        When `config.out` cannot be written.

    Notes
    -----
    An interrupt leaves receipts behind: the same call goes on from there, and several processes that make it at once
    share the work.
    """
    if not cohort.entries:
        raise no_inputs(cohort)
    out = Place.of(str(config.out.path.absolute())) if config.out.is_local else config.out
    config = replace(config, out=out)
    out.prepare()
    rows: dict[str, StoreRow] = {}

    def hear(event: Event) -> None:
        if event.kind in ("skipped", "finished", "failed"):
            entry = entries[event.job.key]
            rows[entry.key] = _row(entry, config, event)

    entries = {entry.key: entry for entry in map(placed, cohort.entries)}
    if config.profile == NEURAL:
        run_neural(cohort, config, hear=hear, on_event=on_event, client=client, has_metrics=has_metrics)
        return tuple(rows[key] for key in entries)
    with ExitStack() as stack:
        client = client or stack.enter_context(open_client(config.cluster or "threads"))
        tasks = threads_of(client)
        stack.enter_context(agreement(client, cohort.entries, out=config.out))
        begin_at = stack.enter_context(taken_seat(out.at("receipts")))
        jobs = (IngestJob(entry=entry, config=config, tasks=tasks) for entry in begun_at([*entries.values()], begin_at))
        course = Course(images=len(entries), noun="super-tile")
        told = out.path if out.is_local and has_metrics else None
        run_jobs(client, jobs, course=course, hear=hear, on_event=on_event, out=told)
    return tuple(rows[key] for key in entries)


def ingest_setting(cohort: Cohort, config: IngestConfig) -> Setting:
    """Return what of an ingest decides which knob there is for its bottleneck.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    config : IngestConfig
        How they are stored.

    Returns
    -------
    Setting
        For `report_advice.findings`.
    """
    return Setting(command="ingest", remote=remote_scheme(cohort), is_remote_out=not config.out.is_local)


def _row(entry: Entry, config: IngestConfig, event: Event) -> StoreRow:
    store = StorePlaces.of(config.out, entry.key).root.url
    if event.failure is not None:
        reason = event.failure.reason + event.failure.trace
        return StoreRow(key=entry.key, url=entry.url, store=store, status="failed", reason=reason)
    return StoreRow(key=entry.key, url=entry.url, store=store, status="done", summary=event.result)


def build_pyramid(  # noqa: PLR0913 - the public call: each option of a store is one keyword
    src: str | Path,
    dst: str | Path,
    *,
    profile: Profile | Literal["neural"] | None = None,
    quality: float | None = None,
    max_error: int | None = None,
    steps: int | None = None,
    weights: str | Path | None = None,
    single_level: bool = False,
    fill_levels: bool = False,
    jpegxl: bool = False,
    keep_identifying: bool = False,
    filter: str = "box",
    light: str = "stored",
    resume: bool = True,
    client: Client | None = None,
) -> Pyramid:
    """Return the pyramid of an image after it is stored.

    Parameters
    ----------
    src : str or path
        Any slide, scene, Zarr or picture, local or an fsspec URL.
    dst : str or path
        The store, a folder whose name ends in `.zarr`, local or an fsspec URL. `receipts/` beside it is how a call that
        was interrupted goes on.
    profile : {"archive", "portable", "gdal", "neural"}, optional
        Undecoded tiles of the source in shards; zstd in shards; zstd without shards; networks fitted to tiles, with
        loss. By default the first where it can be, else the second.
    quality : float, optional
        Of the profile neural: 1 to 100, as its codec understands it; 50 by default.
    max_error : int, optional
        Of the profile neural, instead of a quality: the largest error of any valid sample of each stored level, 0
        being lossless. No network is fitted unless there are `steps`.
    steps : int, optional
        Of the profile neural: steps of the fit of each tile; as many as its codec needs by default.
    weights : str or path, optional
        Of the profile neural: file of networks that all tiles share, which `tilestream train codec` has written.
    single_level : bool
        Of the profile neural: whether level 0 alone is stored, of which tilestream makes the others.
    fill_levels : bool
        Whether an archive gets the halvings too that its source does not have.
    jpegxl : bool
        Whether the JPEG tiles of an archive become JPEG XL: about a quarter fewer bytes, from which every tile comes
        back as it was, to the byte. Readers need tilestream.
    keep_identifying : bool
        Whether label and macro images and identifying metadata are stored.
    filter : str
        How coarser levels are made: `box` (exact means), `binomial`, `kaiser` or `lanczos`, or a file that `tilestream
        train downsample` has written. With other than means the default profile is `portable`.
    light : {"stored", "linear", "density"}
        What is averaged: samples as they are, or the linear light or optical density that 8 bits of sRGB stand for.
    resume : bool
        Go on from an earlier call; False replaces what that has made.
    client : distributed.Client, optional
        Where to run; by default one thread a core of this process.

    Returns
    -------
    Pyramid
        The stored image.

    Raises
    ------
    ConfigError
        When the profile cannot be met.
    OutputError
        When the image cannot be opened or stored, or another recipe has been begun there; the message says why.

    Examples
    --------
    >>> import tilestream as ts
    >>> ts.build_pyramid("slide.svs", "slide.zarr", profile="portable")  # doctest: +SKIP
    """
    if not isinstance(src, str | PathLike):
        raise ConfigError.of(
            "`src`",
            got=f"{type(src).__name__} of shape {np.shape(src)}",
            expected="path or URL of an image",
            do="Write it to a file first: `zarr.save_array('image.zarr', a)` with its channels first, then give that.",
        )
    place = Place.of(str(dst))
    out, _, name = place.url.rpartition("/")
    if not name.endswith(".zarr"):
        raise ConfigError.of("`dst`", got=f"`{dst}`", expected="a name that ends in .zarr", do="Name it so.")
    config = IngestConfig(
        out=Place.of(out or "."),
        profile=profile,
        neural=neural_options(
            quality=quality, max_error=max_error, steps=steps, weights=weights, single_level=single_level
        ),
        fill_levels=fill_levels,
        jpegxl=jpegxl,
        keep_identifying=keep_identifying,
        reducer=Reducer.of(filter, light=light),
        resume=resume,
    )
    entry = Entry(key=name, url=str(src), id=name, is_explicit=True)
    (row,) = run_ingest(Cohort(entries=(entry,)), config, client=client, has_metrics=False)
    if row.status == "failed":
        raise OutputError(row.reason)
    forget_below(row.store)
    forget_blocks()
    return open_pyramid(row.store)
