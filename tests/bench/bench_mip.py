"""Levels of an 8-bit RGB image against what users reduce images with now, and the update of a part of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from tests.bench.table import at_least, make_row, rates
from tilestream.kernels.mip import mip, update_mip
from tilestream.types import Box

EDGE_PX = 8192
UPDATE_PX = 16384
THREADS = 2
OPENCV_BAR = 1.0
TORCH_BAR = 20.0
UPDATE_BAR = 20.0
TILE_PX = 256


def noise(edge_px: int) -> npt.NDArray[np.uint8]:
    """Return 8-bit RGB pixels, interleaved."""
    return np.random.default_rng(0).integers(0, 256, (edge_px, edge_px, 3), np.uint8)


def opencv_chain(pixels: npt.NDArray[np.uint8]) -> list[Any]:
    """Return the levels by OpenCV's area interpolation, each from the one before."""
    levels = []
    while max(pixels.shape[:2]) > 1:
        size = ((pixels.shape[1] + 1) // 2, (pixels.shape[0] + 1) // 2)
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        levels.append(pixels)
    return levels


def torch_chain(pixels: npt.NDArray[np.uint8]) -> list[Any]:
    """Return the levels by torch's pooling, which has no 8-bit form: there and back through float32."""
    level = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    levels = []
    while max(level.shape[-2:]) > 1:
        level = torch.nn.functional.avg_pool2d(level, 2, ceil_mode=True)
        levels.append(level.round().to(torch.uint8))
    return levels


def _of(work: Callable[[], object], mpx: float) -> Callable[[], float]:
    def run() -> float:
        work()
        return mpx

    return run


def pyramid_rows(edge_px: int = EDGE_PX, *, rounds: int = 7, share: float = 1.0) -> list[dict[str, Any]]:
    """Return the rates of all levels, on two threads, with bars at a share of what is asked for."""
    cv2.setNumThreads(THREADS)
    torch.set_num_threads(THREADS)
    pixels = noise(edge_px)
    view = pixels.transpose(2, 0, 1)
    planar = np.ascontiguousarray(view)
    out = mip(view, threads=THREADS)
    mip(planar, threads=THREADS)
    mpx = edge_px**2 / 1e6
    work = [
        lambda: mip(view, threads=THREADS),
        lambda: opencv_chain(pixels),
        lambda: mip(view, out=out, threads=THREADS),
        lambda: mip(planar, threads=THREADS),
        lambda: mip(view, threads=1),
    ]
    ours, opencv, reused, apart, serial = rates([_of(each, mpx) for each in work], rounds=rounds)
    again, pooled = rates([_of(work[0], mpx), _of(lambda: torch_chain(pixels), mpx)], rounds=max(3, rounds // 2))
    name = f"mip of {edge_px}² 8-bit RGB"
    rival = ("OpenCV INTER_AREA chain", opencv)
    return [
        make_row(
            f"{name}, interleaved, 2 threads", ours, "Mpx/s", rival=rival, bar=at_least(share * OPENCV_BAR),
            note="all levels to one pixel; both on two threads, both allocate their levels; levels 1-4 exact here, "
            "rounded one by one there",
        ),
        make_row(f"{name}, interleaved, into given levels, 2 threads", reused, "Mpx/s", rival=rival),
        make_row(f"{name}, planar, 2 threads", apart, "Mpx/s", rival=rival, note="OpenCV on the interleaved image"),
        make_row(f"{name}, interleaved, 1 thread", serial, "Mpx/s", note="the serial form that tasks use"),
        make_row(
            f"{name}, interleaved, against torch", again, "Mpx/s", rival=("torch avg_pool2d chain", pooled),
            bar=at_least(share * TORCH_BAR), note="8 bits to float32 and back; torch on two threads",
        ),
    ]  # fmt: skip


def dirty_boxes(edge_px: int) -> dict[str, list[Box]]:
    """Return one percent of an image as one square, as tiles here and there, and as small squares all over."""
    place = np.random.default_rng(1)
    side = edge_px // 10
    found = {"one square": [Box(y=edge_px // 3, x=edge_px // 4, height=side, width=side)]}
    for name, size in ((f"scattered tiles of {TILE_PX} px", TILE_PX), ("scattered squares of 32 px", 32)):
        cells = edge_px // size
        chosen = place.choice(cells**2, round(cells**2 / 100), replace=False)
        found[name] = [Box(y=int(c) // cells * size, x=int(c) % cells * size, height=size, width=size) for c in chosen]
    return found


def update_rows(edge_px: int = UPDATE_PX, *, rounds: int = 5, share: float = 1.0) -> list[dict[str, Any]]:
    """Return how much faster an update of one percent is than a rebuild in place that gives the same bits."""
    pixels = noise(edge_px)
    view = pixels.transpose(2, 0, 1)
    levels = mip(view, threads=THREADS)
    found = []
    for name, boxes in dirty_boxes(edge_px).items():
        for box in boxes:
            pixels[box.slices_yx] ^= 0x55
        update_mip(levels, view, boxes, threads=THREADS)
        same = all(np.array_equal(a, b) for a, b in zip(levels, mip(view, threads=THREADS), strict=True))
        if not same:
            raise AssertionError(f"an update of {name} differs from a rebuild")
        update = _of(lambda boxes=boxes: update_mip(levels, view, boxes, threads=THREADS), 1.0)
        rebuild = _of(lambda: mip(view, out=levels, threads=THREADS), 1.0)
        ours, theirs = rates([update, rebuild], rounds=rounds)
        found.append(
            make_row(
                f"mip update, 1 % dirty as {name}", ours, "updates/s", rival=("rebuild in place", theirs),
                bar=None if "32 px" in name else at_least(share * UPDATE_BAR),
                note=f"{edge_px}² 8-bit RGB, {len(boxes)} boxes, bit-identical, 2 threads"
                + ("; most of it is the boxes one by one" if "32 px" in name else ""),
            )
        )  # fmt: skip
    return found


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return pyramid_rows() + update_rows()
