"""Small images, plans and results for the tests of sinks."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from tilestream.grid import TileGrid
from tilestream.sinks.facts import PlanFacts
from tilestream.sinks.features import FeatureSink
from tilestream.types import Channel, ImageInfo, Level, PlanLevel, Receipt, Shape, SuperTile, TileStatus

OUTPUTS = ("mean R", "entropy", "µ")


class MeanStd:
    """The plainest pooler: keeps everything."""

    def __init__(self, dim):
        self._rows = [np.empty((0, dim), np.float32)]

    def add(self, vectors, ok):
        self._rows.append(vectors[ok])

    def result(self):
        rows = np.concatenate(self._rows).astype(np.float64)
        if not len(rows):
            none = np.full(rows.shape[1], np.nan, np.float32)
            return {"mean": none, "std": none}
        return {"mean": rows.mean(axis=0).astype(np.float32), "std": rows.std(axis=0).astype(np.float32)}


def make_image(*, height=1000, width=1500, mpp=0.5, crs=None, affine=None, fingerprint="f" * 32, **more):
    shape = Shape(y=height, x=width)
    return ImageInfo(
        format="tiff",
        levels=(Level(index=0, shape=shape, block=Shape(y=256, x=256)),),
        dtype=np.dtype("uint8"),
        channels=tuple(Channel(name=name) for name in "RGB"),
        fingerprint=fingerprint,
        mpp_yx=None if mpp is None else (mpp, mpp),
        crs=crs,
        affine=affine,
        **more,
    )


def make_plan(image, *, tile_px=64, super_tile_px=256, region_px=128, ratio=Fraction(1), rows=None, **grid):
    shape = Shape(y=-(-image.shape.y // ratio), x=-(-image.shape.x // ratio))
    level = PlanLevel(stored=0, ratio_yx=(ratio, ratio), shape=shape, scale_yx=(float(ratio), float(ratio)))
    tiles = TileGrid(**{"area": shape, "tile_px": tile_px, "step_px": tile_px} | grid)
    return PlanFacts(
        digest="p" * 32,
        level=level,
        grid=tiles,
        super_tile_px=super_tile_px,
        region_px=region_px,
        rows=tiles.shape.area if rows is None else rows,
        mpp_yx=None if image.mpp_yx is None else tuple(m * float(ratio) for m in image.mpp_yx),
    )


def make_units(plan, *, wanted=None):
    """All super-tiles in row order."""
    edge = plan.super_tile_px // plan.grid.step_px
    shape, first_row, units = plan.grid.shape, 0, []
    for iy in range(-(-shape.y // edge)):
        for ix in range(-(-shape.x // edge)):
            y = plan.grid.starts_y(iy * edge, min((iy + 1) * edge, shape.y))
            x = plan.grid.starts_x(ix * edge, min((ix + 1) * edge, shape.x))
            corners = np.stack(np.broadcast_arrays(y[:, None], x[None, :]), axis=-1).reshape(-1, 2)
            if wanted is not None:
                corners = corners[wanted(corners)]
            if not len(corners):
                continue
            units.append(
                SuperTile(
                    plan=plan.digest,
                    level=plan.level,
                    iy=iy,
                    ix=ix,
                    first_row=first_row,
                    tile_yx=corners,
                    tile_px=plan.grid.tile_px,
                )
            )
            first_row += len(corners)
    return units


def make_results(unit, *, encoders=(("handcrafted", OUTPUTS),), damaged=(), failed=()):
    """Values that follow from the rows; `damaged` and `failed` are feature rows."""
    rows = np.arange(unit.rows.start, unit.rows.stop)
    status = np.where(np.isin(rows, damaged), TileStatus.DAMAGED, TileStatus.OK).astype(np.uint8)
    results = {
        "status": status,
        "valid": np.ones(len(rows), np.float32),
        "tissue": (rows % 10 / 10).astype(np.float32),
        "entropy": (rows % 80 / 10).astype(np.float32),
    }
    for number, (name, outputs) in enumerate(encoders):
        results[name] = (rows[:, None] + 1000 * number + np.arange(len(outputs)) / 10).astype(np.float32)
        results[f"{name}/status"] = np.where(np.isin(rows, failed), TileStatus.FAILED, status).astype(np.uint8)
    return results


def make_sink(folder: Path, *, image=None, plan=None, rel="a b/slide ü.svs", **more):
    image = image or make_image()
    plan = plan or make_plan(image)
    return FeatureSink(
        **{
            "root": folder / f"{rel}.features.zarr",
            "work": folder / "receipts" / rel / "parts",
            "image": image,
            "plan": plan,
            "encoders": (("handcrafted", OUTPUTS),),
            "new_pooler": MeanStd,
            "recipe": {"encoder": "handcrafted"},
            "recipe_digest": "r" * 32,
            "version": "0.0",
        }
        | more
    )


def write_all(sink, *, order=None, **results):
    """Write all parts and return their receipts."""
    units = make_units(sink.plan)
    if order is not None:
        units = [units[i] for i in order(len(units))]
    return [
        Receipt(
            key=unit.key,
            recipe=sink.recipe_digest,
            outputs=sink.write(unit, make_results(unit, encoders=sink.encoders, **results)),
            tiles=len(unit.tile_yx),
        )
        for unit in units
    ]


def tree_bytes(root: Path):
    """Content of every file below a folder by relative path."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
