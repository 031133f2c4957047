"""What a scorer is trained on: coarse tiles of images with marked parts, or slides with features and a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.pipelines.encoder import encoder_spec, require_output
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pipelines.train_cohort import TrainingSet, listed, training_set
from tilestream.plan.selection import tile_shares
from tilestream.plan.tiles import TilePlan
from tilestream.plan.where import select
from tilestream.pyramid import Pyramid, open_pyramid
from tilestream.sources.discovery import find_inputs
from tilestream.stream.batches import stream_tiles
from tilestream.stream.stageterm import COARSE, plan_coarse, vectors_of_plan
from tilestream.stream.work import make_stage
from tilestream.torch.bags import Bags
from tilestream.torch.scorer_examples import Bag, Look, ScorerBag
from tilestream.types import Array, StageContract

MARKS = (".geojson", ".json", ".png", ".tif", ".tiff")
"""How names of files end that mark parts of an image; looked for in this order."""
MARKED = 0.5
"""Share of a tile from which on it counts as marked."""


@dataclass(frozen=True, kw_only=True)
class TileChoice:
    """Which tiles of images are learned from."""

    px: int = 32
    """Edge of a tile of pixels; that of an encoder's tiles follows from its contract."""
    reduce: float | None = None
    """Pixels of level 0 along the edge of a pixel of a tile; None = 8 where no `mpp` is given."""
    mpp: float | None = None
    """Micrometres along it; where it is given with `reduce`, that is for images that state no resolution."""
    where: str = "all"
    """Which tiles: `all`, `tissue`, or the path of a mask or GeoJSON file."""
    encoder: EncoderChoice | None = None
    """Whose vectors are learned from; None = the pixels."""

    @property
    def reduction(self) -> float | None:
        """Return the pixels of level 0 along the edge of a pixel; None where the resolution alone decides."""
        return COARSE if self.reduce is None and self.mpp is None else self.reduce


@dataclass(frozen=True, kw_only=True, eq=False)
class ScorerData:
    """Examples of either kind, in memory or read when they are wanted."""

    kind: str
    """`tiles` or `bags`."""
    names: tuple[str, ...]
    """Images, or slides."""
    tiles: Array | None = None
    """Tiles: `(n, …)` of all images."""
    bags: Sequence[Bag] = ()
    """Bags: one a slide."""
    labels: npt.NDArray[Any]
    """Tiles: `(n,)` share of each that is marked, 1 where it counts. Bags: class of each."""
    groups: npt.NDArray[np.int64] | None = None
    """Tiles: `(n,)` number of the image of each."""
    classes: tuple[str, ...] = ()
    """Bags: names of the classes."""
    about: Mapping[str, Any]
    """What the record of the scorer says of its tiles."""
    recipe: Mapping[str, Any]
    """What tells these examples from all others; JSON values."""
    notes: tuple[str, ...] = ()
    """What a user should know."""

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of examples of each kind."""
        if self.kind == "bags":
            found = np.bincount(self.labels, minlength=len(self.classes)).tolist()
            return dict(zip(self.classes, found, strict=True))
        marked = int(np.count_nonzero(self.labels > MARKED))
        return {"marked": marked, "not marked": len(self.labels) - marked}


def bags_of(features: Path, labels: Path, *, encoder: str | None, keep_bytes: int) -> ScorerData:
    """Return the slides of a folder of features that have a class.

    Parameters
    ----------
    features : Path
        What `tilestream embed` was given as `--out`.
    labels : Path
        Table of labels.
    encoder : str, optional
        Which features, where there are several sets.
    keep_bytes : int
        Memory for vectors; where they need more they are read anew each epoch.

    Returns
    -------
    ScorerData
        A bag a slide.

    Raises
    ------
    ConfigError
        As `training_set`.
    """
    data = training_set(features, labels, encoder=encoder, level="tile")
    total = sum(data.bags.size(int(number)) for number in data.numbers) * data.bags.dim * 4
    stored = [_StoredBag(bags=data.bags, number=int(number)) for number in data.numbers]
    bags: Sequence[Bag] = stored if total > keep_bytes else [ScorerBag(tiles=one.tiles) for one in stored]
    left = tuple(f"left out {len(names):,} with {reason}: {listed(names)}" for reason, names in data.left_out.items())
    return ScorerData(
        kind="bags",
        names=data.slides,
        bags=bags,
        labels=data.labels,
        classes=data.classes,
        about=_about_features(data),
        recipe={
            "features": data.features["digest"],
            "examples": [
                [slide, data.classes[label], content]
                for slide, label, content in zip(data.slides, data.labels, data.contents, strict=True)
            ],
        },
        notes=(*left, *data.notes),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _StoredBag:
    """The vectors of a slide, read whenever they are asked for."""

    bags: Bags
    number: int
    look: Look | None = None

    @property
    def tiles(self) -> Array:
        """Return `(n, d)`."""
        return self.bags.read(self.number)


def _about_features(data: TrainingSet) -> dict[str, Any]:
    recipe = data.features["recipe"]
    contract = (recipe.get("stage") or {}).get("contract") or {}
    mpp = (recipe.get("plan") or {}).get("mpp") or recipe.get("mpp")
    facts = {"digest": data.features["digest"], "weights": contract.get("weights")}
    # as they were made: where an image states no resolution, an encoder that can do without has seen level 0
    native = None if mpp and contract.get("needs_mpp") else 1.0
    return {"encoder": data.encoder, "features": facts, "mpp": mpp, "downsample": native}


def tiles_of(source: Path, marks: Path, choice: TileChoice, *, memory_bytes: int) -> ScorerData:
    """Return coarse tiles of images of which parts are marked.

    Parameters
    ----------
    source : Path
        An image, or a folder of them.
    marks : Path
        A mask or GeoJSON file, or a folder that has one for each image under its name.
    choice : TileChoice
        Which tiles.
    memory_bytes : int
        Memory that they may take.

    Returns
    -------
    ScorerData
        Tiles with the share of each that is marked, as 0 or 1.

    Raises
    ------
    ConfigError
        When there is no image that is marked, images differ in what their tiles hold, or tiles take more memory.
    """
    pairs, without = _pairs(source, marks)
    tiles: list[Array] = []
    labels, groups, known = [], [], []
    taken = 0
    for number, (_, image, mark) in enumerate(pairs):
        pyr = open_pyramid(image)
        contract = _contract(pyr, choice)
        plan = plan_coarse(pyr, contract, reduce=choice.reduction, mpp=choice.mpp, where=choice.where)
        taken += _bytes_of(plan, pyr, choice)
        if taken > memory_bytes:
            raise ConfigError.of(
                "tiles to train a scorer on",
                got=f"{taken / 2**30:.1f} GiB, those of {number + 1} of {len(pairs)} images",
                expected=f"at most {memory_bytes / 2**30:.1f} GiB",
                do="Give more with --memory, a larger --reduce, or `--where tissue`.",
            )
        found, place = _read(pyr, plan, contract, choice)
        shares = tile_shares(
            select(pyr, str(mark), tile_level0_px=plan.grid.tile_px * max(plan.level.scale_yx)), plan.level, plan.grid
        )
        if tiles and (found.dtype, found.shape[1:]) != (tiles[0].dtype, tiles[0].shape[1:]):
            raise ConfigError.of(
                f"`{image}`",
                got=f"tiles of {found.dtype} {found.shape[1:]}",
                expected=f"{tiles[0].dtype} {tiles[0].shape[1:]}, like the images before it",
                do="Train on images of one kind.",
            )
        tiles.append(found)
        labels.append((shares[place] >= MARKED).astype(np.float32))
        groups.append(np.full(len(found), number, np.int64))
        known.append([plan.digest, str(labels[-1].sum())])
    _require_both(np.concatenate(labels), marks)
    notes = (f"left out {len(without):,} images that nothing marks: {listed(without)}",) if without else ()
    return ScorerData(
        kind="tiles",
        names=tuple(name for name, _, _ in pairs),
        tiles=np.concatenate(tiles),
        labels=np.concatenate(labels),
        groups=np.concatenate(groups),
        about=_about_tiles(choice),
        recipe={"examples": [[name, *one] for (name, _, _), one in zip(pairs, known, strict=True)]},
        notes=notes,
    )


def _require_both(labels: npt.NDArray[np.float32], marks: Path) -> None:
    if labels.any() and not labels.all():
        return
    raise ConfigError.of(
        f"marks `{marks}`",
        got=f"{int(labels.sum()):,} of {len(labels):,} tiles of which half or more is marked",
        expected="tiles of both kinds",
        do="Take smaller tiles, --tile, or look closer, --reduce; or mark more, or less.",
    )


def _pairs(source: Path, marks: Path) -> tuple[list[tuple[str, str, Path]], list[str]]:
    """Return name, path and marks of each image that has some, and the names of the others."""
    found = [one for one in find_inputs([source]) if one.state == "input"]
    pairs, without = [], []
    for one in found:
        mark = marks if marks.is_file() else _mark_of(marks, one.relative)
        if mark is None:
            without.append(one.relative)
        else:
            pairs.append((one.relative, one.path, mark))
    if marks.is_file() and len(found) > 1:
        raise ConfigError.of(
            f"`{marks}`",
            got=f"one file for {len(found)} images",
            expected="a folder with a mask or GeoJSON file for each image",
            do=f"Name it after its image: {Path(found[0].relative).stem}.geojson.",
        )
    if not pairs:
        raise ConfigError.of(
            f"marks `{marks}`",
            got=f"none for {len(found)} images in `{source}`",
            expected=f"a file for each image, such as {Path(found[0].relative).stem if found else 'NAME'}.geojson",
            do="Name each after its image, with the suffix geojson, png or tif.",
        )
    return pairs, without


def _mark_of(folder: Path, relative: str) -> Path | None:
    own = folder / relative
    for place in (own, own.with_suffix(""), folder / own.name, folder / own.stem):
        for suffix in MARKS:
            if (mark := place.with_name(place.name + suffix)).is_file():
                return mark
    return None


def _contract(pyr: Pyramid, choice: TileChoice) -> StageContract:
    if choice.encoder is None:
        return StageContract(name="pixels", px=choice.px, channels=len(pyr.channels))
    contract = make_stage(encoder_spec(choice.encoder.name, choice.encoder.params)).contract
    require_output(contract, "vector")
    return contract


def _bytes_of(plan: TilePlan, pyr: Pyramid, choice: TileChoice) -> int:
    if choice.encoder is not None:
        return len(plan) * 4 * 2048  # no vector of an encoder in use is much longer
    return len(plan) * plan.grid.tile_px**2 * len(pyr.channels) * pyr.dtype.itemsize


def _read(
    pyr: Pyramid, plan: TilePlan, contract: StageContract, choice: TileChoice
) -> tuple[Array, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Return the tiles of a plan that can be read, `(n, …)`, and their places in its grid."""
    if choice.encoder is not None:
        spec = encoder_spec(choice.encoder.name, choice.encoder.params)
        stage = make_stage(make_stage(spec).for_image(pyr.info))
        dim = len(stage.output_names(pyr.info))
        found = vectors_of_plan(pyr, plan, stage, name="scorer", dim=dim)
        rows, columns = np.nonzero(found.known)
        return found.vectors[rows, columns], (rows, columns)
    pixels, corners = [], []
    for batch in stream_tiles(pyr, plan):
        samples = batch.pixels if batch.valid is None else np.where(batch.valid[:, None], batch.pixels, 0)
        pixels.append(np.ascontiguousarray(samples, batch.pixels.dtype))
        corners.append(batch.tile_yx // plan.grid.step_px)
    if not pixels:
        raise ConfigError.of(
            f"`{pyr.address}`", got="no tile that can be read", expected="some", do="Leave the image out."
        )
    places = np.concatenate(corners)
    return np.concatenate(pixels), (places[:, 0], places[:, 1])


def _about_tiles(choice: TileChoice) -> dict[str, Any]:
    known: dict[str, Any] = {"mpp": choice.mpp, "downsample": choice.reduction}
    if choice.encoder is None:
        return known
    contract = make_stage(encoder_spec(choice.encoder.name, choice.encoder.params)).contract
    return {**known, "encoder": contract.name, "features": {"weights": contract.weights}}
