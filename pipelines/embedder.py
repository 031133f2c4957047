"""Vectors of tiles and of examples by any encoder: what a query compares."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.models.encoders.towers import encode_texts, has_text_tower, image_tower
from tilestream.pipelines.encoder import encoder_spec, require_output
from tilestream.pipelines.recipe import stage_recipe
from tilestream.plan.tiles import TilePlan
from tilestream.pyramid import Pyramid, open_pyramid
from tilestream.registry import weights_stamp
from tilestream.relevance.likeness import Vectors
from tilestream.relevance.query import TileVectors
from tilestream.stream.stageterm import coarse_reduction, plan_coarse, vectors_of_plan
from tilestream.stream.work import make_stage
from tilestream.types import Array, Batch, Box, PlanLevel, Shape, Stage, StageSpec

MOST_TEXTS = 4096
"""Texts whose vectors a process keeps, so that it loads a tower once for all images."""
_encoded: dict[tuple[tuple[str, str, tuple[int, int] | None], str], Vectors] = {}

OFF = 1.05
"""How much coarser than an encoder's own resolution is worth a note."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TileEmbedder:
    """Makes the vectors of a query by an encoder, tiles at a coarse level."""

    encoder: str
    """As `--encoder` takes it."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Its parameters, such as `weights`."""
    reduce: float | None = None
    """Pixels of level 0 along the edge of a pixel that it sees; None = 8, less on images of few tiles."""
    where: str = "all"
    """Which tiles are looked at: `all`, `tissue`, or the path of a mask or GeoJSON file."""

    @cached_property
    def spec(self) -> StageSpec:
        """Return how the encoder is made before an image is known."""
        spec = encoder_spec(self.encoder, self.params)
        if spec.target == "callable":
            spec = StageSpec(target=spec.target, params={**spec.params, **image_tower(spec.params["target"])})
        require_output(make_stage(spec).contract, "vector")
        return spec

    @property
    def recipe(self) -> dict[str, Any]:
        """Return what its vectors are a function of besides what it is given; JSON values."""
        source = self.spec.params["target"] if self.spec.target == "callable" else None
        stage = stage_recipe(self.spec, make_stage(self.spec).contract, source=source)
        return {"stage": stage, "reduce": self.reduce, "where": self.where}

    @property
    def has_texts(self) -> bool:
        """Return whether it has a tower of texts, as far as its name tells."""
        return has_text_tower(self.spec)

    def stage(self, pyr: Pyramid, *, searched: Pyramid | None = None) -> Stage:
        """Return the encoder made for an image, or for the one that is searched where both have the same samples.

        A picture that was cut from a slide does not say in which light it was taken, and the slide does.
        """
        alike = searched is not None and _samples(searched) == _samples(pyr)
        return make_stage(make_stage(self.spec).for_image((searched if searched and alike else pyr).info))

    def tiles(self, pyr: Pyramid) -> TileVectors:
        """Return the vectors of an image's tiles at a coarse level."""
        stage = self.stage(pyr)
        plan = self._plan(pyr, stage, self.where)
        found = self._vectors(pyr, plan, stage)
        own, seen = stage.contract.mpp, None if pyr.mpp is None else pyr.mpp * max(plan.level.scale_yx)
        if not stage.contract.needs_mpp or own is None or seen is None or seen <= own * OFF:
            return found
        note = f"query: `{stage.contract.name}` was made for {own:g} um/px and sees {seen:.3g} um/px here"
        return TileVectors(vectors=found.vectors, known=found.known, cell_yx=found.cell_yx, notes=(*found.notes, note))

    def place(self, pyr: Pyramid, where: Box | Path, *, searched: Pyramid | None = None) -> Vectors:
        """Return the vectors `(k, d)` of the tiles in a box of level 0, or inside an outline, at the coarse level.

        A box smaller than a tile is seen by one tile around its centre; a larger one is covered by tiles that overlap
        as little as they must. The tiles lie where the box is, not on the grid of the image's tiles.
        """
        stage = self.stage(pyr, searched=searched)
        if isinstance(where, Path):
            found = self._vectors(pyr, self._plan(pyr, stage, str(where)), stage)
            if not found.known.any():
                raise ConfigError.of(
                    f"outline `{where}` of a query",
                    got="no tile inside it",
                    expected="an outline that covers a tenth of a tile at least",
                    do="Check that it belongs to this image.",
                )
            return np.asarray(found.vectors[found.known], np.float32)
        plan = self._plan(pyr, stage, "all")
        corners = corners_of(where, pyr.info.shape, plan.level, stage.contract.px)
        return self._read(pyr, plan.level, corners, stage)

    def picture(self, path: Path, *, searched: Pyramid | None = None) -> Vectors:
        """Return the vector `(1, d)` of a whole picture: its central square, as one tile."""
        pyr = open_pyramid(str(path))
        stage, shape = self.stage(pyr, searched=searched), pyr.info.shape
        edge = stage.contract.px
        if min(shape.yx) < edge:
            raise ConfigError.of(
                f"picture `{path}` of a query",
                got=f"{shape.y} x {shape.x} px",
                expected=f"at least {edge} px each way, a tile of `{stage.contract.name}`",
                do="Give a larger picture, or a box on an image.",
            )
        ratio = Fraction(min(shape.yx), edge)
        reduced = Shape(y=int(shape.y / ratio), x=int(shape.x / ratio))
        level = PlanLevel(stored=0, ratio_yx=(ratio, ratio), shape=reduced, scale_yx=(float(ratio), float(ratio)))
        corner = np.array([[(reduced.y - edge) // 2, (reduced.x - edge) // 2]])
        return self._read(pyr, level, corner, stage)

    def texts(self, words: Sequence[str]) -> Vectors:
        """Return the vectors `(k, d)` of texts; `ConfigError` for an encoder that knows images only."""
        spec = self.spec
        owner = spec.target, json.dumps(dict(spec.params), sort_keys=True), weights_stamp(spec.params)
        missing = list(dict.fromkeys(word for word in words if (owner, word) not in _encoded))
        if missing:
            found = encode_texts(spec, missing)
            if len(_encoded) > MOST_TEXTS:
                _encoded.clear()
            _encoded.update({(owner, word): np.array(row) for word, row in zip(missing, found, strict=True)})
        return np.stack([_encoded[owner, word] for word in words])

    def _plan(self, pyr: Pyramid, stage: Stage, where: str) -> TilePlan:
        reduce = self.reduce or coarse_reduction(max(pyr.info.shape.yx), stage.contract.px)
        return plan_coarse(pyr, stage.contract, reduce=reduce, where=where)

    def _vectors(self, pyr: Pyramid, plan: TilePlan, stage: Stage) -> TileVectors:
        return vectors_of_plan(pyr, plan, stage, name="query", dim=len(stage.output_names(pyr.info)))

    def _read(self, pyr: Pyramid, level: PlanLevel, corners: npt.NDArray[np.int64], stage: Stage) -> Vectors:
        """Return the vectors of tiles at corners of a level."""
        edge = stage.contract.px
        pixels: Array = np.zeros((len(corners), edge, edge, len(pyr.channels)), pyr.dtype)
        valid = np.ones((len(corners), edge, edge), np.bool_)
        for place, (y, x) in enumerate(corners.tolist()):
            box = Box(level=level.stored, y=y, x=x, height=edge, width=edge)
            damage = pyr.read_plan(level, box, pixels[place], valid[place]).damage
            if damage or not valid[place].any():
                raise ConfigError.of(
                    "example of a query",
                    got="; ".join(damage) or "nothing that was measured there",
                    expected="pixels that can be read",
                    do="Choose another place.",
                )
        batch = Batch(
            pixels=pixels.transpose(0, 3, 1, 2),
            valid=None if valid.all() else valid,
            valid_share=valid.mean(axis=(1, 2), dtype=np.float32),
            rows=np.arange(len(corners)),
            tile_yx=corners.astype(np.int64),
        )
        return np.asarray(stage(batch), np.float32)


def _samples(pyr: Pyramid) -> tuple[object, ...]:
    return pyr.dtype, pyr.kind, tuple(channel.name for channel in pyr.channels)


def corners_of(box: Box, shape: Shape, level: PlanLevel, tile_px: int) -> npt.NDArray[np.int64]:
    """Return the corners of tiles that cover a box, in pixels of a plan's level.

    Parameters
    ----------
    box : Box
        In pixels of level 0.
    shape : Shape
        Of the image at level 0.
    level : PlanLevel
        At which the tiles lie.
    tile_px : int
        Edge of a tile.

    Returns
    -------
    ndarray of int64
        `(k, 2)`, evenly spread over the box and inside the image where that is large enough.

    Raises
    ------
    ConfigError
        When the box is empty, of another level, or reaches outside the image.
    """
    inside = 0 <= box.y < box.y_stop <= shape.y and 0 <= box.x < box.x_stop <= shape.x
    if box.level != 0 or not inside:
        raise ConfigError.of(
            "box of a query",
            got=f"y={box.y} x={box.x} height={box.height} width={box.width} of level {box.level}",
            expected=f"a box of level 0 inside the image of {shape.y} x {shape.x} px",
            do="Give first row, first column, height and width in pixels of level 0.",
        )
    sides = (
        (box.y, box.height, level.scale_yx[0], level.shape.y),
        (box.x, box.width, level.scale_yx[1], level.shape.x),
    )
    starts = []
    for first, length, scale, edge in sides:
        low, wide = first / scale, length / scale
        count = max(1, int(np.ceil(wide / tile_px - 1e-9)))
        middle = low + wide * (np.arange(count) + 0.5) / count
        if count > 1:
            middle = np.linspace(low + tile_px / 2, low + wide - tile_px / 2, count)
        starts.append(np.clip(np.rint(middle - tile_px / 2), 0, max(0, edge - tile_px)).astype(np.int64))
    return np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2)
