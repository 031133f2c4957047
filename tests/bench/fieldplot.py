"""Plots of what scores find over what is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.fieldjudge import SlideResult
from tests.bench.fieldscores import BUDGETS, Found

STYLES: Mapping[str, tuple[str, str]] = {
    "like a box": ("C0", "-"),
    "like a box, raw": ("C0", ":"),
    "entropy": ("C1", "-"),
    "gradient": ("C2", "-"),
    "residual": ("C3", "-"),
    "itti": ("C4", "-"),
    "entropy, itti and like a box": ("C5", "-"),
    "darkness": ("0.4", "--"),
    "brightness": ("0.4", "--"),
}
"""Colour and line of each score, the same in all panels."""


def plot(slide: SlideResult, cloud: Mapping[str, Mapping[str, Found]], path: Path) -> Path:
    """Draw recall over budget for the slide, pens left out by the mask of tissue and not, and for the mosaic.

    Parameters
    ----------
    slide : SlideResult
        What scores find in the slide.
    cloud : Mapping
        What they find in the mosaic, by area.
    path : Path
        Picture to write.

    Returns
    -------
    Path
        `path`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 8), layout="constrained")
    axes = figure.subplots(2, 2)
    panels = {
        "nuclei in the slide, tissue only": slide.in_tissue,
        "nuclei in the slide, everywhere": slide.everywhere,
        **{f"cloud in {area}": results for area, results in cloud.items()},
    }
    for panel, (title, results) in zip(axes.flat, panels.items(), strict=True):
        _curves(panel, results)
        panel.set(title=title, xlabel="tiles of level 0 chosen, %", ylabel="found, %", ylim=(0, 102), xlim=(0, 20.5))
    axes[0, 0].legend(fontsize=8, loc="lower right")
    axes[1, 0].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=100)
    return path


def _curves(panel: Any, results: Mapping[str, Found]) -> None:
    budgets = 100 * np.array(BUDGETS)
    panel.plot([0, 20], [0, 20], color="0.8", label="chance")
    for name, one in results.items():
        if name in STYLES:
            colour, line = STYLES[name]
            recall = 100 * np.array(one.recall)
            panel.plot(budgets, recall, color=colour, linestyle=line, marker="o", markersize=3, label=name)
