"""Class layers of a store of ours: which lie under `labels/`, and what their numbers mean by the CF flags of the array.

References
----------
CF conventions 1.11, section 3.5 (flags).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from tilestream.sources.ngff import Node, read_node
from tilestream.sources.recognise import inside
from tilestream.types import ClassBand

FOLDER = "labels"


def layers_of(node: Node, *, image: str) -> tuple[ClassBand, ...]:
    """Return the class layers that a group lists.

    Parameters
    ----------
    node : Node
        Group of an image.
    image : str
        Path of the image's finest array in it; each layer has the same inside.

    Returns
    -------
    tuple of ClassBand
        Sorted by name; the mask of validity is none.
    """
    labels = read_node(inside(node.file, FOLDER))
    ome = labels.attrs.get("ome") if labels is not None else None
    names = ome.get("labels") if isinstance(ome, Mapping) else None
    if not isinstance(names, list):
        return ()
    found = []
    for name in sorted(name for name in names if isinstance(name, str) and name != "valid" and "/" not in name):
        array = read_node(inside(node.file, f"{FOLDER}/{name}/{image}"))
        if array is not None:
            found.append(band_of_flags(name, array.attrs))
    return tuple(found)


def band_of_flags(name: str, attrs: Mapping[str, Any]) -> ClassBand:
    """Return what the numbers of an array mean.

    Parameters
    ----------
    name : str
        Name of the layer.
    attrs : Mapping
        With `flag_meanings` and `flag_values`, or `flag_masks` for bit fields, or none of these.

    Returns
    -------
    ClassBand
        Without meanings where the attributes have none, or contradict each other.
    """
    meanings, values, masks = (attrs.get(f"flag_{word}") for word in ("meanings", "values", "masks"))
    names = meanings.split() if isinstance(meanings, str) else []
    if _are_numbers(masks, len(names)):
        return ClassBand(name=name, bits=_bits(names, masks))
    if _are_numbers(values, len(names)):
        return ClassBand(name=name, values=dict(zip(values, names, strict=True)))
    return ClassBand(name=name)


def _are_numbers(value: Any, count: int) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) == count > 0 and all(type(item) is int for item in value)


def _bits(names: list[str], masks: list[int]) -> dict[str, tuple[int, int]]:
    """Return first bit and width of each field; one of several bits has a meaning for each of its values."""
    bits: dict[str, tuple[int, int]] = {}
    for name, mask in zip(names, masks, strict=True):
        if mask <= 0:
            continue
        first = (mask & -mask).bit_length() - 1
        width = mask.bit_length() - first
        bits.setdefault(name if width == 1 else name.rpartition("_")[0] or name, (first, width))
    return bits
