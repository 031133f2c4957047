"""What is known of one finished feature store without its rows: facts, feature sets, vectors of the slide."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from tilestream.codecs.checksums import checksum
from tilestream.codecs.metadata import encode_json
from tilestream.errors import DamagedError
from tilestream.sinks.rowsread import RowLayout, read_rows, read_texts
from tilestream.sinks.tables import chain_dimension, feature_dimension
from tilestream.sinks.tree import OWNER
from tilestream.types import Array

T = TypeVar("T")

SUFFIX = ".features.zarr"
"""How the name of a feature store ends."""
Stamp: TypeAlias = tuple[int, int]
"""Time of the last change in nanoseconds and size in bytes of the store's root metadata, which is written last."""
Vectors: TypeAlias = dict[str, Array]
"""`(d,)` vectors of a slide by statistic."""


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """What vectors have to share to be comparable: the encoder, its outputs, and how tiles were made for it."""

    encoder: str
    """Name of the encoder."""
    outputs: tuple[str, ...]
    """Name of each value of a vector."""
    statistics: tuple[str, ...]
    """Pooled vectors of a slide, the main one first."""
    recipe: Mapping[str, Any]
    """Stage, tile edge, halo, resolution and type of the samples; JSON values."""

    @property
    def digest(self) -> str:
        """Return the name of the set: vectors of two sets are never put together."""
        known = {"encoder": self.encoder, "outputs": list(self.outputs), "recipe": dict(self.recipe)}
        return checksum(encode_json(known))

    @property
    def is_mixed(self) -> bool:
        """Return whether they are of tokens of several sizes."""
        return "levels" in self.recipe

    @property
    def words(self) -> str:
        """Return what tells it from another one, for a message."""
        mpp = self.recipe.get("mpp")
        where = "native resolution" if mpp is None else f"{mpp:g} µm/px"
        coarser = " and coarser under a budget" if self.is_mixed else ""
        return f"{len(self.outputs)} values, tiles of {self.recipe.get('tile_px')} px at {where}{coarser}"


@dataclass(frozen=True, kw_only=True)
class StoreRecord:
    """What the index of a folder keeps of one store."""

    key: str
    """Relative path of the image, which the store's name begins with."""
    stamp: Stamp
    """State of the store when it was read."""
    content: str
    """Digest of what the store was made from."""
    image: str
    """Digest of the image's fingerprint and of what was chosen of it; equal for one image under two names."""
    version: str
    """Version of tilestream that wrote it."""
    n: int
    """Tiles."""
    n_ok: int
    """Tiles that could be decoded and are not empty."""
    sets: Mapping[str, int]
    """Tiles with a vector, by the digest of each feature set."""
    size_yx: tuple[float, float]
    """Edges of a tile's core, pixels of level 0."""
    mpp: float | None
    """Micrometres per pixel of level 0."""
    plan_mpp: float | None
    """Micrometres per pixel that the encoder saw."""
    shape_yx: tuple[int, int]
    """Size of level 0, px."""
    format: str
    """Short name of the format."""
    crs: str | None
    """CRS of a scene; its tiles then have places in it."""
    datetime: str | None
    """When a scene was taken, ISO 8601."""


@dataclass(frozen=True, kw_only=True)
class FoundStore:
    """A store as it was read just now."""

    record: StoreRecord
    """Facts."""
    sets: Mapping[str, FeatureSet]
    """Feature sets by digest."""
    vectors: Mapping[str, Vectors]
    """Vectors of the slide by digest of the set."""


def read_store(folder: Path, key: str, stamp: Stamp) -> FoundStore:
    """Return what is known of a feature store; its rows are not read.

    Parameters
    ----------
    folder : Path
        The store.
    key : str
        Relative path of its image.
    stamp : Stamp
        State of its root metadata, looked at before.

    Returns
    -------
    FoundStore
        Facts, feature sets and vectors.

    Raises
    ------
    DamagedError
        When it is no feature store of ours, or is cut.
    OSError
        When a file of it cannot be read.
    """
    try:
        document = json.loads((folder / "zarr.json").read_bytes())
        attributes, nodes = document["attributes"], document["consolidated_metadata"]["metadata"]
        if attributes[OWNER]["store"] != "features":
            raise DamagedError("a store of another kind")
        return _found(folder, key, stamp, attributes, nodes)
    except (KeyError, TypeError, IndexError, ValueError, RecursionError) as error:
        if isinstance(error, DamagedError):
            raise
        raise DamagedError(f"no metadata of a feature store ({type(error).__name__}: {error})") from error


def _found(folder: Path, key: str, stamp: Stamp, attributes: Mapping[str, Any], nodes: Mapping[str, Any]) -> FoundStore:
    plan, image, owner = attributes["plan"], attributes["image"], attributes[OWNER]
    sets: dict[str, FeatureSet] = {}
    vectors: dict[str, Vectors] = {}
    counts: dict[str, int] = {}
    for name in _encoders(nodes):
        own = {
            node["attributes"]["pooling"]: path
            for path, node in nodes.items()
            if path.startswith("slide/") and "pooling" in node["attributes"] and _is_of(node, name)
        }
        # the main statistic bears the encoder's name
        paths = dict(sorted(own.items(), key=lambda item: item[1] != f"slide/{name}"))
        one = FeatureSet(
            encoder=name,
            outputs=read_texts(folder / "tile" / feature_dimension(name)),
            statistics=tuple(paths),
            recipe=_set_recipe(attributes["recipe"], name, plan, image),
        )
        sets[one.digest] = one
        vectors[one.digest] = {
            statistic: read_rows(folder / path, RowLayout.of(nodes[path])) for statistic, path in paths.items()
        }
        counts[one.digest] = int(nodes[f"slide/{name}_n_ok"]["fill_value"])
    record = StoreRecord(
        key=key,
        stamp=stamp,
        content=owner["content"],
        image=checksum(encode_json({name: image[name] for name in ("fingerprint", "selection")})),
        version=owner["version"],
        n=int(nodes["tile/status"]["shape"][0]),
        n_ok=int(nodes["slide/n_ok"]["fill_value"]),
        sets=counts,
        size_yx=_pair(nodes["tile/size"]["attributes"]["size_yx"], float),
        mpp=_mean(image["mpp_yx"]),
        plan_mpp=_mean(plan["mpp_yx"]),
        shape_yx=_pair(image["shape_yx"], int),
        format=image["format"],
        crs=image["crs"] if "tile/crs_x" in nodes else None,
        datetime=image["datetime"],
    )
    return FoundStore(record=record, sets=sets, vectors=vectors)


def _encoders(nodes: Mapping[str, Any]) -> list[str]:
    """Return the names of the encoders whose vectors a store holds."""
    prefix = f"tile/{feature_dimension('')}"
    names = [path.removeprefix(prefix) for path in nodes if path.startswith(prefix)]
    return sorted(name for name in names if f"tile/{name}" in nodes)


def _is_of(node: Mapping[str, Any], encoder: str) -> bool:
    return list(node["dimension_names"]) in ([feature_dimension(encoder)], [chain_dimension(encoder, "slide")])


def _set_recipe(
    recipe: Mapping[str, Any], encoder: str, plan: Mapping[str, Any], image: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the part of a store's recipe that vectors of other images have to share."""
    return {
        "stage": recipe.get("stages", {}).get(encoder),
        "tile_px": plan["tile_px"],
        "halo_px": plan["halo_px"],
        # what was aimed at: stored levels within a few per cent of it are used as they are
        "mpp": recipe.get("plan", {}).get("mpp"),
        "dtype": image["dtype"],
        **({"levels": token_levels(recipe)} if is_mixed(recipe) else {}),
        # vectors of slides by other stages cannot be compared either
        **({"chain": _chain_recipe(recipe, encoder)} if encoder in recipe.get("chains", {}) else {}),
    }


def is_mixed(recipe: Mapping[str, Any]) -> bool:
    """Return whether a recipe asks for tokens of several resolutions, whose vectors are others than those of tiles."""
    return recipe.get("plan", {}).get("tokens") is not None and token_levels(recipe) != [0]


def token_levels(recipe: Mapping[str, Any]) -> list[int] | str:
    """Return which levels of tokens a recipe allows, 0 being the finest; `all` where it does not say."""
    return recipe["plan"]["tokens"]["levels"] or "all"


def _chain_recipe(recipe: Mapping[str, Any], encoder: str) -> dict[str, Any]:
    plan = recipe.get("plan", {})
    regions = {"region_px": plan.get("region_px"), "whole_regions": plan.get("whole_regions", False)}
    return {**recipe["chains"][encoder], **regions}


def _pair(values: Sequence[Any], kind: Callable[[Any], T]) -> tuple[T, T]:
    y, x = values
    return kind(y), kind(x)


def _mean(mpp_yx: Any) -> float | None:
    return None if mpp_yx is None else float((mpp_yx[0] * mpp_yx[1]) ** 0.5)
