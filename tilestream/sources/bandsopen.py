"""Opens the files of a scene and puts its bands and class layers on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from tilestream.errors import SourceError
from tilestream.metrics import Meter, collect, merge
from tilestream.sources.bandgrid import choose_grid, is_placed, shared_levels, step_of, steps_on
from tilestream.sources.bands import Band, BandsSource, ClassLayer, PlacedFile
from tilestream.sources.files import File
from tilestream.sources.fingerprint import digest
from tilestream.sources.opening import open_source
from tilestream.sources.scene import LayerFile, Scene
from tilestream.sources.scenefolder import read_scene
from tilestream.types import ImageInfo, Level, Shape, Source, Validity

BLOCK_PX = 1024
"""Edge of a scene's blocks where those of its files are large: images that are decoded whole, or wide strips."""
MOST_BLOCK_PX = 2 * BLOCK_PX
"""Blocks of files are taken over up to this edge."""
OPENED_AT_ONCE = 8
"""Files of a remote scene whose headers are read together: the time goes into waiting."""


def open_bands(file: File) -> BandsSource:
    """Return a scene of single-band files as one source with named bands.

    Parameters
    ----------
    file : File
        A folder that is one scene (SAFE, Landsat, STAC item with its files, bands named as a mission does), or the
        metadata file of one.

    Returns
    -------
    BandsSource
        Ready to read; only headers were read.

    Raises
    ------
    SourceError
        When there is no such scene, its metadata is broken, no band is there, or two have different coordinate systems.
    """
    scene = read_scene(file)
    if not scene.bands:
        missing = f"; not there: {', '.join(scene.absent)}" if scene.absent else ""
        others = f"; of several bands: {', '.join(scene.left_out)}" if scene.left_out else ""
        raise SourceError.of(
            f"`{file.url}`",
            got=f"a scene without a single-band file{missing}{others}",
            expected="its bands",
            do="Copy them beside the metadata, or open the file of several bands itself.",
        )
    sources = _open_all([band.file for band in scene.bands])
    infos = [source.info for source in sources]
    _require_one_crs(file, scene, infos)
    placed = [info for info in infos if is_placed(info)]
    if not placed:
        raise SourceError.of(
            f"`{file.url}`", got="no single-band file with a place", expected="the bands of a scene", do="Copy them."
        )
    grid = choose_grid(placed)
    levels = shared_levels(grid, placed)
    bands = []
    absent = dict(scene.absent)
    for band, source in zip(scene.bands, sources, strict=True):
        steps = steps_on(source.info, grid, levels) if is_placed(source.info) else ()
        if steps:
            own = _placed(band.file, source, band.nodata)
            bands.append(Band(channel=band.channel, file=replace(own, steps=steps)))
        else:
            absent[band.channel.name] = _does_not_fit(source.info, grid, band.file)
    layers, lost = _layers(scene, grid, levels)
    info = _describe(replace(scene, absent={**absent, **lost}), bands, layers, (grid, levels))
    return BandsSource(bands=tuple(bands), layers=layers, info=info, facts=scene.facts)


def _placed(file: File, source: Source, nodata: float | None) -> PlacedFile:
    says_so = source.info.nodata == nodata  # and then need not be asked twice
    return PlacedFile(source=source, url=file.url, steps=(), nodata=None if says_so else nodata)


def _open_all(files: Sequence[File]) -> list[Source]:
    if all(file.is_local for file in files):
        return [_open(file) for file in files]
    with ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
        opened = list(pool.map(_open_metered, files))
    for _, meter in opened:
        merge(meter)
    return [source for source, _ in opened]


def _open_metered(file: File) -> tuple[Source, Meter]:
    with collect() as meter:
        return _open(file), meter


def _open(file: File) -> Source:
    if file.is_local and Path(file.path).is_dir():  # which may be this very scene through a link
        raise SourceError.of(f"`{file.url}`", got="a folder", expected="the file of one band", do="Check the item.")
    return open_source(file.url, options=file.options)


def _require_one_crs(file: File, scene: Scene, infos: Sequence[ImageInfo]) -> None:
    found: dict[str, str] = {}
    for band, info in zip(scene.bands, infos, strict=True):
        if info.crs is not None:
            found.setdefault(info.crs, band.channel.name)
    if len(found) > 1:
        raise SourceError.of(
            f"`{file.url}`",
            got="bands in several coordinate systems: "
            + ", ".join(f"{name} in {crs if len(crs) < 40 else crs[:40] + ' …'}" for crs, name in found.items()),
            expected="one for all bands of a scene",
            do="Warp the bands to one grid first, or open each by itself.",
        )


def _does_not_fit(info: ImageInfo, grid: ImageInfo, file: File) -> str:
    if len(info.channels) != 1:
        return f"an image of {len(info.channels)} channels where the metadata names one band"
    if not is_placed(info):
        return "a band without a place (neither affine nor control points)"
    return (
        f"a band whose grid (pixel {step_of(info):g}) is not that of the others ({step_of(grid):g}): "
        f"open `{file.name}` itself"
    )


def _layers(scene: Scene, grid: ImageInfo, levels: tuple[Level, ...]) -> tuple[tuple[ClassLayer, ...], dict[str, str]]:
    """Return the class layers, and the reason for each that cannot be had; none of them stops the scene."""
    layers, lost = [], {}
    for layer in scene.layers:
        try:
            source = _open(layer.file)
        except SourceError as error:
            lost[layer.band.name] = f"a layer that does not open ({error})"
            continue
        steps = steps_on(source.info, grid, levels, reduce=True) if is_placed(source.info) else ()
        if source.info.dtype.kind not in "iu":
            lost[layer.band.name] = f"a layer of {source.info.dtype}, and no classes"
        elif not steps:
            lost[layer.band.name] = _does_not_fit(source.info, grid, layer.file)
        else:
            placed = replace(_placed(layer.file, source, None), steps=steps)
            layers.append(ClassLayer(file=placed, info=_describe_layer(layer, source.info, grid, levels)))
    return tuple(layers), lost


def _describe_layer(layer: LayerFile, own: ImageInfo, grid: ImageInfo, levels: tuple[Level, ...]) -> ImageInfo:
    return replace(
        grid,
        format="class-layer",
        kind="labels",
        levels=_blocks(levels),
        dtype=own.dtype,
        channels=(replace(own.channels[0], name=layer.band.name, scale=1.0, offset=0.0),),
        fingerprint=digest("layer", layer.band.name, own.fingerprint),
        modality="scene",
        nodata=own.nodata,
        validity=own.validity,
        axes={"c": 1, "y": grid.shape.y, "x": grid.shape.x},
        classes=(layer.band,),
        notes=(),
    )


def _blocks(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """Return levels whose blocks are no larger than a scene of many bands can afford."""
    if max(level.block.y for level in levels) <= MOST_BLOCK_PX and max(lv.block.x for lv in levels) <= MOST_BLOCK_PX:
        return levels
    return tuple(
        replace(level, block=Shape(y=min(BLOCK_PX, level.shape.y), x=min(BLOCK_PX, level.shape.x))) for level in levels
    )


def _validity(bands: Sequence[Band], nodata: float | None) -> Validity | None:
    """Return where validity comes from: where one band is not valid all are 0, so that only a nodata of 0 says it."""
    kinds = {band.file.source.info.validity for band in bands}
    if kinds == {None} and all(band.file.nodata is None for band in bands):
        return None
    return "nodata" if nodata == 0 and "mask" not in kinds else "mask"


def _describe(
    scene: Scene, bands: Sequence[Band], layers: tuple[ClassLayer, ...], on: tuple[ImageInfo, tuple[Level, ...]]
) -> ImageInfo:
    grid, levels = on
    infos = [band.file.source.info for band in bands]
    says_0 = all(0 in (band.file.nodata, band.file.source.info.nodata) for band in bands)
    nodata = 0.0 if says_0 else None
    parts = [(band.channel.name, band.channel.scale, band.channel.offset, band.file.nodata) for band in bands]
    return ImageInfo(
        format=scene.format,
        levels=_blocks(levels),
        dtype=np.result_type(*(info.dtype for info in infos)),
        channels=tuple(band.channel for band in bands),
        fingerprint=digest("bands", *parts, *(info.fingerprint for info in infos)),
        modality="scene",
        crs=grid.crs,
        affine=grid.affine,
        gcps=grid.gcps,
        nodata=nodata,
        validity=_validity(bands, nodata),
        axes={"c": len(bands), "y": grid.shape.y, "x": grid.shape.x},
        datetime=scene.datetime,
        classes=tuple(layer.info.classes[0] for layer in layers),
        absent=scene.absent,
        notes=_notes(scene, bands),
    )


def _notes(scene: Scene, bands: Sequence[Band]) -> tuple[str, ...]:
    notes = list(scene.notes)
    coarse = [f"{band.channel.name} x{band.file.steps[0].factor}" for band in bands if band.file.steps[0].factor > 1]
    if coarse:
        notes.append(f"coarser bands are repeated on the finest grid: {', '.join(coarse)}")
    by_reason: dict[str, list[str]] = {}
    for name, reason in scene.absent.items():
        by_reason.setdefault(reason, []).append(name)
    notes += [f"left out: {', '.join(names)} ({reason})" for reason, names in by_reason.items()]
    if scene.left_out:
        notes.append(f"neither bands nor class layers: {', '.join(scene.left_out)}")
    return tuple(notes)
