"""One image on its way into a store: opened, laid out, and finished when all its units are done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tilestream.codecs.metadata import encode_json, group_metadata
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, DamagedError, OutputError
from tilestream.pipelines.cohort import Entry
from tilestream.pipelines.image import chosen
from tilestream.pipelines.ingest_finish import FinishStore, icc_entry, summary_of
from tilestream.pipelines.ingest_size import project_store
from tilestream.pipelines.ingest_work import IngestWork, Member
from tilestream.pipelines.recipe import digest, image_recipe, new_recipe
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.pyramid.reducing import Reducer
from tilestream.sinks.facts import json_value
from tilestream.sinks.layout import STORE_NAMES, TIER, Profile, StoreLayout, archive_layout, label_layout, made_layout
from tilestream.sinks.omelabels import VALID
from tilestream.sinks.pyramid import LevelWriter
from tilestream.sinks.store import coordinates, encode_values, label_attributes, nodes, picture
from tilestream.sinks.tree import check_place, clear_staging, refuse_replacing, staging_of
from tilestream.sources.encoded import archive_reason
from tilestream.sources.extras import associated_names, read_associated, read_extras
from tilestream.sources.stamps import Stamp, stamps_of
from tilestream.sources.zarrcopy import with_chunks
from tilestream.stream.engine import Prepared
from tilestream.stream.journal import Journal
from tilestream.types import Array, ClassBand, ImageInfo, Source

if TYPE_CHECKING:
    from tilestream.pipelines.ingest import IngestConfig


@dataclass(frozen=True, kw_only=True)
class StorePlaces:
    """Where a store and its receipts lie."""

    root: Place
    """The store."""
    journal: Place
    """Its receipts."""

    @classmethod
    def of(cls, out: Place, key: str) -> StorePlaces:
        """Return the places of the image `key` under `out`."""
        name = key if key.endswith(".zarr") else f"{key}.zarr"
        return cls(root=out.at(name), journal=out.at("receipts", name))


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An image that is open and laid out; nothing is written yet."""

    pyramid: Pyramid
    """The image."""
    profile: Profile
    """How it is stored."""
    layout: StoreLayout
    """Its arrays."""
    labels: Mapping[str, Pyramid]
    """Class rasters on its grid by name."""
    recipe: Mapping[str, Any]
    """All that its bytes are a function of."""
    choices: Mapping[str, Any]
    """How the user wanted it, which an update has to want too; JSON values."""


def open_image(entry: Entry, config: IngestConfig) -> Opened:
    """Return an image laid out for its store.

    Parameters
    ----------
    entry : Entry
        The input.
    config : IngestConfig
        How it is to be stored.

    Returns
    -------
    Opened
        Only headers were read, and of a source that can be archived a tile of each level.

    Raises
    ------
    ConfigError
        When the profile cannot be met.
    SourceError
        When it cannot be opened.
    """
    pyramid = open_pyramid(entry.url, cache_bytes=0)
    pyramid = chosen(pyramid, entry, config)
    if config.jpegxl or config.profile == "archive":  # a store is copied once more only where it is asked for
        pyramid = replace(pyramid, source=with_chunks(pyramid.source))
    reason = archive_reason(pyramid.source)
    wanted: Profile | None = "archive" if config.jpegxl else config.pixel_profile()
    config.reducer.require(pyramid.info, what=entry.key)
    # an archive keeps the levels of its source: whoever chooses how levels are made wants them made
    profile: Profile = wanted or ("archive" if not reason and config.reducer.is_mean else "portable")
    if profile == "archive" and reason:
        raise ConfigError.of(
            f"`{'--jpegxl' if config.jpegxl else '--profile archive'}` of `{entry.url}`",
            got=reason,
            expected="tiles that can be copied as they are stored",
            do="Leave it out, or choose --profile portable.",
        )
    layout = _layout(pyramid, profile, config)
    if config.jpegxl and all(level.transcoding is None for level in layout.levels):
        raise ConfigError.of(
            f"`--jpegxl` of `{entry.url}`",
            got=f"tiles coded by `{layout.levels[0].codecs[-2]['name']}`",
            expected="JPEG tiles, which JPEG XL can give back",
            do="Leave --jpegxl out for this image.",
        )
    return Opened(
        pyramid=pyramid,
        profile=profile,
        layout=layout,
        labels={band.name: pyramid.classes(band.name) for band in pyramid.info.classes},
        recipe=_recipe(pyramid, profile, layout, config),
        choices={
            "bands": list(entry.bands),
            "mpp": entry.mpp,
            "light": entry.light,
            "invalid": {layer: list(classes) for layer, classes in config.invalid.items()},
            "decibels": config.decibels,
            "fill_levels": config.fill_levels,
            **_jpegxl_entry(config),
            "keep_identifying": config.keep_identifying,
            **_filter_entry(config.reducer),
        },
    )


def _jpegxl_entry(config: IngestConfig) -> dict[str, Any]:
    """Return the entry of the choice of JPEG XL; none without, so that recipes stay what they were."""
    return {"jpegxl": True} if config.jpegxl else {}


def _filter_entry(reducer: Reducer) -> dict[str, Any]:
    """Return the entry of how levels are made; none for means, so that recipes stay what they were."""
    return {} if reducer.is_mean else {"filter": reducer.record()}


def _layout(pyramid: Pyramid, profile: Profile, config: IngestConfig) -> StoreLayout:
    if profile == "archive":
        return archive_layout(pyramid.source, fill_levels=config.fill_levels, jpegxl=config.jpegxl)
    return made_layout(pyramid.info, has_shards=profile == "portable")


def _recipe(pyramid: Pyramid, profile: Profile, layout: StoreLayout, config: IngestConfig) -> dict[str, Any]:
    return new_recipe(
        image=image_recipe(pyramid.info),
        channels=[channel.name for channel in pyramid.channels],
        store={
            "profile": profile,
            "keep_identifying": config.keep_identifying,
            **_jpegxl_entry(config),
            **_filter_entry(config.reducer),
            "levels": [
                {"shape": list(level.shape.yx), "chunk": list(level.chunk.yx), "chunks": level.chunks}
                for level in layout.levels
            ],
        },
    )


@dataclass(frozen=True, kw_only=True)
class IngestJob:
    """One input of a run; `prepare` runs on a worker."""

    entry: Entry
    """The input."""
    config: IngestConfig
    """How it is to be stored."""
    tasks: int
    """Tasks that run at once in one process."""

    @property
    def key(self) -> str:
        """Return the name of the input, which its store carries too."""
        return self.entry.key

    def prepare(self) -> Prepared | Mapping[str, Any]:
        """Return the image ready to be written, or the summary of one that an earlier run has finished."""
        started = time.perf_counter()
        places, resume = StorePlaces.of(self.config.out, self.key), self.config.resume
        if places.root.url == self.entry.url.rstrip("/"):
            raise ConfigError.of(
                f"`{self.entry.url}`", got="itself as its store", expected="another place", do="Choose another --out."
            )
        opened = open_image(self.entry, self.config)
        stamps = stamps_of(opened.pyramid.source)
        journal = Journal(root=places.journal, recipe=digest(opened.recipe))
        done = finished_store(places, journal) if resume else None
        if done is not None:
            return done
        halo_px = self.config.reducer.halo_px(TIER)
        projected = project_store(opened.pyramid, opened.layout, halo_px=halo_px)
        projected.require(places.root, tasks=self.tasks, memory_bytes=self.config.memory_bytes, what=self.key)
        journal.open(opened.recipe, replace=not resume, begin=lambda: clear_begun(places.root, resume=resume))
        done = finished_store(places, journal) if resume else None  # by another run, meanwhile
        if done is not None:
            return done
        if journal.summary() is not None and check_place(places.root) is None:
            journal.reopen()  # the store was removed by hand: its units are found to be lost, and done again
        finish = begin_store(opened, self.config, places, staging=staging_of(places.root), stamps=stamps)
        work = finish.work
        plan = work.image.plan
        return Prepared(
            plan=plan,
            work=work,
            finish=finish,
            facts={
                "units": len(plan),
                "pixels": opened.layout.levels[0].shape.area,
                "plan_s": time.perf_counter() - started,
                "profile": opened.profile,
                **asdict(projected),
            },
        )


def finished_store(places: StorePlaces, journal: Journal) -> Mapping[str, Any] | None:
    """Return the summary of the store where it is finished under this recipe; raise where it must be kept."""
    record = check_place(places.root)
    if record is None:
        return None
    if "updating" in record:
        raise OutputError.of(
            f"`{places.root.url}`",
            got="a store whose update has not come to its end",
            expected="a whole one",
            do="Run the update again, or give `--no-resume` to store the image anew.",
        )
    if record.get("recipe_digest") == journal.recipe:
        return journal.summary() or summary_of(record)
    return None


def clear_begun(root: Place, *, resume: bool) -> None:
    """Clear what an earlier run has left, while no other run can begin; on object storage that is the store itself."""
    if resume and check_place(root) is not None:
        refuse_replacing(root.url)
    clear_staging(root, names=STORE_NAMES)


def begin_store(
    opened: Opened, config: IngestConfig, places: StorePlaces, *, staging: Place, stamps: tuple[Stamp, ...] = ()
) -> FinishStore:
    """Return what writes and finishes a store, after its groups and arrays have their metadata.

    Parameters
    ----------
    opened : Opened
        The image.
    config : IngestConfig
        How it is to be stored.
    places : StorePlaces
        Where its store and receipts lie.
    staging : Place
        Where the store is built.
    stamps : tuple of Stamp
        Files of the image as they were when it was opened.

    Returns
    -------
    FinishStore
        The same whoever begins it.
    """
    journal = Journal(root=places.journal, recipe=digest(opened.recipe))
    work = replace(_work(opened, staging, journal, stamps), reducer=config.reducer)
    keep = config.keep_identifying
    pictures, damaged = _pictures(opened.pyramid.source) if keep else ({}, {})
    return FinishStore(
        work=work,
        place=places.root,
        profile=opened.profile,
        documents=_write_documents(opened, staging, work, pictures),
        more={**_more(opened, keep_identifying=keep), **_listed(pictures, damaged), "choices": opened.choices},
        replace=not config.resume,
    )


def _work(opened: Opened, staging: Place, journal: Journal, stamps: tuple[Stamp, ...]) -> IngestWork:
    image = Member(pyramid=opened.pyramid, writer=LevelWriter(place=staging, prefix="", layout=opened.layout))
    labels = tuple(
        Member(
            pyramid=raster,
            writer=LevelWriter(
                place=staging,
                prefix=f"labels/{name}/",
                layout=label_layout(raster.info, opened.layout),
            ),
        )
        for name, raster in sorted(opened.labels.items())
    )
    work = IngestWork(image=image, labels=labels, staging=staging, journal=journal, stamps=stamps)
    return replace(work, mask_documents=raster_documents(opened.pyramid.info, work.mask, VALID))


def raster_documents(info: ImageInfo, writer: LevelWriter, band: ClassBand) -> dict[str, Any]:
    """Return the metadata of a mask or class raster below `labels/`."""
    return {
        writer.prefix.rstrip("/"): group_metadata(label_attributes(info, writer.layout, band)),
        **nodes(info, writer.layout, prefix=writer.prefix, band=band),
    }


def _write_documents(opened: Opened, staging: Place, work: IngestWork, pictures: Mapping[str, Array]) -> dict[str, Any]:
    """Write the metadata of all groups and arrays but the root's, and return them: the same whoever writes them."""
    info = opened.pyramid.info
    documents = nodes(info, opened.layout)
    bands = {band.name: band for band in info.classes}
    for member in work.labels:
        documents |= raster_documents(info, member.writer, bands[member.writer.prefix.split("/")[1]])
    for name, pixels in pictures.items():
        # a group each, like the levels: xarray opens no group whose arrays differ in size
        documents["associated"] = documents[f"associated/{name}"] = group_metadata()
        documents[f"associated/{name}/image"], data = picture(pixels)
        staging.put(f"associated/{name}/image/c/0/0/0", data)
    if opened.profile == "gdal":
        for path, document, values in coordinates(info, opened.layout):
            documents[path] = document
            staging.put(f"{path}/c/0", encode_values(values))
    put_documents(staging, documents)
    return documents


def put_documents(staging: Place, documents: Mapping[str, Any]) -> None:
    """Write metadata by path, those that are there already left alone."""
    for path, document in sorted(documents.items()):
        text = encode_json(document)
        if staging.get(f"{path}/zarr.json") != text:
            staging.put(f"{path}/zarr.json", text)


def _pictures(source: Source) -> tuple[dict[str, Array], dict[str, str]]:
    """Return label, macro and thumbnail, and the reason for each that cannot be decoded: it costs no slide."""
    pictures, damaged = {}, {}
    for name in associated_names(source, keep_identifying=True):
        try:
            pictures[name] = read_associated(source, name, keep_identifying=True)
        except DamagedError as error:
            damaged[name] = str(error)
    return pictures, damaged


def _listed(pictures: Mapping[str, Array], damaged: Mapping[str, str]) -> dict[str, Any]:
    """Return what a store says of its associated images; reading them needs their names."""
    listed = {"associated": sorted(pictures), "associated_damaged": dict(damaged)}
    return {name: value for name, value in listed.items() if value}


def _more(opened: Opened, *, keep_identifying: bool) -> dict[str, Any]:
    """Return what our own record says besides the image: how its colours are meant, and what made it."""
    extras = read_extras(opened.pyramid.source)
    more: dict[str, Any] = {"technical": dict(extras.technical)} if extras.technical else {}
    if keep_identifying and extras.identifying:
        more["identifying"] = json_value(extras.identifying)
    return {**more, **icc_entry(extras.icc)}
