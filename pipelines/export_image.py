"""One pyramid as one file: COG or OME-TIFF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tilestream.codecs.durable import durable_path, explained
from tilestream.kernels.bands import cores
from tilestream.pipelines.export_copy import StoredTiles, TileCopier, find_stored_tiles
from tilestream.pipelines.export_form import COPY, ExportOptions, FileForm, file_form
from tilestream.pipelines.export_squares import SquareSource
from tilestream.pipelines.level_plan import LevelPlan, plan_levels
from tilestream.pipelines.level_tiles import TileMaker, make_tiles
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sinks.cog import CogWriter
from tilestream.sinks.ometiff import OmeTiffWriter
from tilestream.sinks.tiffpyramid import TILE_PX
from tilestream.sources.extras import read_extras


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A file that was written."""

    path: Path
    """Where it is."""
    size_bytes: int
    """Its size."""
    levels: int
    """Levels in it."""
    damage: tuple[str, ...] = ()
    """Reason of each damaged block of the source."""
    notes: tuple[str, ...] = ()
    """What the format cannot hold."""


def export_pyramid(
    pyramid: Pyramid,
    path: Path,
    options: ExportOptions,
    *,
    name: str | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Exported:
    """Write a pyramid as one COG or OME-TIFF that appears when it is whole.

    Parameters
    ----------
    pyramid : Pyramid
        The image, of any source.
    path : Path
        File to write; a file of that name is replaced. Only one process at a time may write it.
    options : ExportOptions
        What to write.
    name : str, optional
        Name of the image in an OME-TIFF; that of the file by default.
    on_progress : callable
        Hears now and then which share of the pixels is done.

    Returns
    -------
    Exported
        What was written. Damaged blocks are not valid (COG) or black (OME-TIFF), and named.

    Raises
    ------
    ConfigError
        When the format or codec cannot hold such an image.
    OutputError
        When the file cannot be written; nothing is left behind then.
    """
    stored = find_stored_tiles(pyramid) if options.codec == COPY else None
    plan = plan_levels(pyramid, tile_px=TILE_PX if stored is None else stored.tile_px)
    icc, copied = read_extras(pyramid.source).icc, None if stored is None else stored.form
    form = file_form(pyramid.info, options, plan, icc=icc, copied=copied)
    name = name or path.name
    form.tags(name)  # what cannot be written is refused before a pixel is read
    maker = _maker(pyramid, plan, form, stored)
    total = sum(plan.shapes[level].area for level in range(len(plan.stored)))
    done, recoded, is_measured, damage = 0, 0, True, list[str]()
    with durable_path(path) as partial, _opened(path, partial, form) as file:
        for made in make_tiles(maker, threads=options.threads or cores()):
            with explained(path):
                for tile in made.tiles:
                    file.add(tile)
            damage += made.damage
            done += made.pixels
            recoded += made.recoded
            is_measured &= made.is_measured
            on_progress(done / total)
        with explained(path):
            size_bytes = file.finish(form.tags(name, damaged=len(damage)))
    return Exported(
        path=path,
        size_bytes=size_bytes,
        levels=len(plan.shapes),
        damage=tuple(damage),
        notes=form.notes(is_measured=is_measured, recoded=recoded),
    )


def _maker(pyramid: Pyramid, plan: LevelPlan, form: FileForm, stored: StoredTiles | None) -> TileMaker:
    squares = SquareSource(
        pyramid=pyramid,
        plan=plan,
        dtype=form.tiff.dtype,
        nodata=form.tiff.nodata,
        fill=form.fill,
        shows_damage=form.options.to == "ome-tiff",
    )
    read, encode, copy = squares.read, form.tiff.encode, None
    if stored is not None:
        is_measured = pyramid.info.validity is None
        copy = TileCopier(stored=stored, plan=plan, tiff=form.tiff, read=read, is_measured=is_measured)
    return TileMaker(plan=plan, read=read, encode=encode, copy=copy, kind=pyramid.kind, fill=form.fill)


def _opened(path: Path, partial: Path, form: FileForm) -> CogWriter | OmeTiffWriter:
    with explained(path):
        return (CogWriter if form.options.to == "cog" else OmeTiffWriter)(partial, form.tiff)
