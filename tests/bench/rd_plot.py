"""The plot of a panel: quality over rate, one axis a group of pictures, or a picture where there is one group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.rd_table import panels_of, title_of
from tilestream.codecs import CONVENTIONAL, Curve

RATES = np.geomspace(0.1, 12, 60)
COLOURS = {name: f"C{index}" for index, name in enumerate(CONVENTIONAL)}
"""Conventional codecs are lines, all else is dashed with its points."""
COLUMNS = 3


def plot(curves: Sequence[Curve], groups: Mapping[str, str], path: Path) -> Path:
    """Draw mean PSNR over bits per pixel for each group, or PSNR for each picture, and write the picture.

    Parameters
    ----------
    curves : sequence of Curve
        Of all pictures.
    groups : Mapping
        From the name of a picture to that of its group.
    path : Path
        Picture to write.

    Returns
    -------
    Path
        `path`.
    """
    from matplotlib.figure import Figure

    seen = {curve.picture: groups[curve.picture] for curve in curves}
    panels = panels_of(curves, groups if len(set(seen.values())) > 1 else {picture: picture for picture in seen})
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    others = [name for name in dict.fromkeys(curve.codec for curve in curves) if name not in COLOURS]
    for panel, (group, count, of_group) in zip(axes, panels, strict=False):
        for codec in dict.fromkeys(curve.codec for curve in of_group):
            style = {"color": COLOURS[codec]} if codec in COLOURS else _dashed(others.index(codec))
            _draw(panel, [curve for curve in of_group if curve.codec == codec], **style)
        title = f"{group} ({count})" if count > 1 else group
        panel.set(title=title.replace("`", ""), xscale="log", xlabel="bits per pixel", ylabel="PSNR, dB")
        ticks = [0.125, 0.25, 0.5, 1, 2, 4, 8]
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.set_xticks([], minor=True)
        panel.grid(color="0.9")
        panel.legend(fontsize=7)
    for panel in axes[len(panels) :]:
        panel.remove()
    figure.savefig(path, dpi=100)
    return path


def _dashed(index: int) -> dict[str, Any]:
    return {"color": ("black", "0.45", "tab:olive", "tab:cyan", "tab:gray")[index % 5], "linestyle": "--"}


def _draw(panel: Any, curves: Sequence[Curve], **style: Any) -> None:
    """Draw the mean over pictures where each of them has a value; where they never meet, the points of each."""
    label = title_of(curves[0].codec)
    values = np.array([[curve.at(rate) for rate in RATES] for curve in curves])
    everywhere = np.isfinite(values).all(axis=0)
    if everywhere.any():
        panel.plot(RATES[everywhere], values[:, everywhere].mean(axis=0), label=label, **style)
        return
    for index, curve in enumerate(curves):
        points = sorted((p.bpp, p.scores["psnr"]) for p in curve.points if np.isfinite(p.scores["psnr"]))
        panel.plot(*zip(*points, strict=True), label=None if index else label, marker="o", markersize=3, **style)
