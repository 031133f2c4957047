"""The levels of a DICOM series: which instances make which level, and what they say of the slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.sources.address import default_notes
from tilestream.sources.dicomdecode import colour_note, sample_dtype
from tilestream.sources.dicomfile import Identity, Instance, frame_index, read_instance
from tilestream.sources.dicomframes import refuse
from tilestream.sources.fingerprint import digest
from tilestream.sources.samples import unique_names
from tilestream.sources.scales import level_scale
from tilestream.types import Channel, ImageInfo, Level, Modality, Shape

_FLUORESCENCE, _BRIGHTFIELD = frozenset({"111743"}), frozenset({"111744", "111741"})
"""DCM codes of IlluminationTypeCodeSequence: epifluorescence; brightfield and transmission."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One instance of a level with the tiles that it holds."""

    instance: Instance
    """Header and frames."""
    index: npt.NDArray[np.int32]
    """`(paths, planes, rows, columns)` frame numbers."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """The levels of one series: per level its parts, which together hold all its frames."""

    levels: tuple[tuple[Part, ...], ...]
    """Finest first."""
    paths: int
    """Optical paths, all parts of a level together."""
    planes: int
    """Focal planes."""

    @property
    def first(self) -> Instance:
        """Return the instance that speaks for the series."""
        return self.levels[0][0].instance

    @property
    def paths_are_channels(self) -> bool:
        """Return whether each optical path is one channel; a path in colour is an image of its own."""
        return int(self.first.get("SamplesPerPixel", 1)) == 1


def frame_of(parts: Sequence[Part], path: int, plane: int, at_yx: tuple[int, int]) -> tuple[Instance, int] | None:
    """Return the instance and frame that show a tile, None where none is stored.

    Parameters
    ----------
    parts : sequence of Part
        Instances of the level.
    path, plane : int
        Optical path and focal plane.
    at_yx : tuple of int, int
        Row and column of the tile.

    Returns
    -------
    tuple of Instance and int, or None
        Where it is.
    """
    for part in parts:
        if path < part.index.shape[0]:
            number = int(part.index[(path, min(plane, part.index.shape[1] - 1), *at_yx)])
            if number >= 0:
                return part.instance, number
        if not part.instance.get("ConcatenationUID"):
            path -= part.index.shape[0]  # parts that are no concatenation hold one optical path after the other
        if path < 0:
            break
    return None


def parse_series(members: Sequence[Identity]) -> Series:
    """Return the levels that the instances of one slide make.

    Parameters
    ----------
    members : sequence of Identity
        Instances that show the slide.

    Returns
    -------
    Series
        Levels by size, finest first.

    Raises
    ------
    SourceError
        When a header cannot be read or lacks what a tiled image needs.
    """
    by_size: dict[Shape, list[Part]] = {}
    for identity in members:
        instance = read_instance(identity)
        planes = int(instance.get("TotalPixelMatrixFocalPlanes", 1))
        paths = int(instance.get("NumberOfOpticalPaths", 0)) or max(1, len(instance.get("OpticalPathSequence", ())))
        part = Part(instance=instance, index=frame_index(instance, planes, paths))
        by_size.setdefault(instance.matrix, []).append(part)
    levels = tuple(tuple(_level_parts(parts)) for _, parts in sorted(by_size.items(), key=lambda i: -i[0].area))
    first = levels[0]
    stacked = [part for part in first if not part.instance.get("ConcatenationUID")]
    paths = sum(part.index.shape[0] for part in stacked) or first[0].index.shape[0]
    return Series(levels=levels, paths=paths, planes=max(part.index.shape[1] for part in first))


def _level_parts(parts: list[Part]) -> list[Part]:
    """Return the parts of one level in order; of several that are the same image the first is taken."""
    parts = sorted(
        parts,
        key=lambda part: (
            int(part.instance.get("ConcatenationFrameOffsetNumber", 0)),
            _path_names(part.instance),
            part.instance.identity.file.url,
        ),
    )
    first = parts[0].instance
    tiles = {part.instance.tile for part in parts}
    if len(tiles) > 1:
        return parts[:1]
    if first.get("ConcatenationUID"):
        return [part for part in parts if part.instance.get("ConcatenationUID") == first.get("ConcatenationUID")]
    seen: set[tuple[str, ...]] = set()
    kept = []
    for part in parts:
        names = _path_names(part.instance)
        if names not in seen and (not seen or int(part.instance.get("SamplesPerPixel", 1)) == 1):
            kept.append(part)
        seen.add(names)
    return kept


def _path_names(instance: Instance) -> tuple[str, ...]:
    paths = instance.get("OpticalPathSequence", ())
    return tuple(
        str(path.get("OpticalPathDescription") or path.get("OpticalPathIdentifier") or number)
        for number, path in enumerate(paths)
    )


def describe(series: Series) -> ImageInfo:
    """Return the description of a series with the first focal plane and optical path chosen.

    Parameters
    ----------
    series : Series
        The levels.

    Returns
    -------
    ImageInfo
        No field of the patient, the specimen or the institution is in it.

    Raises
    ------
    SourceError
        When its samples cannot be read.
    """
    first = series.first
    whole = first.matrix
    levels = tuple(
        Level(
            index=index,
            shape=parts[0].instance.matrix,
            block=parts[0].instance.tile,
            scale_yx=level_scale(whole, parts[0].instance.matrix),
        )
        for index, parts in enumerate(series.levels)
    )
    samples = int(first.get("SamplesPerPixel", 1))
    channels = _channels(series, samples)
    extra = {"z": series.planes} if series.planes > 1 else {}
    if not series.paths_are_channels and series.paths > 1:
        extra["path"] = series.paths
    mpp_yx = _mpp(first)
    notes = [] if mpp_yx else ["pixel size unknown: the header states none"]
    if first.get("PhotometricInterpretation") == "MONOCHROME1":
        notes.append("white is stored as 0: values are left as they are stored")
    wrong = [(note, n) for n, parts in enumerate(series.levels) if (note := colour_note(parts[0].instance))]
    if wrong:
        on = "all levels" if len(wrong) == len(levels) else f"levels {', '.join(str(n) for _, n in wrong)}"
        notes.append(f"{wrong[0][0]} ({on})")
    return ImageInfo(
        format="dicom-wsi",
        levels=levels,
        dtype=_dtype(series),
        channels=channels,
        fingerprint=fingerprint_of(series),
        modality=_modality(first, samples),
        mpp_yx=mpp_yx,
        validity="mask" if _is_sparse(series) else None,
        axes={"c": len(channels), "y": whole.y, "x": whole.x, **extra},
        selection=dict.fromkeys(extra, 0),
        notes=(*notes, *default_notes(extra, {})),
    )


def _is_sparse(series: Series) -> bool:
    """Return whether tiles of the finest level are not stored."""
    stored = sum(int((part.index >= 0).sum()) for part in series.levels[0])
    return stored < series.first.grid.area * series.paths * series.planes


def _dtype(series: Series) -> np.dtype[Any]:
    instances = [part.instance for parts in series.levels for part in parts]
    types = {(sample_dtype(one), int(one.get("SamplesPerPixel", 1))) for one in instances}
    if len(types) > 1:
        raise refuse(instances[0].identity.file, got=f"levels of types {types}", expected="one type of samples")
    return types.pop()[0]


def _channels(series: Series, samples: int) -> tuple[Channel, ...]:
    if samples == 3:
        return tuple(Channel(name=name) for name in "RGB")
    names = [name for part in series.levels[0] for name in _path_names(part.instance)][: series.paths]
    names += [f"c{number}" for number in range(len(names), series.paths)]
    return tuple(Channel(name=name) for name in unique_names(names))


def _mpp(instance: Instance) -> tuple[float, float] | None:
    shared = instance.get("SharedFunctionalGroupsSequence")
    measures = shared[0].get("PixelMeasuresSequence") if shared else None
    spacing = measures[0].get("PixelSpacing") if measures else None
    if spacing is not None and len(spacing) == 2 and all(float(value) > 0 for value in spacing):
        return float(spacing[0]) * 1e3, float(spacing[1]) * 1e3  # rows first, in mm
    height, width = instance.get("ImagedVolumeHeight", 0.0), instance.get("ImagedVolumeWidth", 0.0)
    if height > 0 and width > 0:
        return float(height) * 1e3 / instance.matrix.y, float(width) * 1e3 / instance.matrix.x
    return None


def _modality(instance: Instance, samples: int) -> Modality:
    """Return the modality by the illumination code, else brightfield for RGB and unknown for grey."""
    codes = {
        str(code.get("CodeValue", ""))
        for path in instance.get("OpticalPathSequence", ())
        for code in path.get("IlluminationTypeCodeSequence") or ()
    }
    if codes & _FLUORESCENCE:
        return "fluorescence"
    return "brightfield" if codes & _BRIGHTFIELD or samples == 3 else "unknown"


def fingerprint_of(series: Series) -> str:
    """Return the hash of identifiers, sizes and frame tables of all instances.

    Parameters
    ----------
    series : Series
        The levels.

    Returns
    -------
    str
        Hex digest.
    """
    facts: list[object] = []
    for parts in series.levels:
        for part in parts:
            one = part.instance
            facts += [one.identity.file.size, one.get("SOPInstanceUID"), one.syntax, one.matrix.yx, one.tile.yx]
            facts += [one.table.tobytes(), part.index.tobytes()]
    return digest("dicom", series.first.identity.series, *facts)
