"""Whether the metadata of a multiscale Zarr image agree with its arrays and with one another.

References
----------
OME-Zarr 0.5, https://ngff.openmicroscopy.org/0.5/, sections "axes", "coordinateTransformations" and "multiscales".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tilestream.sources.zarrimages import Findings, StoredImage

SLACK_PX = 1e-3
"""How far places may lie apart that mean the same: rounding of decimal text, a thousandth of a pixel."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where the metadata put a level."""

    scale: tuple[float, ...]
    """Size of a pixel along each axis."""
    translation: tuple[float, ...]
    """Place of the centre of the first pixel along each axis."""


def check_levels(image: StoredImage, findings: Findings) -> None:
    """Compare the levels of an image with what its OME metadata say of them.

    Parameters
    ----------
    image : StoredImage
        The image.
    findings : Findings
        Told what is wrong.
    """
    first = image.arrays[0]
    for index, array in enumerate(image.arrays):
        where = f"{image.name}level {index}"
        if array.dtype != first.dtype or array.ndim != first.ndim:
            findings.problems.append(
                f"{where}: {array.dtype} with {array.ndim} axes, level 0 is {first.dtype} with {first.ndim}"
            )
        elif index and any(n > before for n, before in zip(array.shape, image.arrays[index - 1].shape, strict=True)):
            findings.problems.append(f"{where}: {array.shape}, larger than the level before it")
    axes = image.ome.get("axes")
    if isinstance(axes, list):
        _check_names(image, [axis.get("name") if isinstance(axis, Mapping) else axis for axis in axes], findings)
        _check_places(image, axes, findings)
    _check_labels(image, findings)


def _check_names(image: StoredImage, names: list[Any], findings: Findings) -> None:
    for index, array in enumerate(image.arrays):
        where = f"{image.name}level {index}"
        if array.ndim != len(names):
            findings.problems.append(f"{where}: {array.ndim} axes, the metadata name {names}")
            continue
        stated = getattr(array.metadata, "dimension_names", None)
        if array.metadata.zarr_format == 3 and (stated is None or list(stated) != names):
            findings.problems.append(f"{where}: `dimension_names` {list(stated or ())}, the axes are {names}")


def placed_levels(image: StoredImage) -> list[Placed | None]:
    """Return where the OME metadata put each level, None where that is not a scale and perhaps a translation.

    Parameters
    ----------
    image : StoredImage
        The image.

    Returns
    -------
    list of Placed or None
        In order of the levels; empty without OME metadata.
    """
    datasets = image.ome.get("datasets")
    return [_placed(dataset, image.arrays[0].ndim) for dataset in datasets] if isinstance(datasets, list) else []


def _placed(dataset: Any, axes: int) -> Placed | None:
    given = dataset.get("coordinateTransformations") if isinstance(dataset, Mapping) else None
    kinds = [one.get("type") for one in given or () if isinstance(one, Mapping)]
    if not isinstance(given, list) or kinds not in (["scale"], ["scale", "translation"]):
        return None
    scale, translation = given[0].get("scale"), given[-1].get("translation", [0.0] * axes)
    for numbers in (scale, translation):
        if not isinstance(numbers, list) or len(numbers) != axes or not all(_is_number(n) for n in numbers):
            return None
    return Placed(scale=tuple(map(float, scale)), translation=tuple(map(float, translation)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_places(image: StoredImage, axes: list[Any], findings: Findings) -> None:
    """Find levels whose scale does not fit their size, and those that lie beside the finest one."""
    places = placed_levels(image)
    finest = places[0] if places else None
    described = [axis if isinstance(axis, Mapping) else {} for axis in axes]
    space = {str(axis.get("name")): n for n, axis in enumerate(described) if axis.get("type") == "space"}
    for index, (place, array) in enumerate(zip(places, image.arrays, strict=False)):
        where = f"{image.name}level {index}"
        if place is None or finest is None or min(*place.scale, *finest.scale) <= 0:
            findings.problems.append(
                f"{where}: `coordinateTransformations` that are not one positive scale and at most one translation of "
                f"{array.ndim} numbers"
            )
            continue
        beside = {}
        for name, axis in space.items():
            factor = place.scale[axis] / finest.scale[axis]
            size, expected = array.shape[axis], image.arrays[0].shape[axis] / factor
            if abs(expected - size) >= 1:
                findings.problems.append(f"{where}: {size} pixels along {name}, its scale says {expected:.1f}")
            # the centre of the first pixel lies (f - 1)/2 level-0 pixels from that of level 0
            off = (place.translation[axis] - finest.translation[axis]) / finest.scale[axis] - (factor - 1) / 2
            if abs(off) > SLACK_PX:
                beside[name] = off
        if beside:
            told = findings.problems if image.is_ours else findings.notes
            by = ", ".join(f"{name} by {off:+.3g}" for name, off in beside.items())
            told.append(f"{where}: its translation puts it beside level 0, along {by} level-0 pixels")


def _check_labels(image: StoredImage, findings: Findings) -> None:
    if image.levels.is_labels and image.arrays[0].dtype.kind not in "ui":
        findings.problems.append(f"{image.name}labels of type {image.arrays[0].dtype}, expected integers")
