"""Attention maps of a cohort: stores and figures of what a hierarchical encoder looks at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client

from tilestream.errors import TilestreamError
from tilestream.pipelines.attend_figure import (
    Layer,
    Subject,
    Words,
    draw_heads,
    draw_overview,
    recipe_of,
    require_figures,
)
from tilestream.pipelines.cohort import Cohort, Entry
from tilestream.pipelines.embed import RunOutcome
from tilestream.pipelines.image import chosen
from tilestream.pipelines.map_run import MapConfig, run_map, sole
from tilestream.pipelines.report_rows import InputRow
from tilestream.pyramid.display import display_pixels
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sinks.tree import check_place
from tilestream.stream.engine import Event
from tilestream.stream.leasefiles import lease_file
from tilestream.types import Box, Region

STAGE = "attention"
"""Registered name of the stage, which stores and figures carry."""
OVERVIEW_PX = 1400
"""Longest edge of the image in a figure."""
REGION_PX = 700
"""Longest edge of the region in the figure of its heads."""
FULLEST_PX = 16
"""Longest edge of the small regions by which the fullest one is found."""
ENDINGS = {"overview": ".attention.png", "heads": ".heads.attention.png"}
"""Figure → ending behind the whole name of an input."""
LEGEND = "attention: percentile rank within a region\n(100 = what the networks look at most)"
NOTES = ("Each region is ranked by itself: colours of two regions cannot be compared.",)


def run_attend(
    cohort: Cohort,
    config: MapConfig,
    *,
    on_event: Callable[[Event], None] | None = None,
    client: Client | None = None,
) -> RunOutcome:
    """Make attention maps of every image of a cohort, and figures of them.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    config : MapConfig
        With the stage `attention` and its parameters.
    on_event : callable, optional
        Hears of every unit and image; for progress.
    client : distributed.Client, optional
        Where to run; by default one is opened for `config.cluster` and closed again.

    Returns
    -------
    RunOutcome
        As `run_map`: an image whose figures cannot be drawn has failed, its map is kept.

    Raises
    ------
    ConfigError, OutputError
        As `run_map`, and where figures cannot be drawn at all.
    """
    require_figures()
    then = partial(_drawn, entries={entry.key: entry for entry in cohort.entries}, config=config)
    return run_map(cohort, config, on_event=on_event, then=then, client=client)


def _drawn(rows: tuple[InputRow, ...], *, entries: Mapping[str, Entry], config: MapConfig) -> tuple[InputRow, ...]:
    """Return the rows after the finished maps are figures too; one that cannot be drawn fails its input."""
    changed = []
    with sole(lease_file(config.place.at("receipts"), f".{STAGE}.png.lease")):  # the others find the figures drawn
        for row in rows:
            if row.status != "done" or row.path not in entries or row.is_lost:
                changed.append(row)
                continue
            try:
                files = draw_attention(entries[row.path], config)
            except Exception as error:  # noqa: BLE001 - whatever one image does to a parser, the others go on
                told = str(error) if isinstance(error, TilestreamError) else f"{type(error).__name__}: {error}"
                changed.append(replace(row, status="failed", reason=f"the map is there, its figures are not: {told}"))
            else:
                changed.append(replace(row, outputs=(*row.outputs, *files)))
    return tuple(changed)


def draw_attention(entry: Entry, config: MapConfig) -> tuple[str, ...]:
    """Draw the figures of one finished map, unless they are there.

    Parameters
    ----------
    entry : Entry
        The input.
    config : MapConfig
        Of the run that has made the map.

    Returns
    -------
    tuple of str
        Paths of the figures in the folder of all outputs: the mean over the whole image, and every head of one region
        where they are stored.
    """
    store = open_pyramid(str(config.out / f"{entry.key}.{STAGE}.zarr"), cache_bytes=0)
    names = [channel.name for channel in store.channels]
    files = {name: f"{entry.key}{ending}" for name, ending in ENDINGS.items()}
    if "mean" not in names:
        del files["overview"]
    if len(_heads(names)) == 0:
        del files["heads"]
    left = [name for name, file in files.items() if recipe_of(config.out / file) != store.fingerprint]
    if left:
        image = chosen(open_pyramid(entry.url, cache_bytes=config.cache_bytes), entry, config)
        figures = _Figures(key=entry.key, image=image, store=store, config=config)
        for name in left:
            getattr(figures, name)(config.out / files[name])
    return tuple(files.values())


@dataclass(frozen=True, kw_only=True)
class _Figures:
    """The figures of one map."""

    key: str
    image: Pyramid
    store: Pyramid
    config: MapConfig

    def overview(self, path: Path) -> None:
        """Draw the mean of all heads over the whole image."""
        whole = self.store.levels[0].box
        draw_overview(
            path,
            self._subject(self.image.levels[0].box, OVERVIEW_PX),
            self._maps(self.store.thumbnail(OVERVIEW_PX), whole, ["mean"])[0],
            words=self._words("mean of all heads"),
        )

    def heads(self, path: Path) -> None:
        """Draw every head over the region of which most has values."""
        box = self._fullest()
        region = self.store.read_region(box)
        names = [channel.name for channel in self.store.channels]
        rows = {edge: self._maps(region, box, found) for edge, found in _heads(names).items()}
        mean = self._maps(region, box, ["mean"])[0] if "mean" in names else None
        cell_y, cell_x = self.cell_yx
        level0 = self.image.levels[0].box
        y, x = round(box.y * cell_y), round(box.x * cell_x)
        area = Box(
            y=y,
            x=x,
            height=min(round(box.height * cell_y), level0.height - y),
            width=min(round(box.width * cell_x), level0.width - x),
        )
        words = self._words(f"heads over the region at y {y:,}, x {x:,} px")
        draw_heads(path, self._subject(area, REGION_PX), mean, rows, words=words)

    @property
    def cell_yx(self) -> tuple[float, float]:
        """Return the size of a pixel of the store in level-0 pixels of the image."""
        ours, theirs = self.store.info.mpp_yx, self.image.info.mpp_yx
        if ours is None or theirs is None:
            stride = float(self._record["stride"])  # of an image of unknown resolution, which is taken as it is
            return stride, stride
        return ours[0] / theirs[0], ours[1] / theirs[1]

    @property
    def _record(self) -> Mapping[str, Any]:
        record: Mapping[str, Any] = (check_place(self.config.place.at(f"{self.key}.{STAGE}.zarr")) or {})["map"]
        return record

    def _subject(self, area: Box, out_px: int) -> Subject:
        shown = display_pixels(self.image.crop(area, out_px), self.image.channels)
        layer = Layer(pixels=shown, yxhw=(area.y, area.x, area.height, area.width))
        return Subject(image=layer, mpp=self.image.mpp, recipe=self.store.fingerprint)

    def _maps(self, region: Region, box: Box, names: Sequence[str]) -> list[Layer]:
        """Return some channels of what was read of a box of the store."""
        cell_y, cell_x = self.cell_yx
        yxhw = box.y * cell_y, box.x * cell_x, box.height * cell_y, box.width * cell_x
        found = []
        for number, channel in enumerate(self.store.channels):
            if channel.name in names:
                values = region.pixels[number] * np.float32(channel.scale) + np.float32(channel.offset)
                found.append(Layer(pixels=np.where(region.valid, values, np.float32("nan")), yxhw=yxhw))
        return found

    def _fullest(self) -> Box:
        """Return the region of which most has values, the first of equals."""
        edge, whole = self._record["tile_px"] // self._record["stride"], self.store.levels[0].box
        best, most = whole, -1
        for y in range(0, whole.height, edge):
            for x in range(0, whole.width, edge):
                box = Box(y=y, x=x, height=min(edge, whole.height - y), width=min(edge, whole.width - x))
                known = int(np.count_nonzero(self.store.crop(box, FULLEST_PX).valid)) * box.height * box.width
                best, most = (box, known) if known > most else (best, most)
        return best

    def _words(self, what: str) -> Words:
        params = self.config.stage_params
        seed = params.get("random_weights")
        warning = "" if seed is None else f"RANDOM WEIGHTS (seed {seed}): the colours have no meaning"
        return Words(
            title=f"{self.key}\nattention of {params['encoder']}, {what}", legend=LEGEND, notes=NOTES, warning=warning
        )


def _heads(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of the maps of single heads by network, that of regions first."""
    found: dict[str, list[str]] = {}
    for name in names:
        edge, _, head = name.partition("_")
        if head.isdigit():
            found.setdefault(edge, []).append(name)
    return found
