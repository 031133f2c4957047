"""Tiles of a finished feature store as they came from the workers, and the image and plan that it tells of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tilestream.errors import DamagedError
from tilestream.grid import TileGrid
from tilestream.sinks.facts import PlanFacts
from tilestream.sinks.features import SCALARS
from tilestream.sinks.rowsread import RowLayout, read_rows, read_texts
from tilestream.sinks.storerecord import encoder_names
from tilestream.sinks.tables import feature_dimension
from tilestream.sinks.tree import OWNER
from tilestream.types import Array, Box, Channel, ClassBand, ImageInfo, Level, PlanLevel, Shape, SuperTile


@dataclass(frozen=True, kw_only=True)
class StoredTiles:
    """The tiles of a finished store; nothing of their rows is held."""

    root: Path
    """The store."""
    attributes: Mapping[str, Any]
    """Those of its root."""
    nodes: Mapping[str, Any]
    """Metadata of its arrays by path."""

    @classmethod
    def open(cls, root: Path) -> StoredTiles:
        """Return the tiles of a store.

        Parameters
        ----------
        root : Path
            The store.

        Returns
        -------
        StoredTiles
            Its metadata.

        Raises
        ------
        DamagedError
            When it is no feature store of ours.
        OSError
            When it cannot be read.
        """
        try:
            document = json.loads((root / "zarr.json").read_bytes())
            attributes, nodes = document["attributes"], document["consolidated_metadata"]["metadata"]
            is_ours = attributes[OWNER]["store"] == "features"
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise DamagedError(f"no metadata of a feature store ({type(error).__name__}: {error})") from error
        if not is_ours:
            raise DamagedError("a store of another kind")
        return cls(root=root, attributes=attributes, nodes=nodes)

    @property
    def encoders(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return name and outputs of each encoder, in the order of its run."""
        named = [name for name in self.attributes["recipe"]["stages"] if name in encoder_names(self.nodes)]
        return tuple((name, read_texts(self.root / "tile" / feature_dimension(name))) for name in named)

    @property
    def scalars(self) -> tuple[str, ...]:
        """Return the names of the values that each tile has besides vectors."""
        return tuple(name for name in SCALARS if f"tile/{name}" in self.nodes)

    def plan(self, region_px: int) -> PlanFacts:
        """Return the plan with another edge of its regions."""
        known = self.attributes["plan"]
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
        return PlanFacts(
            digest=known["digest"],
            level=level,
            grid=grid,
            super_tile_px=known["super_tile_px"],
            region_px=region_px,
            rows=known["tiles"],
            mpp_yx=None if known["mpp_yx"] is None else tuple(known["mpp_yx"]),
            where=known["where"],
        )

    def units(self, plan: PlanFacts) -> Iterator[tuple[SuperTile, dict[str, Array]]]:
        """Yield each super-tile with what its worker has handed to the sink.

        Parameters
        ----------
        plan : PlanFacts
            The plan.

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
        names = ["status", *self.scalars]
        for name, _ in self.encoders:
            names += [name, f"{name}_status"]
        corners = np.stack([self._rows("y"), self._rows("x")], axis=1) / np.asarray(plan.level.scale_yx)
        tile_yx = np.rint(corners).astype(np.int64)
        places = plan.cells(tile_yx) // (plan.super_tile_px // plan.grid.step_px)
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
            )
            found = {name: self._rows(name, rows) for name in names}
            for name, _ in self.encoders:
                found[f"{name}/status"] = found.pop(f"{name}_status")
            yield unit, found

    def _rows(self, name: str, rows: range | None = None) -> Array:
        return read_rows(self.root / "tile" / name, RowLayout.of(self.nodes[f"tile/{name}"]), rows)


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
