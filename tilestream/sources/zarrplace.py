"""Whether the GeoZarr attributes of a multiscale Zarr image agree with its arrays, its OME metadata and one another.

References
----------
Zarr conventions `multiscales`, `spatial` and `proj`, https://github.com/zarr-conventions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tilestream.errors import SourceError
from tilestream.sources.ngff import read_node
from tilestream.sources.recognise import inside
from tilestream.sources.zarrcheck import SLACK_PX, placed_levels
from tilestream.sources.zarrimages import Findings, StoredImage


def check_place(image: StoredImage, findings: Findings) -> None:
    """Compare `multiscales`, `spatial:` and `proj:` of an image, of its levels and of their arrays.

    Parameters
    ----------
    image : StoredImage
        The image.
    findings : Findings
        Told what is wrong.
    """
    described = image.node.attrs.get("multiscales")
    layout = described.get("layout") if isinstance(described, Mapping) else None
    if not isinstance(layout, list) or not all(isinstance(entry, Mapping) for entry in layout):
        return
    if len(layout) != len(image.arrays):
        findings.problems.append(f"{image.name}`multiscales` of {len(layout)} levels, stored are {len(image.arrays)}")
        return
    dims = list(image.node.attrs.get("spatial:dimensions") or ("y", "x"))
    for index, entry in enumerate(layout):
        _check_entry(image, index, entry, dims, findings)
    _check_factors(image, layout, findings)
    _check_box(image, layout[0], findings)


def _check_entry(image: StoredImage, index: int, entry: Mapping[str, Any], dims: list[str], findings: Findings) -> None:
    """Compare one entry of the layout with the level that it names."""
    where, array = f"{image.name}level {index}", image.arrays[index]
    asset = str(entry.get("asset"))
    if image.levels.paths[index] != asset and not image.levels.paths[index].startswith(f"{asset}/"):
        findings.problems.append(f"{where}: asset `{asset}`, the array is `{image.levels.paths[index]}`")
    names = list(getattr(array.metadata, "dimension_names", None) or ())
    if set(dims) <= set(names):
        size = [array.shape[names.index(name)] for name in dims]
        if "spatial:shape" in entry and list(entry["spatial:shape"]) != size:
            findings.problems.append(f"{where}: `spatial:shape` {entry['spatial:shape']}, the array has {size}")
    elif names:
        findings.problems.append(f"{where}: `spatial:dimensions` {dims}, the array has {names}")
    for path in dict.fromkeys((asset, image.levels.paths[index])):
        _check_node(image, path, entry, where, findings)


def _check_node(image: StoredImage, path: str, entry: Mapping[str, Any], where: str, findings: Findings) -> None:
    """Compare what a level's group or array repeats with what stands in the image's group."""
    try:
        node = read_node(inside(image.node.file, path))
    except SourceError as error:
        findings.problems.append(f"{where}: {error}")
        return
    attrs = {} if node is None else node.attrs
    for key in ("spatial:shape", "spatial:transform"):
        if key in attrs and key in entry and not _same(attrs[key], entry[key]):
            findings.problems.append(f"{where}: `{key}` {attrs[key]} in `{path}`, {entry[key]} in the layout")
    for key in ("proj:code", "proj:wkt2"):
        if key in attrs and attrs[key] != image.node.attrs.get(key):
            findings.problems.append(f"{where}: `{key}` in `{path}` is another than that of the image")


def _same(one: Any, other: Any) -> bool:
    numbers = _numbers(one), _numbers(other)
    return all(numbers) and len(numbers[0]) == len(numbers[1]) and all(map(_close, *numbers))


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def _numbers(value: Any) -> tuple[float, ...]:
    is_list = isinstance(value, list) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in value)
    return tuple(map(float, value)) if is_list else ()


def _check_factors(image: StoredImage, layout: list[Any], findings: Findings) -> None:
    """Find levels whose affine is not that of level 0 with larger pixels, or not the one that OME states."""
    affines = [_numbers(entry.get("spatial:transform")) for entry in layout]
    if any(len(affine) != 6 for affine in affines):
        return  # the convention's schema asks for six numbers
    a, b, c, d, e, f = affines[0]
    pixel_yx = math.hypot(b, e), math.hypot(a, d)
    if not all(pixel_yx):
        findings.problems.append(f"{image.name}`spatial:transform` {list(affines[0])} of pixels without a size")
        return
    for index, affine in enumerate(affines):
        where = f"{image.name}level {index}"
        factor_y = math.hypot(affine[1], affine[4]) / pixel_yx[0]
        factor_x = math.hypot(affine[0], affine[3]) / pixel_yx[1]
        expected = (a * factor_x, b * factor_y, c, d * factor_x, e * factor_y, f)
        if max(abs(one - other) for one, other in zip(affine, expected, strict=True)) > SLACK_PX * min(pixel_yx):
            findings.problems.append(f"{where}: `spatial:transform` {list(affine)} begins or turns unlike level 0")
        _check_scale(image, index, (factor_y, factor_x), pixel_yx, findings)


def _check_scale(
    image: StoredImage,
    index: int,
    factor_yx: tuple[float, float],
    pixel_yx: tuple[float, float],
    findings: Findings,
) -> None:
    """Compare the pixels of a level by OME with those by `spatial:transform`; units may differ unless we wrote both."""
    places = placed_levels(image)
    if not places or places[0] is None or (place := places[index]) is None:
        return
    where = f"{image.name}level {index}"
    for axis, factor, pixel in zip((-2, -1), factor_yx, pixel_yx, strict=True):
        stated = place.scale[axis] / places[0].scale[axis]
        if not math.isclose(stated, factor, rel_tol=1e-6):
            findings.problems.append(
                f"{where}: pixels {stated:g} times those of level 0 by OME, {factor:g} times by `spatial:transform`"
            )
        elif image.is_ours and not math.isclose(place.scale[axis], factor * pixel, rel_tol=1e-6):
            findings.problems.append(
                f"{where}: pixels of {place.scale[axis]:g} by OME, of {factor * pixel:g} by `spatial:transform`"
            )


def _check_box(image: StoredImage, finest: Mapping[str, Any], findings: Findings) -> None:
    """Compare the bounding box with the corners of the finest level."""
    affine, size = _numbers(finest.get("spatial:transform")), _numbers(finest.get("spatial:shape"))
    box = _numbers(image.node.attrs.get("spatial:bbox"))
    if len(affine) != 6 or len(size) != 2 or len(box) != 4:
        return
    a, b, c, d, e, f = affine
    corners = [(a * x + b * y + c, d * x + e * y + f) for y in (0, size[0]) for x in (0, size[1])]
    xs, ys = zip(*corners, strict=True)
    expected = (min(xs), min(ys), max(xs), max(ys))
    slack = SLACK_PX * max(math.hypot(a, d), math.hypot(b, e))
    if any(abs(one - other) > slack for one, other in zip(box, expected, strict=True)):
        findings.problems.append(f"{image.name}`spatial:bbox` {list(box)}, size and transform give {list(expected)}")
