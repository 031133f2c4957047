"""One image on its way into a store of fields: opened, laid out, and refused where time or room will not do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tilestream.codecs.fields.picture import DTYPES, MOST_CHANNELS
from tilestream.codecs.tilecodec import TileCodec
from tilestream.errors import ConfigError
from tilestream.metrics import Meter, collect
from tilestream.pipelines.cohort import Entry
from tilestream.pipelines.compress_finish import FinishFields
from tilestream.pipelines.compress_layout import FieldPlan
from tilestream.pipelines.compress_size import forecast_store
from tilestream.pipelines.compress_work import CompressWork, FieldMember
from tilestream.pipelines.image import chosen
from tilestream.pipelines.ingest_finish import icc_entry
from tilestream.pipelines.ingest_image import StorePlaces, clear_begun, finished_store, put_documents, raster_documents
from tilestream.pipelines.map_store import NO_RECEIPTS
from tilestream.pipelines.reading import stored_bytes
from tilestream.pipelines.recipe import digest, image_recipe, new_recipe
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sinks.fieldstore import field_layout, field_nodes
from tilestream.sinks.layout import StoreLayout
from tilestream.sinks.omelabels import VALID
from tilestream.sinks.pyramid import LevelWriter
from tilestream.sinks.tiling import Tiling
from tilestream.sinks.tree import check_place, staging_of
from tilestream.sources.extras import read_extras
from tilestream.sources.stamps import Stamp, stamps_of
from tilestream.stream.engine import Prepared
from tilestream.stream.journal import Journal
from tilestream.types import ImageInfo

if TYPE_CHECKING:
    from tilestream.pipelines.compress import CompressConfig

SUFFIX = ".field.zarr"
"""What the names of stores of fields end in, behind the whole name of an input."""


def require_fit(info: ImageInfo, codec: TileCodec) -> None:
    """Raise `ConfigError` unless tiles of a codec can stand for the samples of an image.

    Parameters
    ----------
    info : ImageInfo
        The image.
    codec : TileCodec
        What makes bytes of its tiles.
    """
    if info.dtype.kind == "f" and codec.settings.get("max_error") is not None:
        raise ConfigError.of(
            "`--max-error`",
            got=f"an image of {info.dtype.name}",
            expected="whole numbers, whose errors can be bounded",
            do="Give --quality instead, or store it without loss by `tilestream ingest`.",
        )
    if info.dtype.name not in DTYPES or len(info.channels) > MOST_CHANNELS:
        raise ConfigError.of(
            "an image as fields",
            got=f"{len(info.channels)} channels of {info.dtype.name}",
            expected=f"1 to {MOST_CHANNELS} channels of {', '.join(DTYPES)}",
            do="Choose channels by the column `bands` of a manifest, or store it with `tilestream ingest`.",
        )


@dataclass(frozen=True, kw_only=True)
class CompressJob:
    """One input of a run; `prepare` runs on a worker."""

    entry: Entry
    """The input."""
    config: CompressConfig
    """How it is to be stored."""
    codec: TileCodec
    """What makes bytes of its tiles."""
    tasks: int
    """Tasks that run at once in one process."""
    threads: int
    """Tasks that run at once on the whole cluster."""

    @property
    def key(self) -> str:
        """Return the name of the input, which its store begins with."""
        return self.entry.key

    def prepare(self) -> Prepared | Mapping[str, Any]:
        """Return the image ready to be fitted, or the summary of one that an earlier run has finished."""
        with collect() as meter:
            return self._prepare(meter, time.perf_counter())

    def _prepare(self, meter: Meter, started: float) -> Prepared | Mapping[str, Any]:
        config, resume = self.config, self.config.resume
        pyramid = open_pyramid(self.entry.url)
        stamps = stamps_of(pyramid.source)
        pyramid = chosen(pyramid, self.entry, config)
        require_fit(pyramid.info, self.codec)
        output = store_name(self.key, config.suffix)
        places = StorePlaces.of(config.place, output)
        layout = field_layout(pyramid.info, self.codec, tiling=self._tiling(pyramid))
        recipe = self._recipe(pyramid)
        journal = Journal(root=places.journal, recipe=digest(recipe))
        done = finished_fields(places, journal, output=output) if resume else None
        if done is not None:
            return done
        if resume:
            journal.require_same(recipe)  # before anything is fitted for the forecast
        receipts = list(journal.receipts().values()) if resume else []
        plan = FieldPlan(layout=layout)
        emphasis = None if config.relevance is None else config.relevance.of_image(pyramid)
        forecast = forecast_store(pyramid, plan, self.codec, threads=self.threads, done=receipts, emphasis=emphasis)
        forecast.require(
            places.root, tasks=self.tasks, memory_bytes=config.memory_bytes, hours=config.hours, what=self.key
        )
        journal.open(recipe, replace=not resume, begin=lambda: clear_begun(places.root, resume=resume))
        done = finished_fields(places, journal, output=output) if resume else None  # by another run, meanwhile
        if done is not None:
            return done
        if journal.summary() is not None and check_place(places.root) is None:
            journal.reopen()  # the store was removed by hand: its tiles are found to be lost, and done again
        work = replace(self._work(pyramid, layout, journal, places, stamps), emphasis=emphasis)
        plan_s = time.perf_counter() - started
        image_bytes = stored_bytes(self.entry.url, pyramid)
        finish = FinishFields(
            work=work,
            place=places.root,
            profile="portable",
            documents=_write_documents(work, layout),
            more={**_more(pyramid), **self._relevance_entry()},
            replace=not resume,
            output=output,
            image_bytes=image_bytes,
            told=() if emphasis is None else emphasis.scores.notes,
            planned={"bytes": meter.counts.get("bytes_read", 0), "seconds": plan_s},
        )
        return Prepared(
            plan=plan,
            work=work,
            finish=finish,
            facts={
                "tiles": len(plan),
                "units": len(plan),
                "pixels": sum(level.shape.area for level in layout.levels),
                "plan_s": plan_s,
                "forecast": forecast,
                "dtype": pyramid.dtype.name,
                "channels": len(pyramid.channels),
                "image_bytes": image_bytes,
            },
        )

    def _work(
        self, pyramid: Pyramid, layout: StoreLayout, journal: Journal, places: StorePlaces, stamps: tuple[Stamp, ...]
    ) -> CompressWork:
        staging, info = staging_of(places.root), pyramid.info
        work = CompressWork(
            image=FieldMember(pyramid=pyramid, writer=LevelWriter(place=staging, prefix="", layout=layout)),
            staging=staging,
            journal=journal,
            stamps=stamps,
            codec=self.codec,
            tiling=self._tiling(pyramid),
        )
        return replace(work, mask_documents=raster_documents(info, work.mask, VALID))

    def _tiling(self, pyramid: Pyramid) -> Tiling:
        return Tiling.of(pyramid.info.shape, tile_px=self.config.tile_px, step=self.config.level_step)

    def _recipe(self, pyramid: Pyramid) -> dict[str, Any]:
        return new_recipe(
            image=image_recipe(pyramid.info),
            channels=[channel.name for channel in pyramid.channels],
            store={
                "profile": "field",
                "tile_px": self.config.tile_px,
                "level_step": self.config.level_step,
                "codec": dict(self.codec.settings),
                **self._relevance_entry(),
            },
        )

    def _relevance_entry(self) -> dict[str, Any]:
        """Return the entry of where bytes go; none without, so that recipes stay what they were."""
        relevance = self.config.relevance
        return {} if relevance is None else {"relevance": dict(relevance.recipe)}


def store_name(key: str, suffix: str) -> str:
    """Return the path of a store in the folder of all outputs; an image that is a Zarr keeps its name as a Zarr's."""
    return key if suffix == ".zarr" and key.endswith(suffix) else f"{key}{suffix}"


def finished_fields(places: StorePlaces, journal: Journal, *, output: str) -> Mapping[str, Any] | None:
    """Return the summary of a store that is finished under this recipe, None where it is not.

    Parameters
    ----------
    places : StorePlaces
        Where it lies.
    journal : Journal
        Of this recipe.
    output : str
        Path of the store in the folder of all outputs.

    Returns
    -------
    Mapping or None
        As `FinishFields.summary`; of a store whose receipts are gone, what its own record says.
    """
    done = finished_store(places, journal)
    if done is None or "tiles" in done:
        return done
    record = check_place(places.root) or {}
    quality = record.get("quality")
    nothing = {"shape_yx": [0, 0], "damaged": {}, "cache": {}, "supertiles_total": 0}
    coded = {"codec": record.get("codec", ""), **(quality if isinstance(quality, Mapping) else {})}
    known = {"format": done["format"], "crs": done["crs"], "coded": coded}
    return {**nothing, **known, "outputs": [output], "notes": [NO_RECEIPTS]}


def _write_documents(work: CompressWork, layout: StoreLayout) -> dict[str, Any]:
    """Write the metadata of all groups and arrays but the root's, and return them: the same whoever writes them."""
    documents = field_nodes(work.image.info, layout)
    put_documents(work.staging, documents)
    return documents


def _more(pyramid: Pyramid) -> dict[str, Any]:
    """Return what our own record says besides: how colours are meant, and facts that identify nobody."""
    extras = read_extras(pyramid.source)
    technical = {"technical": dict(extras.technical)} if extras.technical else {}
    return {**technical, **icc_entry(extras.icc)}
