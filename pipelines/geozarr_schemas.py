"""JSON schemas of the GeoZarr conventions, in our words: what a group or array that registers one must look like.

The conventions are proposals whose text moves. A convention is recognised by its UUID, which stays; its name and the
addresses of its texts, which do not, are not looked at.

References
----------
https://github.com/zarr-conventions, repositories `multiscales`, `spatial` and `proj`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UUIDS: Mapping[str, str] = {
    "multiscales": "d35379db-88df-4056-af3a-620245f8e347",
    "spatial": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    "proj": "f17cb550-5864-4468-aeb7-f3180cfb622f",
}
"""How each convention is recognised in `zarr_conventions`."""


def _numbers(count: int) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "number"}, "minItems": count, "maxItems": count}


_PATH = {"type": "string", "pattern": r"^(?!.*\.\.)[^/]+(/[^/]+)*$"}
_SIZE = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2}
_FACTORS = {"type": "array", "items": {"type": "number"}}

SCHEMAS: Mapping[str, dict[str, Any]] = {
    "multiscales": {
        "type": "object",
        "required": ["multiscales"],
        "properties": {
            "multiscales": {
                "type": "object",
                "required": ["layout"],
                "properties": {
                    "resampling_method": {"type": "string"},
                    "layout": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["asset"],
                            "dependentRequired": {"derived_from": ["transform"]},
                            "properties": {
                                "asset": _PATH,
                                "derived_from": _PATH,
                                "resampling_method": {"type": "string"},
                                "transform": {
                                    "type": "object",
                                    "properties": {"scale": _FACTORS, "translation": _FACTORS},
                                },
                                "spatial:shape": _SIZE,
                                "spatial:transform": _numbers(6),
                            },
                        },
                    },
                },
            },
        },
    },
    "spatial": {
        "type": "object",
        "required": ["spatial:dimensions"],
        "properties": {
            "spatial:dimensions": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
            "spatial:bbox": _numbers(4),
            "spatial:transform_type": {"type": "string"},
            "spatial:transform": _numbers(6),
            "spatial:shape": _SIZE,
            "spatial:registration": {"enum": ["node", "pixel"]},
        },
    },
    "proj": {
        "type": "object",
        "oneOf": [{"required": [f"proj:{name}"]} for name in ("code", "wkt2", "projjson")],
        "properties": {
            "proj:code": {"type": "string", "pattern": "^[A-Z]+:[0-9A-Za-z_]+$"},
            "proj:wkt2": {"type": "string", "minLength": 1},
            "proj:projjson": {"type": "object"},
        },
    },
}
"""Schema of the attributes of a node by convention; JSON Schema 2020-12."""
