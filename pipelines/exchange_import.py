"""Feature stores of ours from vectors that other programs have stored: `tilestream export JOB --to features`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream import __version__
from tilestream.codecs.checksums import checksum, checksum_file
from tilestream.codecs.durable import ensure_directory
from tilestream.errors import ConfigError, OutputError, SourceError, TilestreamError
from tilestream.grid import TileGrid
from tilestream.models.pool import Pool
from tilestream.pipelines.export import ExportOutcome, ExportRow, Listener, Status
from tilestream.pipelines.foreign_bags import Bag, Vectors, find_bags, read_bag
from tilestream.pipelines.recipe import digest
from tilestream.sinks.facts import PlanFacts
from tilestream.sinks.features import SCALARS, FeatureSink
from tilestream.sinks.storerecord import SUFFIX
from tilestream.sinks.tree import check_replaceable
from tilestream.stream.leases import claim
from tilestream.types import Channel, ImageInfo, Level, PlanLevel, Receipt, Shape, SuperTile, TileStatus

TO = "features"
"""The format by which `tilestream export` is asked for it."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """What to make of bags of vectors."""

    out: Path
    """Folder of the stores; made when it is not there."""
    encoders: tuple[str, ...] = ()
    """Whose vectors; empty = all."""
    resume: bool = True
    """Keep stores of the same files that are there; False makes them anew."""


def run_import(
    paths: Sequence[str], config: ImportConfig, *, on_progress: Listener = lambda key, share: None
) -> ExportOutcome:
    """Make a feature store of each slide of which other programs have stored vectors.

    Parameters
    ----------
    paths : sequence of str
        Folders of TRIDENT, CLAM or AtlasPatch: a job, features, and for CLAM its `patches` too.
    config : ImportConfig
        What to make of them.
    on_progress : callable
        Hears of the slides.

    Returns
    -------
    ExportOutcome
        A row a slide; one that fails never stops the others. `ts.open_cohort` opens the folder then.

    Raises
    ------
    ConfigError
        When there are no vectors, or none of the encoders.
    SourceError
        When a path is not there.
    OutputError
        When the folder cannot be written.

    Notes
    -----
    The vectors of one slide are in memory three times over.
    """
    roots = [Path(text.removeprefix("file://")).absolute() for text in paths]
    for root in roots:
        if not root.exists():
            raise SourceError.of(
                f"`{root}`", got="nothing there", expected="a folder of features", do="Check the path."
            )
    every = find_bags(roots)
    bags = [bag for bag in every if not config.encoders or bag.encoder in config.encoders]
    if not bags:
        known = ", ".join(sorted({bag.encoder for bag in every}))
        raise ConfigError.of(
            ", ".join(f"`{root}`" for root in roots) or "inputs",
            got=f"features of {known}" if known else "no features",
            expected=f"those of {', '.join(config.encoders)}" if known else "a folder of TRIDENT, CLAM or AtlasPatch",
            do="Correct --encoder." if known else "Name the folder that its feature files lie in.",
        )
    ensure_directory(config.out)
    slides = [(slide, tuple(own)) for slide, own in groupby(bags, key=lambda bag: bag.slide)]
    rows = []
    for number, (slide, own) in enumerate(slides):
        on_progress(slide, number / len(slides))
        rows.append(_row(slide, own, config))
    return ExportOutcome(rows=tuple(rows), ignored=(), unmatched=())


def _row(slide: str, bags: tuple[Bag, ...], config: ImportConfig) -> ExportRow:
    started = time.monotonic()
    row = ExportRow(path=slide, url=str(bags[0].path), status="failed")
    try:
        row = _made(row, slide, bags, config)
    except TilestreamError as error:
        row = replace(row, reason=str(error))
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one file, the others go on
        row = replace(row, reason=f"{type(error).__name__}: {error}")
    return replace(row, seconds=time.monotonic() - started)


def _made(row: ExportRow, slide: str, bags: tuple[Bag, ...], config: ImportConfig) -> ExportRow:
    _require_one_group(slide, bags)
    root, work = config.out / f"{slide}{SUFFIX}", config.out / f".{slide}.parts"
    lease = claim(config.out / f".{slide}.lease")
    if lease is None:
        raise OutputError.of(
            f"`{root}`", got="another process that is writing it", expected="one at a time", do="Wait for it to end."
        )
    with lease:
        found = {bag.encoder: read_bag(bag) for bag in bags}
        _require_same_patches(slide, found)
        sink, unit = _sink(root, work, bags, found, replace_=not config.resume)
        status: Status = "kept"
        if not (config.resume and sink.is_committed()):
            if root.exists():
                check_replaceable(root, replace=sink.replace)
            outputs = sink.write(unit, _results(found))
            sink.finish([Receipt(key=unit.key, recipe=sink.recipe_digest, outputs=outputs, tiles=len(unit.tile_yx))])
            status = "done"
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    return replace(row, status=status, output=str(root), size_bytes=size, notes=_notes(sink, found))


def _require_one_group(slide: str, bags: tuple[Bag, ...]) -> None:
    groups = sorted({str(bag.group) for bag in bags})
    if len(groups) > 1:
        raise ConfigError.of(
            f"slide `{slide}`",
            got=f"features in {', '.join(groups)}",
            expected="those of one kind of patches",
            do="Name one of these folders, each with its own --out.",
        )


def _require_same_patches(slide: str, found: dict[str, Vectors]) -> None:
    (first, one), *others = found.items()
    for encoder, other in others:
        a, b = one.patches, other.patches
        if (a.patch_px, a.level) != (b.patch_px, b.level) or not np.array_equal(a.xy, b.xy):
            raise ConfigError.of(
                f"slide `{slide}`",
                got=f"other patches for {encoder} than for {first}",
                expected="vectors of the same patches",
                do="Take one encoder at a time (--encoder), each with its own --out.",
            )


def _sink(
    root: Path, work: Path, bags: tuple[Bag, ...], found: dict[str, Vectors], *, replace_: bool
) -> tuple[FeatureSink, SuperTile]:
    """Return the sink of a slide, and the one unit that all its tiles are in."""
    vectors, kind = next(iter(found.values())), bags[0].kind
    patches, facts = vectors.patches, vectors.facts
    shape, grid, unit = _unit(vectors, bags[0])
    unit_px = max(1, -(-max(grid.area.yx) // grid.step_px)) * grid.step_px  # all tiles are one unit
    mpp, plan_mpp = facts.get("mpp_level0"), facts.get("mpp_effective")
    recipe = {
        "stages": {encoder: _stage(kind, encoder, facts) for encoder in found},
        "plan": {"tile_px": unit.tile_px, "mpp": None},
        "files": {bag.encoder: checksum_file(bag.path) for bag in bags},
    }
    name = checksum(patches.xy.tobytes() + bags[0].slide.encode())
    sink = FeatureSink(
        root=root,
        work=work,
        image=ImageInfo(
            format=kind,
            levels=(Level(index=0, shape=shape, block=shape),),
            dtype=np.dtype(np.uint8),
            channels=tuple(Channel(name=name) for name in "RGB"),
            fingerprint=name,
            mpp_yx=_pair(mpp),
        ),
        plan=PlanFacts(
            digest=name,
            level=unit.level,
            grid=grid,
            super_tile_px=unit_px,
            region_px=unit_px,
            rows=len(patches.xy),
            mpp_yx=_pair(plan_mpp),
            where=f"patches of {kind}",
            is_listed=_is_off_grid(unit, grid),
        ),
        encoders=tuple((encoder, _outputs(one)) for encoder, one in found.items()),
        new_pooler=Pool,
        recipe=recipe,
        recipe_digest=digest(recipe),
        version=__version__,
        replace=replace_,
    )
    return sink, unit


def _unit(vectors: Vectors, bag: Bag) -> tuple[Shape, TileGrid, SuperTile]:
    """Return the shape of level 0, the grid that patches lie nearest to, and all of them as one unit."""
    patches, overlap = vectors.patches, vectors.facts.get("overlap", 0)
    size_px = patches.size_level0(bag.patches or bag.path)
    tile_px = patches.seen_px or round(patches.patch_px)
    scale = size_px / tile_px
    ratio = Fraction(scale).limit_denominator(1 << 12)
    shape = _shape(patches.shape_yx, patches.xy, size_px)
    level = PlanLevel(
        stored=0,
        ratio_yx=(ratio, ratio),
        shape=Shape(y=-int(-shape.y // scale), x=-int(-shape.x // scale)),
        scale_yx=(scale, scale),
    )
    step_px = max(1, tile_px - (int(overlap) if isinstance(overlap, int | float) else 0))
    grid = TileGrid(area=level.shape, tile_px=tile_px, step_px=step_px)
    corner_yx = patches.xy[:, ::-1].astype(np.float64)
    nearest = np.clip(np.rint(corner_yx / (scale * step_px)), 0, np.maximum(0, np.array(grid.shape.yx) - 1))
    unit = SuperTile(
        plan="",
        level=level,
        iy=0,
        ix=0,
        first_row=0,
        tile_yx=nearest.astype(np.int64) * step_px,
        tile_px=tile_px,
        corner_yx=corner_yx,
    )
    return shape, grid, unit


def _is_off_grid(unit: SuperTile, grid: TileGrid) -> bool:
    """Return whether a patch lies beside its square of the grid, or shares it with another."""
    assert unit.corner_yx is not None  # that of each patch
    is_beside = not np.allclose(unit.corner_yx, unit.tile_yx * np.array(unit.level.scale_yx), rtol=0, atol=1e-6)
    is_beside |= bool((unit.tile_yx // grid.step_px >= grid.shape.yx).any())
    return is_beside or len(np.unique(unit.tile_yx, axis=0)) < len(unit.tile_yx)


def _stage(kind: str, encoder: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what vectors of other slides have to share to be comparable with these."""
    known = {name: facts[name] for name in ("patch_size", "target_magnification", "patch_level") if name in facts}
    return {"target": f"{kind}:{encoder}", "params": known}


def _results(found: dict[str, Vectors]) -> dict[str, npt.NDArray[Any]]:
    n = len(next(iter(found.values())).values)
    results: dict[str, npt.NDArray[Any]] = {"status": np.zeros(n, np.uint8)}
    # what no other program says
    results |= {name: np.full(n, np.nan, np.float32) for name in SCALARS}
    for encoder, one in found.items():
        results[encoder] = one.values
        results[f"{encoder}/status"] = _status(one)
    return results


def _status(one: Vectors) -> npt.NDArray[np.uint8]:
    is_number = np.isfinite(one.values).all(axis=1)
    return np.where(is_number, TileStatus.OK, TileStatus.FAILED).astype(np.uint8)


def _notes(sink: FeatureSink, found: dict[str, Vectors]) -> tuple[str, ...]:
    notes = []
    if next(iter(found.values())).patches.shape_yx is None:
        notes.append("the size of the image is not known: as far as its patches reach")
    if sink.image.mpp_yx is None:
        notes.append("micrometres per pixel are not known: these files state a magnification at most")
    for encoder, one in found.items():
        bad = int(np.count_nonzero(_status(one)))
        if bad:
            notes.append(f"{bad:,} of {len(one.values):,} vectors of {encoder} are not numbers and do not count")
    return tuple(notes)


def _outputs(one: Vectors) -> tuple[str, ...]:
    return tuple(str(number) for number in range(one.values.shape[1]))


def _shape(known: tuple[int, int] | None, xy: npt.NDArray[np.int64], size_px: float) -> Shape:
    """Return the size of level 0: what the file says, else what its patches reach."""
    if known is not None:
        return Shape(y=known[0], x=known[1])
    x, y = (xy.max(axis=0) + int(np.ceil(size_px))).tolist() if len(xy) else (1, 1)
    return Shape(y=y, x=x)


def _pair(value: Any) -> tuple[float, float] | None:
    return (float(value), float(value)) if isinstance(value, int | float) and value > 0 else None
