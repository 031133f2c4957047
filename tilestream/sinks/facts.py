"""What a store says about the image and the plan that it comes from; JSON values that never name a place or a time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.grid import TileGrid
from tilestream.sinks.depths import DepthFacts, depth_facts
from tilestream.types import Array, ImageInfo, PlanLevel


@dataclass(frozen=True, kw_only=True)
class PlanFacts:
    """What a sink has to know of a plan of tiles."""

    digest: str
    """Digest of the plan."""
    level: PlanLevel
    """Resolution at which the tiles lie."""
    grid: TileGrid
    """All tiles of the level."""
    super_tile_px: int
    """Edge of a unit of work, plan pixels."""
    region_px: int
    """Edge of the regions that vectors are pooled over, plan pixels; a multiple of the step, divides the super-tile."""
    rows: int
    """Number of tiles in the plan."""
    mpp_yx: tuple[float, float] | None = None
    """Micrometres per plan pixel."""
    where: str = "all"
    """What selected the tiles; no path."""
    is_listed: bool = False
    """Whether tiles lie off the grid, where another program has cut them; each stands for the nearest square of it."""
    depths: tuple[DepthFacts, ...] = ()
    """Levels of the quadtree of tokens, finest first, which has the resolution and the grid above; none for tiles."""

    def __post_init__(self) -> None:
        if self.region_px < 1 or self.region_px % self.grid.step_px or self.super_tile_px % self.region_px:
            raise ConfigError.of(
                "`region_px`",
                got=self.region_px,
                expected=f"a multiple of the step ({self.grid.step_px} px) that divides the super-tile "
                f"({self.super_tile_px} px)",
                do="Choose another region or super-tile.",
            )

    @property
    def has_regions(self) -> bool:
        """Return whether tiles lie in regions: tokens of several sizes are no grid."""
        return not self.depths

    def level_of(self, part: Mapping[str, Array]) -> PlanLevel:
        """Return the resolution of the tiles of a part."""
        return self.depths[int(part["depth"])].level if "depth" in part else self.level

    def cells(self, tile_yx: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the position of each tile in the grid of tiles.

        Parameters
        ----------
        tile_yx : ndarray of int64
            Corners of cores, `(n, 2)` plan pixels.

        Returns
        -------
        ndarray of int64
            `(n, 2)` as y, x. Rounded up, since the last tile may have been moved back inside the image.
        """
        return -((np.asarray(self.grid.origin_yx, np.int64) - tile_yx) // self.grid.step_px)


def stored_cells(corner_yx: npt.NDArray[np.float64], plan: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Return the position of each tile of a store in the grid of its plan.

    Parameters
    ----------
    corner_yx : ndarray of float64
        Corners of cores, `(n, 2)` plan pixels.
    plan : Mapping
        Attribute `plan` of the store.

    Returns
    -------
    ndarray of int64
        `(n, 2)` as y, x; of tiles off the grid the nearest square.
    """
    origin, step_px = np.array(plan["origin_yx"]), plan["step_px"]
    if plan.get("listed"):
        nearest = np.clip(np.rint(corner_yx / step_px), 0, np.array(plan["grid_yx"]) - 1)
        return np.asarray(nearest, np.int64)
    # Corners are whole plan pixels; the last tile may have been moved back inside, so cells are rounded up.
    return np.asarray(-((origin - np.rint(corner_yx).astype(np.int64)) // step_px))


def image_facts(image: ImageInfo) -> dict[str, Any]:
    """Return what is known of an image as JSON values.

    Parameters
    ----------
    image : ImageInfo
        The image.

    Returns
    -------
    dict
        JSON values; numbers that JSON lacks are text (`NaN`).
    """
    known = {
        "format": image.format,
        "fingerprint": image.fingerprint,
        "kind": image.kind,
        "modality": image.modality,
        "dtype": image.dtype.name,
        "shape_yx": image.shape.yx,
        "levels_yx": [level.shape.yx for level in image.levels],
        "channels": [{"name": c.name, "scale": c.scale, "offset": c.offset} for c in image.channels],
        "mpp_yx": image.mpp_yx,
        "crs": image.crs,
        "affine": image.affine,
        "gcps": image.gcps,
        "nodata": image.nodata,
        "axes": image.axes,
        "selection": image.selection,
        "content_yxhw": None
        if image.content is None
        else (image.content.y, image.content.x, image.content.height, image.content.width),
        "datetime": image.datetime,
        "classes": [
            {"name": band.name, "values": {str(value): name for value, name in band.values.items()}, "bits": band.bits}
            for band in image.classes
        ],
        "absent": image.absent,
        "derived": image.derived,
        "notes": image.notes,
    }
    return {name: json_value(value) for name, value in known.items()}


def plan_facts(plan: PlanFacts) -> dict[str, Any]:
    """Return a plan as JSON values.

    Parameters
    ----------
    plan : PlanFacts
        The plan.

    Returns
    -------
    dict
        JSON values; ratios as text such as `3/2`, since they are exact.
    """
    level = plan.level
    return {
        "digest": plan.digest,
        "tiles": plan.rows,
        "tile_px": plan.grid.tile_px,
        "step_px": plan.grid.step_px,
        "halo_px": plan.grid.halo_px,
        "region_px": plan.region_px,
        "super_tile_px": plan.super_tile_px,
        "edge": plan.grid.edge,
        "origin_yx": list(plan.grid.origin_yx),
        "grid_yx": list(plan.grid.shape.yx),
        "level": level.stored,
        "ratio_yx": [str(ratio) for ratio in level.ratio_yx],
        "shape_yx": list(level.shape.yx),
        "scale_yx": list(level.scale_yx),
        "mpp_yx": json_value(plan.mpp_yx),
        "where": plan.where,
        **({"listed": True} if plan.is_listed else {}),
        **({"depths": [depth_facts(depth) for depth in plan.depths]} if plan.depths else {}),
    }


def json_value(value: Any) -> Any:
    """Return a value as JSON can hold it.

    Parameters
    ----------
    value : object
        Numbers, texts, sequences and mappings, also of NumPy.

    Returns
    -------
    object
        JSON value.
    """
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, np.generic):
        return json_value(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
