"""Layers of classes beside the bands of a scene: what their numbers and bits mean, and tests on them.

References
----------
Sentinel-2 Products Specification Document, scene classification; Landsat Collection 2 data format control books
(LSDS-1328, LSDS-1415, LSDS-1414) and Collection 1 (LSDS-1834); HLS v2.0 user guide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.types import Array, ClassBand

Rules: TypeAlias = Mapping[str, Sequence[int | str]]
"""Layer → classes: numbers, names, `bit3`, or `bits8-9:3` for a field of several bits."""

_SCL = (
    "no_data", "saturated_or_defective", "dark_area", "cloud_shadow", "vegetation", "not_vegetated", "water",
    "unclassified", "cloud_medium_probability", "cloud_high_probability", "thin_cirrus", "snow_or_ice",
)  # fmt: skip
_CONFIDENCE = {"cloud_confidence": (8, 2), "cloud_shadow_confidence": (10, 2), "snow_ice_confidence": (12, 2)}
_KNOWN = (
    ClassBand(name="SCL", values=dict(enumerate(_SCL))),
    ClassBand(
        name="QA_PIXEL",
        bits={
            "fill": (0, 1), "dilated_cloud": (1, 1), "cirrus": (2, 1), "cloud": (3, 1), "cloud_shadow": (4, 1),
            "snow": (5, 1), "clear": (6, 1), "water": (7, 1), **_CONFIDENCE, "cirrus_confidence": (14, 2),
        },
    ),
    ClassBand(
        name="BQA",
        bits={
            "fill": (0, 1), "terrain_occlusion": (1, 1), "radiometric_saturation": (2, 2), "cloud": (4, 1),
            "cloud_confidence": (5, 2), "cloud_shadow_confidence": (7, 2), "snow_ice_confidence": (9, 2),
            "cirrus_confidence": (11, 2),
        },
    ),
    ClassBand(name="QA_RADSAT", bits={f"band{number}_saturated": (number - 1, 1) for number in range(1, 8)}),
    ClassBand(
        name="SR_QA_AEROSOL",
        bits={
            "fill": (0, 1), "valid_retrieval": (1, 1), "water": (2, 1), "interpolated": (5, 1), "aerosol_level": (6, 2),
        },
    ),
    ClassBand(
        name="SR_CLOUD_QA",
        bits={
            "dark_dense_vegetation": (0, 1), "cloud": (1, 1), "cloud_shadow": (2, 1), "adjacent_to_cloud": (3, 1),
            "snow": (4, 1), "water": (5, 1),
        },
    ),
    ClassBand(
        name="Fmask",
        bits={
            "cirrus": (0, 1), "cloud": (1, 1), "adjacent": (2, 1), "cloud_shadow": (3, 1), "snow_ice": (4, 1),
            "water": (5, 1), "aerosol_level": (6, 2),
        },
    ),
)  # fmt: skip
KNOWN = {band.name.casefold(): band for band in _KNOWN}
"""Layers of known products by their name in lower case."""


@dataclass(frozen=True, kw_only=True)
class ClassTest:
    """One class: pixels whose masked value is this one."""

    value: int
    """What is compared."""
    mask: int | None = None
    """Bits that count; None = all."""

    @property
    def word(self) -> str:
        """Return the class in the one spelling that recipes have: `8`, `bit3` or `bits8-9:3`."""
        if self.mask is None:
            return str(self.value)
        last, first = self.mask.bit_length() - 1, (self.mask & -self.mask).bit_length() - 1
        if last == first and self.value:
            return f"bit{first}"
        return f"bits{first}-{last}:{self.value >> first}"


@dataclass(frozen=True, kw_only=True)
class ClassRule:
    """Some classes of one layer."""

    band: str
    """Name of the layer."""
    tests: tuple[ClassTest, ...]
    """What is compared, in one order whatever the user's was."""

    @property
    def text(self) -> str:
        """Return the rule as a user may write it."""
        return f"{self.band}={','.join(test.word for test in self.tests)}"

    def matches(self, pixels: Array) -> npt.NDArray[np.bool_]:
        """Return where any of the classes is.

        Parameters
        ----------
        pixels : ndarray of int
            Numbers of the layer.

        Returns
        -------
        ndarray of bool
            The same shape.
        """
        found = np.zeros(pixels.shape, np.bool_)
        whole = [test.value for test in self.tests if test.mask is None]
        if whole:
            found |= np.isin(pixels, whole)
        for test in self.tests:
            if test.mask is not None:
                found |= (pixels & pixels.dtype.type(test.mask)) == test.value
        return found


def parse_invalid(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the classes that are not valid by layer, from options such as `SCL=3,8,9,10`.

    Parameters
    ----------
    texts : iterable of str
        `LAYER=CLASS,CLASS…`; a layer that is named twice has all the classes.

    Returns
    -------
    dict
        Words by layer; nothing is looked up yet.

    Raises
    ------
    ConfigError
        When one of them is not of that form.
    """
    rules: dict[str, tuple[str, ...]] = {}
    for text in texts:
        band, mark, listed = text.partition("=")
        words = tuple(word.strip() for word in listed.split(","))
        if not (band.strip() and mark and all(words)):
            raise ConfigError.of(
                "`invalid` (`--invalid`)",
                got=f"`{text}`",
                expected="a layer and its classes, such as SCL=3,8,9,10 or QA_PIXEL=bit3,bit4",
                do="Look at the layers that `tilestream info` lists.",
            )
        rules[band.strip()] = (*rules.get(band.strip(), ()), *words)
    return rules


def find_band(name: str, bands: Sequence[ClassBand], absent: Mapping[str, str]) -> ClassBand:
    """Return the layer of a name.

    Parameters
    ----------
    name : str
        Its name; case counts only where two differ in nothing else.
    bands : sequence of ClassBand
        Layers of the image.
    absent : Mapping
        Names that the metadata has and that cannot be had, with the reason.

    Returns
    -------
    ClassBand
        The layer.

    Raises
    ------
    ConfigError
        When there is no such layer.
    """
    exact = [band for band in bands if band.name == name]
    found = exact or [band for band in bands if band.name.casefold() == name.casefold()]
    if len(found) == 1:
        return found[0]
    reason = next((why for other, why in absent.items() if other.casefold() == name.casefold()), None)
    raise ConfigError.of(
        f"class layer `{name}`",
        got="a layer that the image does not have" if reason is None else reason,
        expected=f"one of {', '.join(band.name for band in bands)}" if bands else "no layer: the image has none",
        do="Look at the layers that `tilestream info` lists.",
    )


def class_rule(band: ClassBand, words: Sequence[int | str], dtype: np.dtype[Any]) -> ClassRule:
    """Return the rule for some classes of a layer.

    Parameters
    ----------
    band : ClassBand
        The layer.
    words : sequence of int or str
        Its classes.
    dtype : dtype
        Type of its numbers.

    Returns
    -------
    ClassRule
        Ready to test pixels.

    Raises
    ------
    ConfigError
        When a class does not exist, or none is given.
    """
    texts = [str(word).strip() for word in ([words] if isinstance(words, str) else words)]
    if not texts:
        raise ConfigError.of(f"classes of `{band.name}`", got="none", expected=_choices(band), do="Name some.")
    tests = {_test(band, text, dtype) for text in texts}
    return ClassRule(band=band.name, tests=tuple(sorted(tests, key=lambda test: (test.mask or 0, test.value))))


def _test(band: ClassBand, text: str, dtype: np.dtype[Any]) -> ClassTest:
    limits = np.iinfo(dtype)
    test = _number(text) or _bits(text) or _named(band, text)
    if test is None:
        raise _unknown(band, text, _choices(band))
    if test.mask is None:
        known = band.values
        if not limits.min <= test.value <= limits.max or (known and test.value not in known):
            raise _unknown(band, text, _choices(band) if known else f"{limits.min} to {limits.max}")
    elif test.mask.bit_length() > limits.bits or test.value & ~test.mask:
        raise _unknown(band, text, f"bits 0 to {limits.bits - 1}, and a value that fits into them")
    return test


def _number(text: str) -> ClassTest | None:
    return ClassTest(value=int(text)) if re.fullmatch(r"-?\d{1,18}", text, re.ASCII) else None


def _bits(text: str) -> ClassTest | None:
    """Return the test for `bit3` or `bits8-9:3`."""
    if match := re.fullmatch(r"bit(\d{1,2})", text, re.ASCII):
        return ClassTest(value=1 << int(match[1]), mask=1 << int(match[1]))
    if match := re.fullmatch(r"bits(\d{1,2})-(\d{1,2}):(\d{1,9})", text, re.ASCII):
        first, last, value = (int(part) for part in match.groups())
        if last >= first:
            return ClassTest(value=value << first, mask=((1 << (last - first + 1)) - 1) << first)
    return None


def _named(band: ClassBand, text: str) -> ClassTest | None:
    """Return the test for the name of a class, of a bit, or `field:value`."""
    for value, name in band.values.items():
        if name == text:
            return ClassTest(value=value)
    name, mark, value_text = text.partition(":")
    if name not in band.bits or (mark and not re.fullmatch(r"\d{1,9}", value_text, re.ASCII)):
        return None
    first, count = band.bits[name]
    if count > 1 and not mark:
        return None  # which of its values?
    return ClassTest(value=(int(value_text) if mark else 1) << first, mask=((1 << count) - 1) << first)


def _choices(band: ClassBand) -> str:
    if band.values:
        return "one of " + ", ".join(f"{value} ({name})" for value, name in band.values.items())
    if band.bits:
        named = [name if count == 1 else f"{name}:0…{(1 << count) - 1}" for name, (_, count) in band.bits.items()]
        return f"one of {', '.join(named)}, or bits such as bit3 and bits8-9:3"
    return "whole numbers, or bits such as bit3 and bits8-9:3"


def _unknown(band: ClassBand, text: str, expected: str) -> ConfigError:
    return ConfigError.of(f"class of `{band.name}`", got=f"`{text}`", expected=expected, do="Correct it.")
