"""What a report is made from: one record an input and one for the run."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import psutil

from tilestream import __version__
from tilestream.pipelines.course import Course
from tilestream.pipelines.figures import Figures
from tilestream.pipelines.report_advice import Setting
from tilestream.pipelines.report_picture import Picture
from tilestream.pipelines.report_timeline import Timeline

Status: TypeAlias = Literal["done", "failed", "ignored"]

_PACKAGES = (
    "numpy",
    "numba",
    "zarr",
    "xarray",
    "dask",
    "distributed",
    "imagecodecs",
    "tifffile",
    "openslide-python",
    "openslide-bin",
    "pydicom",
)


@dataclass(frozen=True, kw_only=True)
class InputRow:
    """What became of one input."""

    path: str
    """Relative path that names the input and its outputs."""
    status: Status
    """`done` also with damaged tiles."""
    reason: str = ""
    """Why it failed or was ignored."""
    receipts: str = ""
    """Name of its receipts in the folder of all receipts; its path where the run made nothing but this of it."""
    command: str = ""
    """Command line of the earlier run that has failed on it; empty for all others."""
    format: str = ""
    """Short name of the format."""
    shape_yx: tuple[int, int] | None = None
    """Size of level 0, px."""
    mpp: float | None = None
    """Micrometres per pixel of level 0."""
    crs: str | None = None
    """CRS of a scene."""
    datetime: str | None = None
    """When a scene was taken, ISO 8601."""
    tile_px: int | None = None
    """Edge of a tile, plan pixels."""
    plan_mpp: float | None = None
    """Micrometres per plan pixel."""
    tiles: int = 0
    """Tiles of the plan."""
    tiles_damaged: int = 0
    """Tiles that could not be decoded."""
    tiles_failed: int = 0
    """Tiles for which the encoder returned a value that is not finite."""
    tiles_empty: int = 0
    """Tiles without a valid pixel."""
    regions: int = 0
    """Regions that a stage was to make a vector of; 0 where they are pooled only."""
    regions_failed: int = 0
    """Those on which it has failed, of all encoders."""
    damaged: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Reason → feature rows of damaged tiles."""
    failed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Stage and reason → feature rows of tiles on which a stage has failed."""
    bytes_read: int = 0
    """Compressed bytes asked of the source, in this run and the ones that it continues."""
    image_bytes: int | None = None
    """Size of the image's files; None where it is not known."""
    pixels_decoded: Mapping[str, int] = field(default_factory=dict)
    """Stored level → pixels of it that were decoded."""
    image_px: int = 0
    """Pixels of level 0; 0 = not known."""
    tokens: Mapping[str, int] = field(default_factory=dict)
    """Level of the quadtree → tokens, where a budget has decided what is read."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by stage, summed over threads."""
    wall_s: float = 0.0
    """Time from start to finish in this run."""
    supertiles_total: int = 0
    """Super-tiles of the plan."""
    supertiles_reused: int = 0
    """Those that an earlier run had finished."""
    tiles_computed: int | None = None
    """Tiles computed in this run; None = all."""
    pixels: float = 0.0
    """Pixels of the plan under its tiles; 0 = not known."""
    cache: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Cache → hits, misses, bytes and evictions."""
    is_earlier: bool = False
    """Whether it is none of this run's inputs: an earlier run, or another process, has left it in the same folder."""
    outputs: tuple[str, ...] = ()
    """Files and stores made, relative to the report."""
    notes: tuple[str, ...] = ()
    """What a user should know."""
    is_map: bool = False
    """Whether a map of its pixels was made of it, not features of its tiles."""
    coded: Mapping[str, Any] = field(default_factory=dict)
    """What a store of fields of it costs and how close it is, see `compress_measure.Sums.record`."""
    picture: Picture | Path | None = None
    """Thumbnail, outline and heat map; a path is read only when its page is written."""

    @property
    def supertiles_computed(self) -> int:
        """Return the number of super-tiles computed in this run."""
        return max(0, self.supertiles_total - self.supertiles_reused)

    @property
    def tiles_per_s(self) -> float | None:
        """Return the tiles computed a second, None when nothing was computed."""
        tiles = self.tiles if self.tiles_computed is None else self.tiles_computed
        return tiles / self.wall_s if self.wall_s > 0 and tiles and self.supertiles_computed else None

    @property
    def mpx_per_s(self) -> float | None:
        """Return the megapixels of the plan computed a second, None when nothing was computed or they are not known."""
        return self.tiles_per_s * self.pixels / self.tiles / 1e6 if self.tiles_per_s and self.pixels else None

    @property
    def tiles_ok(self) -> int:
        """Return the number of tiles that have values."""
        return max(0, self.tiles - self.tiles_damaged - self.tiles_failed - self.tiles_empty)

    @property
    def pixel_share(self) -> float | None:
        """Return the pixels decoded, of whatever level, as a share of those of level 0; None when not known."""
        return sum(self.pixels_decoded.values()) / self.image_px if self.pixels_decoded and self.image_px else None

    @property
    def byte_share(self) -> float | None:
        """Return the bytes read as a share of the image's files, None when their size is not known."""
        return self.bytes_read / self.image_bytes if self.image_bytes else None

    @property
    def is_lost(self) -> bool:
        """Return whether not one tile of a finished image has values, through damage or a stage that gave none."""
        bad = self.tiles_damaged + self.tiles_failed
        return self.status == "done" and bad > 0 and self.tiles_ok == 0

    @property
    def bottleneck(self) -> tuple[str, float] | None:
        """Return the stage that took most of the time and its share, None when no time was taken."""
        return bottleneck(self.seconds)


def bottleneck(seconds: Mapping[str, float]) -> tuple[str, float] | None:
    """Return the name and the share of the largest of some times, None when they are all 0.

    Parameters
    ----------
    seconds : Mapping
        Time by stage.

    Returns
    -------
    tuple of str and float, or None
        Name and share in 0 to 1.
    """
    total = sum(seconds.values())
    if total <= 0:
        return None
    name = max(seconds, key=lambda stage: (seconds[stage], stage))
    return name, seconds[name] / total


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Figures of a whole run; they stand in reports only, never in a store."""

    command: str
    """Command line."""
    started: str
    """Local time with its offset, ISO 8601."""
    wall_s: float
    """Time from start to end."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """Processor, cores, memory, system."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of tilestream, Python and the packages that touch pixels."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the run."""
    notes: tuple[str, ...] = ()
    """What a user should know of the run as a whole."""
    figures: Figures | None = None
    """What the run has done, by its events; None where nobody has listened."""
    timeline: Timeline | None = None
    """What its threads did over its course."""
    setting: Setting = field(default_factory=Setting)
    """What decides which knob there is for its bottleneck."""
    energy: Mapping[str, float] = field(default_factory=dict)
    """Joules that this machine has used meanwhile, `cpu_j` and `gpu_j`, where they could be measured."""

    @classmethod
    def of(
        cls,
        *,
        config: object = None,
        seconds: float = 0.0,
        course: Course | None = None,
        setting: Setting | None = None,
        **more: Any,
    ) -> RunFacts:
        """Return the facts of a run that has just ended on this machine.

        Parameters
        ----------
        config : dataclass, optional
            Options of the run.
        seconds : float
            How long it took.
        course : Course, optional
            What was heard of it.
        setting : Setting, optional
            What decides which knob there is for its bottleneck.
        **more : object
            Further fields: `notes`.

        Returns
        -------
        RunFacts
            The facts.
        """
        return cls(
            command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv[:1] != [""] else "",
            started=time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(time.time() - seconds)),
            wall_s=seconds,
            machine=machine_facts(),
            versions=version_facts(),
            options=_options(config),
            figures=None if course is None else course.figures(),
            timeline=None if course is None else course.timeline,
            setting=setting or Setting(),
            energy={} if course is None else course.energy,
            **more,
        )


def machine_facts() -> dict[str, Any]:
    """Return what figures of speed depend on; no host name.

    Returns
    -------
    dict
        Processor, usable cores, memory in bytes, system.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": usable,
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
    }


def version_facts() -> dict[str, str]:
    """Return the versions of tilestream, Python and the packages that touch pixels."""
    found = {"tilestream": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _options(config: object) -> dict[str, Any]:
    if not is_dataclass(config):
        return {}
    return {item.name: _plain(getattr(config, item.name)) for item in fields(config)}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if is_dataclass(value):  # choices that were made, without those that were left
        return {key: item for key, item in _options(value).items() if item not in (None, {}, [])}
    return str(value)
