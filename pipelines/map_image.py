"""One image on its way into a map: opened, planned, tried on a few tiles, and laid out."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilestream.errors import ConfigError
from tilestream.grid import super_tile_edge
from tilestream.metrics import Meter, collect
from tilestream.pipelines.cohort import Entry
from tilestream.pipelines.encoder import Encoder, choose_encoder
from tilestream.pipelines.image import chosen
from tilestream.pipelines.ingest_image import StorePlaces
from tilestream.pipelines.map_store import MapRequest, MapTiles, finished_map, prepare_map
from tilestream.pipelines.recipe import digest, file_digest, image_recipe, new_recipe
from tilestream.plan.levels import target_mpp
from tilestream.plan.selection import Selection
from tilestream.plan.tiles import TilePlan, plan_tiles
from tilestream.plan.where import select
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sources.patchfiles import is_patch_file
from tilestream.sources.stamps import stamps_of
from tilestream.stream.engine import Prepared
from tilestream.stream.journal import Journal
from tilestream.types import StageContract

if TYPE_CHECKING:
    from tilestream.pipelines.map_run import MapConfig

COARSE_UNITS = 4
"""Maps at a stride have units that are up to so many times as wide, since their chunks would be small otherwise."""


def tiles_for(
    contract: StageContract, *, tile_px: int | None, halo_px: int | None, is_blended: bool
) -> tuple[int, int]:
    """Return core and halo of the tiles of a stage.

    Parameters
    ----------
    contract : StageContract
        What the stage states: `px` is a tile with its halo.
    tile_px : int, optional
        Edge of a core that the user wants.
    halo_px : int, optional
        Halo that the user wants.
    is_blended : bool
        Whether tiles are feathered over each other, by default over an eighth of `px` on each side.

    Returns
    -------
    tuple of int
        Core and halo, px.

    Raises
    ------
    ConfigError
        When the halo leaves nothing of the tile.
    """
    stride = contract.stride
    if halo_px is None:
        halo_px = -(-contract.halo_px // stride) * stride
        if is_blended:
            halo_px += max(1, contract.px // 8 // stride) * stride
    core = contract.px - 2 * halo_px if tile_px is None else tile_px
    if core < stride:
        raise ConfigError.of(
            "`--halo`",
            got=f"{halo_px} px on each side of tiles of {contract.px} px",
            expected="a halo that leaves something of the tile",
            do="Give a smaller --halo, or with --tile the edge of what is left between the halos.",
        )
    return core, halo_px


@dataclass(frozen=True, kw_only=True)
class MapJob:
    """One input of a run; `prepare` runs on a worker."""

    entry: Entry
    """The input."""
    config: MapConfig
    """What to make of it."""
    name: str
    """Of the stage."""
    tasks: int
    """Tasks that run at once in one process."""
    machine_tasks: int = sys.maxsize
    """Those that run at once on one machine."""

    @property
    def key(self) -> str:
        """Return the name of the input, which its store begins with."""
        return self.entry.key

    def prepare(self) -> Prepared | Mapping[str, Any]:
        """Return the planned image, or the summary of a map that an earlier run has finished."""
        with collect() as meter:
            return self._prepare(meter, time.perf_counter())

    def _prepare(self, meter: Meter, started: float) -> Prepared | Mapping[str, Any]:
        config = self.config
        pyramid = open_pyramid(self.entry.url, cache_bytes=config.cache_bytes)
        stamps = stamps_of(pyramid.source)
        pyramid = chosen(pyramid, self.entry, config)
        encoder = choose_encoder(config.stage, config.stage_params, pyramid.info, output="dense")
        recipe = self._recipe(pyramid, encoder)
        output = f"{self.key}.{self.name}.zarr"
        places = StorePlaces.of(config.place, output)
        journal = Journal(root=places.journal, recipe=digest(recipe))
        done = finished_map(places, journal, output=output) if config.resume else None
        if done is not None:
            return done
        request = MapRequest(
            tiles=MapTiles(
                pyramid=pyramid,
                plan=self._plan(pyramid, encoder),
                encoder=encoder,
                is_blended=config.blend,
                batch=config.batch,
                stamps=stamps,
            ),
            recipe=recipe,
            places=places,
            output=output,
            tasks=self.tasks,
            machine_tasks=self.machine_tasks,
            memory_bytes=config.memory_bytes,
            resume=config.resume,
            planned={"bytes": meter.counts.get("bytes_read", 0), "seconds": time.perf_counter() - started},
        )
        return prepare_map(request)

    @property
    def _where(self) -> str:
        return self.entry.mask or self.config.where

    def _tiles(self, contract: StageContract) -> tuple[int, int]:
        config = self.config
        return tiles_for(contract, tile_px=config.tile_px, halo_px=config.halo_px, is_blended=config.blend)

    def _plan(self, pyramid: Pyramid, encoder: Encoder) -> TilePlan:
        config, contract = self.config, encoder.contract
        tile_px, halo_px = self._tiles(contract)
        edge = config.super_tile_px
        if edge is None:  # a region of a hierarchy is work enough by itself
            edge = super_tile_edge(tile_px) * (1 if contract.keeps_place else min(contract.stride, COARSE_UNITS))
        where: str | Selection = self._where
        if is_patch_file(self._where):  # a map has tiles of its own, over the area that the patches cover
            where = select(pyramid, self._where, tile_level0_px=float(tile_px))
        return plan_tiles(
            pyramid,
            tile_px=tile_px,
            mpp=config.mpp or target_mpp(contract, pyramid.info),
            halo_px=halo_px,
            where=where,
            super_tile_px=edge,
            needs_mpp=contract.needs_mpp,
        )

    def _recipe(self, pyramid: Pyramid, encoder: Encoder) -> dict[str, Any]:
        config, contract, where = self.config, encoder.contract, Path(self._where)
        tile_px, halo_px = self._tiles(contract)
        return new_recipe(
            image=image_recipe(pyramid.info),
            channels=[channel.name for channel in pyramid.channels],
            plan={
                "tile_px": tile_px,
                "halo_px": halo_px,
                "mpp": config.mpp or target_mpp(contract, pyramid.info),
                "where": file_digest(where) if where.is_file() else self._where,
                "super_tile_px": config.super_tile_px,
                "blend": config.blend,
            },
            stages={encoder.name: dict(encoder.recipe)},
        )
