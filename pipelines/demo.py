"""The demonstration: the main job on one slide, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, RunOutcome, run_embed
from tilestream.pipelines.places import Places
from tilestream.pipelines.sample import Sample
from tilestream.stream.engine import Event
from tilestream.types import TileStatus


@dataclass(frozen=True, kw_only=True)
class DemoOutcome:
    """What the demonstration has made."""

    sample: Sample
    """The image and where it is from."""
    run: RunOutcome
    """Rows and report of the run."""
    store: Path | None
    """Feature store; None when the image failed."""
    tiles: int = 0
    """Tiles of the plan."""
    tiles_damaged: int = 0
    """Tiles that could not be decoded."""
    tissue_share: float | None = None
    """Share of the image that is tissue; None when it was not looked for."""
    features_shape: tuple[int, ...] = ()
    """Tiles and values a tile."""
    variable: str = ""
    """Path of the features in the store."""

    @property
    def python(self) -> tuple[str, ...]:
        """Return two lines of Python that open the features."""
        return (
            "import xarray",
            f"print(xarray.open_datatree({str(self.store)!r}, engine='zarr')[{self.variable!r}])",
        )


def run_demo(sample: Sample, config: EmbedConfig, *, on_event: Callable[[Event], None] | None = None) -> DemoOutcome:
    """Run the main job on a sample and look into what it wrote.

    Parameters
    ----------
    sample : Sample
        The image.
    config : EmbedConfig
        What to make of it.
    on_event : callable, optional
        Hears of every unit; for progress.

    Returns
    -------
    DemoOutcome
        Figures read back from the store by plain xarray.
    """
    cohort = read_cohort([str(sample.path)], out=config.out)
    run = run_embed(cohort, config, on_event=on_event)
    store = Places.of(config.out, cohort.entries[0].key).features
    if run.exit_code() or not store.is_dir():
        return DemoOutcome(sample=sample, run=run, store=None)
    variable = f"tile/{config.encoders[0].name}"
    with xr.open_datatree(store, engine="zarr") as tree:
        tile: xr.Dataset = tree["tile"].to_dataset()
        shape = tuple(tree[variable].shape)
        plan, image = tree.attrs["plan"], tree.attrs["image"]
    status = tile["status"].to_numpy()
    return DemoOutcome(
        sample=sample,
        run=run,
        store=store,
        tiles=status.size,
        tiles_damaged=int((status == TileStatus.DAMAGED).sum()),
        tissue_share=_tissue_share(tile, plan, image) if config.where == "tissue" else None,
        features_shape=shape,
        variable=variable,
    )


def _tissue_share(tile: xr.Dataset, plan: dict[str, Any], image: dict[str, Any]) -> float:
    scale_y, scale_x = plan["scale_yx"]
    tile_area = plan["tile_px"] ** 2 * scale_y * scale_x
    height, width = image["shape_yx"]
    share: float = float(tile["tissue"].to_numpy().sum()) * float(tile_area) / (height * width)
    return min(1.0, share)
