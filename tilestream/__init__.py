"""Streams gigapixel images, slides and satellite scenes alike, through kernels and models in bounded memory.

Public names are loaded when they are first used, so that `import tilestream` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilestream import codecs as codecs
    from tilestream import kernels as kernels
    from tilestream import torch as torch
    from tilestream.fovea.fovea import Fovea as Fovea
    from tilestream.pipelines.cohort_open import open_cohort as open_cohort
    from tilestream.pipelines.embedder import TileEmbedder as TileEmbedder
    from tilestream.pipelines.ingest import build_pyramid as build_pyramid
    from tilestream.pipelines.map import map_tiles as map_tiles
    from tilestream.pipelines.update import update_pyramid as update_pyramid
    from tilestream.plan.tiles import plan_tiles as plan_tiles
    from tilestream.plan.tokens import plan_tokens as plan_tokens
    from tilestream.pyramid.guides import guided_crop as guided_crop
    from tilestream.pyramid.pyramid import Pyramid as Pyramid
    from tilestream.pyramid.pyramid import open_pyramid as open_pyramid
    from tilestream.relevance.query import Query as Query
    from tilestream.relevance.relevance import Relevance as Relevance
    from tilestream.stream.batches import stream_tiles as stream_tiles
    from tilestream.stream.tokenbatch import read_tokens as read_tokens
    from tilestream.types import Box as Box
    from tilestream.types import Hierarchy as Hierarchy
    from tilestream.types import Stage as Stage
    from tilestream.xr.tree import to_datatree as to_datatree

__version__ = "0.1.0"

_HOMES = {
    "Box": "tilestream.types",
    "Fovea": "tilestream.fovea.fovea",
    "Hierarchy": "tilestream.types",
    "Pyramid": "tilestream.pyramid.pyramid",
    "Query": "tilestream.relevance.query",
    "Relevance": "tilestream.relevance.relevance",
    "Stage": "tilestream.types",
    "TileEmbedder": "tilestream.pipelines.embedder",
    "build_pyramid": "tilestream.pipelines.ingest",
    "guided_crop": "tilestream.pyramid.guides",
    "map_tiles": "tilestream.pipelines.map",
    "open_cohort": "tilestream.pipelines.cohort_open",
    "open_pyramid": "tilestream.pyramid.pyramid",
    "plan_tiles": "tilestream.plan.tiles",
    "plan_tokens": "tilestream.plan.tokens",
    "read_tokens": "tilestream.stream.tokenbatch",
    "stream_tiles": "tilestream.stream.batches",
    "to_datatree": "tilestream.xr.tree",
    "update_pyramid": "tilestream.pipelines.update",
}

_PARTS = ("codecs", "kernels", "torch")
"""Packages that are loaded when they are first used; `torch` is not in `__all__`, since it is not always there."""

__all__ = [
    "Box",
    "Fovea",
    "Hierarchy",
    "Pyramid",
    "Query",
    "Relevance",
    "Stage",
    "TileEmbedder",
    "build_pyramid",
    "codecs",
    "guided_crop",
    "kernels",
    "map_tiles",
    "open_cohort",
    "open_pyramid",
    "plan_tiles",
    "plan_tokens",
    "read_tokens",
    "stream_tiles",
    "to_datatree",
    "update_pyramid",
]


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return import_module(f"tilestream.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module `tilestream` has no attribute `{name}`; public names: {', '.join(__all__)}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*__all__, *_PARTS, "__version__"})
