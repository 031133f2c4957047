"""Hypothesis strategies for the records and arrays that most properties are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilestream.types import Box, Shape

SAMPLE_DTYPES = ("uint8", "uint16", "int16", "int32", "float32", "float64")
"""Types of samples that images are stored in."""


def dtypes(names: Sequence[str] = SAMPLE_DTYPES) -> st.SearchStrategy[np.dtype[Any]]:
    """Types of samples."""
    return st.sampled_from(names).map(np.dtype)


def shapes(min_px: int = 1, max_px: int = 200) -> st.SearchStrategy[Shape]:
    """Sizes, one-pixel and odd ones among them."""
    edge = st.integers(min_px, max_px)
    return st.builds(Shape, y=edge, x=edge)


@st.composite
def boxes_inside(draw: st.DrawFn, shape: Shape, level: int = 0, min_px: int = 1) -> Box:
    """Boxes that lie wholly inside `shape`."""
    height, width = draw(st.integers(min_px, shape.y)), draw(st.integers(min_px, shape.x))
    y, x = draw(st.integers(0, shape.y - height)), draw(st.integers(0, shape.x - width))
    return Box(level=level, y=y, x=x, height=height, width=width)


@st.composite
def boxes_near(draw: st.DrawFn, shape: Shape, level: int = 0, reach_px: int = 50) -> Box:
    """Boxes anywhere within `reach_px` of `shape`: across its edges, wholly outside, and empty ones too."""
    y, x = draw(st.integers(-reach_px, shape.y + reach_px)), draw(st.integers(-reach_px, shape.x + reach_px))
    height = draw(st.integers(0, shape.y + 2 * reach_px))
    width = draw(st.integers(0, shape.x + 2 * reach_px))
    return Box(level=level, y=y, x=x, height=height, width=width)


@st.composite
def images(
    draw: st.DrawFn,
    max_px: int = 64,
    channels: Sequence[int] = (1, 3, 4),
    names: Sequence[str] = ("uint8", "uint16"),
) -> np.ndarray[Any, np.dtype[Any]]:
    """Arrays `(c, y, x)` of noise; made from a seed, which shrinks better than single samples."""
    shape, dtype = draw(shapes(max_px=max_px)), draw(dtypes(names))
    generator = np.random.default_rng(draw(st.integers(0, 2**16)))
    size = (draw(st.sampled_from(channels)), shape.y, shape.x)
    if dtype.kind == "f":
        return generator.normal(size=size).astype(dtype)
    info = np.iinfo(dtype)
    return generator.integers(info.min, info.max, size=size, dtype=dtype, endpoint=True)


def finite_arrays(dtype: str = "float32", max_px: int = 16) -> st.SearchStrategy[np.ndarray[Any, np.dtype[Any]]]:
    """Small 2-D arrays of finite values that shrink to the single value that breaks a property."""
    elements = st.floats(-1e6, 1e6, width=32 if dtype == "float32" else 64)
    return hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, max_side=max_px), elements=elements)
