"""Tiles of a finished feature store as they came from the workers, and the image and plan that it tells of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from tilestream.grid import TileGrid
from tilestream.sinks.facts import PlanFacts, stored_cells
from tilestream.sinks.featureread import StoredFeatures
from tilestream.sinks.features import SCALARS
from tilestream.types import Array, Box, Channel, ClassBand, ImageInfo, Level, PlanLevel, Shape, SuperTile


def plan_of(known: Mapping[str, Any], *, region_px: int) -> PlanFacts:
    """Return a plan as a store tells of it, with another edge of its regions.

    Parameters
    ----------
    known : Mapping
        Attribute `plan` of a store.
    region_px : int
        Edge of a region, plan pixels.

    Returns
    -------
    PlanFacts
        `facts.plan_facts` of it is the same again, but for the regions.
    """
    area = Shape(y=known["shape_yx"][0], x=known["shape_yx"][1])
    level = PlanLevel(
        stored=known["level"],
        ratio_yx=(Fraction(known["ratio_yx"][0]), Fraction(known["ratio_yx"][1])),
        shape=area,
        scale_yx=tuple(known["scale_yx"]),
    )
    grid = TileGrid(
        area=area,
        **{name: known[name] for name in ("tile_px", "step_px", "halo_px", "edge")},
        origin_yx=tuple(known["origin_yx"]),
    )
    super_tile_px = known["super_tile_px"]
    if max(grid.shape.yx) * grid.step_px <= super_tile_px:  # all tiles are one unit, however large it is said to be
        super_tile_px = -(-super_tile_px // region_px) * region_px
    return PlanFacts(
        digest=known["digest"],
        level=level,
        grid=grid,
        super_tile_px=super_tile_px,
        region_px=region_px,
        rows=known["tiles"],
        mpp_yx=_floats(known["mpp_yx"]),
        where=known["where"],
        is_listed=bool(known.get("listed")),
    )


def iter_units(stored: StoredFeatures, plan: PlanFacts) -> Iterator[tuple[SuperTile, dict[str, Array]]]:
    """Yield each super-tile of a finished store with what its worker has handed to the sink.

    Parameters
    ----------
    stored : StoredFeatures
        The store.
    plan : PlanFacts
        Its plan.

    Yields
    ------
    unit : SuperTile
        In the order of the rows.
    results : dict
        As `FeatureSink.write` takes them.

    Notes
    -----
    Memory is the corners of all tiles and the rows of one super-tile.
    """
    names = ["status", *scalars_of(stored), *stored.encoders, *(f"{name}_status" for name in stored.encoders)]
    corner_yx = stored.xy()[:, ::-1]
    plan_yx = corner_yx / np.asarray(plan.level.scale_yx)
    cells = stored_cells(plan_yx, stored.plan)
    # off the grid a tile stands for the nearest square, and keeps its own corner beside it
    tile_yx = cells * plan.grid.step_px if plan.is_listed else np.rint(plan_yx).astype(np.int64)
    places = cells // (plan.super_tile_px // plan.grid.step_px)
    starts = np.flatnonzero(np.r_[True, (np.diff(places, axis=0) != 0).any(axis=1)][: len(tile_yx)])
    for start, stop in zip(starts, [*starts[1:], len(tile_yx)], strict=True):
        rows = range(int(start), int(stop))
        unit = SuperTile(
            plan=plan.digest,
            level=plan.level,
            iy=int(places[start, 0]),
            ix=int(places[start, 1]),
            first_row=rows.start,
            tile_yx=tile_yx[rows.start : rows.stop],
            tile_px=plan.grid.tile_px,
            halo_px=plan.grid.halo_px,
            corner_yx=corner_yx[rows.start : rows.stop] if plan.is_listed else None,
        )
        found = {name: stored.read(name, rows) for name in names}
        for name in stored.encoders:
            found[f"{name}/status"] = found.pop(f"{name}_status")
        yield unit, found


def scalars_of(stored: StoredFeatures) -> tuple[str, ...]:
    """Return the names of the values that each tile of a store has besides vectors."""
    return tuple(name for name in SCALARS if stored.has(name))


def image_of(known: Mapping[str, Any]) -> ImageInfo:
    """Return an image as a store tells of it; `facts.image_facts` of it is the same again.

    Parameters
    ----------
    known : Mapping
        Attribute `image` of a store.

    Returns
    -------
    ImageInfo
        Its blocks are not known: they are said to be one pixel.
    """
    levels = tuple(
        Level(index=index, shape=Shape(y=y, x=x), block=Shape(y=1, x=1))
        for index, (y, x) in enumerate(known["levels_yx"])
    )
    content = known["content_yxhw"]
    plain: dict[str, Any] = {
        **{name: known[name] for name in ("format", "fingerprint", "kind", "modality", "crs", "datetime")},
        **{name: dict(known[name]) for name in ("axes", "selection", "absent")},
        **{name: tuple(known[name]) for name in ("derived", "notes")},
    }
    return ImageInfo(
        **plain,
        levels=levels,
        dtype=np.dtype(known["dtype"]),
        channels=tuple(Channel(**channel) for channel in known["channels"]),
        mpp_yx=_floats(known["mpp_yx"]),
        affine=_floats(known["affine"]),
        gcps=tuple(_floats(point) for point in known["gcps"]),
        nodata=None if known["nodata"] is None else float(known["nodata"]),
        content=None if content is None else Box(y=content[0], x=content[1], height=content[2], width=content[3]),
        classes=tuple(_class_band(band) for band in known["classes"]),
    )


def _floats(values: Sequence[Any] | None) -> Any:
    """Return numbers as they were before JSON, which has no NaN and no tuple."""
    return None if values is None else tuple(float(value) for value in values)


def _class_band(known: Mapping[str, Any]) -> ClassBand:
    bits = {name: (int(first), int(count)) for name, (first, count) in known["bits"].items()}
    return ClassBand(name=known["name"], values={int(n): name for n, name in known["values"].items()}, bits=bits)
