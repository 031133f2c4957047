"""What has changed of an image, in its store too: only the chunks under changed boxes, on every level.

Chunks are replaced shard by shard, each by one rename or put; the rest of a shard keeps its bytes. While that goes on
the root says so under `updating`, so that a store left by an update that was killed is known for what it is: the same
call again completes it, and gives the bits of a rebuild.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tilestream.cache import forget_blocks
from tilestream.codecs.metadata import encode_json
from tilestream.codecs.place import Place
from tilestream.codecs.shardmap import decode_shard_map
from tilestream.errors import ConfigError, OutputError
from tilestream.pipelines.cohort import Cohort, Entry
from tilestream.pipelines.ingest import IngestConfig, StoreRow
from tilestream.pipelines.ingest_finish import FinishStore
from tilestream.pipelines.ingest_image import Opened, StorePlaces, begin_store, open_image
from tilestream.pipelines.patches import Patches
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.pyramid.reducing import recorded_reducer
from tilestream.sinks.omelabels import VALID
from tilestream.sinks.store import STORE
from tilestream.sinks.tree import OWNER, check_place
from tilestream.sources.remotefiles import forget_below
from tilestream.sources.stamps import require_unchanged, stamps_of
from tilestream.stream.journal import Journal
from tilestream.types import Box

UPDATE = "update"
"""Key of the lease that keeps two updates of one store apart."""


def update_pyramid(dst: str | Path, boxes: Sequence[Box], *, src: str | Path, filter: str | None = None) -> Pyramid:
    """Return the pyramid of a store after what has changed of its image is stored.

    Parameters
    ----------
    dst : str or path
        A store that `build_pyramid` has written, local or an fsspec URL.
    boxes : sequence of Box
        Where the image has changed, in pixels of level 0; parts outside the image do not count.
    src : str or path
        The image as it is now: of the same size, type and channels, and in the same format.
    filter : str, optional
        Where a learned downsampler has made the levels of the store: its file.

    Returns
    -------
    Pyramid
        The store, with the bits that `build_pyramid` would give it now.

    Raises
    ------
    ConfigError
        When a box is not of level 0 or lies outside the image, or the image would be stored in other arrays now.
    OutputError
        When there is no such store, another update is at work on it, or it cannot be written.
    DamagedError
        When a shard that has to be changed is damaged.

    Notes
    -----
    The time goes with the changed area and the number of shards it touches, not with the image. What an update that
    was killed has left undone, the next one does too. The image is read with the choices that it was stored with.
    """
    root = Place.of(str(dst))
    root = Place.of(root.path.absolute()) if root.is_local else root
    out, _, name = root.url.rpartition("/")
    return _update(StorePlaces.of(Place.of(out), name), boxes, str(src), filter)


def _update(places: StorePlaces, boxes: Sequence[Box], src: str, filter: str | None) -> Pyramid:
    root = places.root
    _attributes(root)  # before anything is made for a store that is none
    places.journal.prepare()
    lease = Journal(root=places.journal, recipe="").claim(UPDATE)
    if lease is None:
        raise OutputError.of(
            f"`{root.url}`", got="another update at work on it", expected="one at a time", do="Wait for it to end."
        )
    with lease:
        attributes = _attributes(root)  # anew: another update may just have ended
        record = attributes[OWNER]
        finish = _finish(places, attributes, src, filter)
        _require_inside(boxes, finish)
        # what an update that was killed has left undone belongs to this one
        left = [Box(y=y, x=x, height=height, width=width) for y, x, height, width in record.get("updating", [])]
        wanted = tuple(dict.fromkeys([*left, *boxes]))
        marked = {**attributes, OWNER: {**record, "updating": [_yxhw(box) for box in wanted]}}
        root.put("zarr.json", encode_json({**_document(root), "attributes": marked}))
        patches = Patches(finish=finish, boxes=wanted, written=_written(root, finish, record))
        damage = patches.apply(record.get("damage", []))
        require_unchanged(finish.work.stamps)
        root.put("zarr.json", finish.root(patches.written, damage))
    forget_below(root.url)
    forget_blocks()
    return open_pyramid(root.url)


def _written(root: Place, finish: FinishStore, record: Mapping[str, Any]) -> set[str]:
    """Return the paths of what a store says was written, and of its mask, of which it has no map."""
    writer = finish.work.image.writer
    found = {f"labels/{VALID.name}/{path}" for path in root.at(f"labels/{VALID.name}").sizes() if "/image/c/" in path}
    for level in writer.layout.levels:
        text = record.get("shards", {}).get(str(level.index))
        if text is not None:
            grid = decode_shard_map(text, level.shards.yx)
            found |= {writer.name(level, int(iy), int(ix)) for iy, ix in np.argwhere(grid)}
    return found


def _require_inside(boxes: Sequence[object], finish: FinishStore) -> None:
    """Refuse what is no box of the image: rows and columns exchanged, most likely."""
    whole = finish.work.image.pyramid.levels[0].box
    for box in boxes:
        if not isinstance(box, Box) or box.level:
            raise ConfigError.of(
                "`boxes`", got=repr(box), expected="boxes of level 0", do="Write ts.Box(y=…, x=…, height=…, width=…)."
            )
        if not box.intersect(whole).shape.area:
            raise ConfigError.of(
                "`boxes` (`--update`)",
                got=f"rows {box.y} to {box.y_stop}, columns {box.x} to {box.x_stop}",
                expected=f"something of the image of {whole.height} rows and {whole.width} columns",
                do="Give first row, first column, height and width in pixels of level 0.",
            )


def run_update(cohort: Cohort, config: IngestConfig, boxes: Sequence[Box]) -> tuple[StoreRow, ...]:
    """Return what became of the one input of an update on the command line.

    Parameters
    ----------
    cohort : Cohort
        One image.
    config : IngestConfig
        Where its store lies.
    boxes : sequence of Box
        Where it has changed.

    Returns
    -------
    tuple of StoreRow
        One row.

    Raises
    ------
    ConfigError
        When there are several inputs: the same rectangle hardly changed in all of them; or tiles would be fitted.
    """
    config.pixel_profile()
    if len(cohort.entries) != 1:
        raise ConfigError.of(
            "`--update`", got=f"{len(cohort.entries)} images", expected="one", do="Name the image that has changed."
        )
    (entry,) = cohort.entries
    places = StorePlaces.of(config.out, entry.key)
    root = places.root
    pyramid = _update(places, boxes, entry.url, config.reducer.file)
    damaged = (check_place(root) or {}).get("damage", [])
    summary = {"format": pyramid.info.format, "damaged": damaged}
    return (StoreRow(key=entry.key, url=entry.url, store=root.url, status="done", summary=summary),)


def _yxhw(box: Box) -> list[int]:
    return [box.y, box.x, box.height, box.width]


def _document(root: Place) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(root.get("zarr.json") or b"{}")
    return document


def _attributes(root: Place) -> dict[str, Any]:
    record = check_place(root)
    if record is None or record.get("store") != STORE:
        raise OutputError.of(
            f"`{root.url}`",
            got="nothing there" if record is None else f"a store of another kind ({record.get('store')})",
            expected="a pyramid that tilestream has stored",
            do="Store the image first: `tilestream ingest`.",
        )
    attributes: dict[str, Any] = _document(root)["attributes"]
    return attributes


def _finish(places: StorePlaces, attributes: dict[str, Any], src: str, filter: str | None) -> FinishStore:
    """Return what would finish the store if it were built anew in its place, checked to be the one that is there."""
    root, record = places.root, attributes[OWNER]
    choices = record["choices"]
    entry = Entry(
        key=root.name,
        url=src,
        id=root.name,
        mpp=choices["mpp"],
        light=choices.get("light"),
        bands=tuple(choices["bands"]),
        is_explicit=True,
    )
    config = IngestConfig(
        out=root,
        profile=record["profile"],
        fill_levels=choices["fill_levels"],
        jpegxl=choices.get("jpegxl", False),
        keep_identifying=choices["keep_identifying"],
        invalid={layer: tuple(classes) for layer, classes in choices["invalid"].items()},
        decibels=choices["decibels"],
        reducer=recorded_reducer(choices.get("filter"), filter),
    )
    opened = open_image(entry, config)
    _require_same(root, opened, len(attributes["multiscales"]["layout"]))
    return begin_store(opened, config, places, staging=root, stamps=stamps_of(opened.pyramid.source))


def _require_same(root: Place, opened: Opened, levels: int) -> None:
    """Raise unless the arrays of a store are those that the image would be stored in."""
    layout = opened.layout
    names = ("shape", "data_type", "chunk_grid", "codecs", "fill_value", "dimension_names")
    if levels != len(layout.levels):
        raise _other(root, f"{levels} levels", f"{len(layout.levels)}")
    for level in layout.levels:
        wanted = layout.metadata(level)
        there = json.loads(root.get(f"{level.index}/image/zarr.json") or b"{}")
        for name in names:
            if there.get(name) != json.loads(json.dumps(wanted[name])):
                raise _other(root, f"{name} {there.get(name)} on level {level.index}", f"{wanted[name]}")


def _other(root: Place, got: str, expected: str) -> ConfigError:
    return ConfigError.of(
        f"`{root.url}`",
        got=got,
        expected=f"{expected}, as its image would be stored now",
        do="Store it anew: `tilestream ingest --no-resume`.",
    )
