"""Item lists: manifests that are no tables but a list of paths and URLs, one a line or in JSON, or STAC items."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tilestream.errors import ConfigError

TEXT_SUFFIXES = frozenset({".txt", ".lst", ".list"})
"""Endings of files that hold a path or URL a line."""
JSON_SUFFIXES = frozenset({".json", ".geojson"})

Row = tuple[int, dict[str, str]]
"""Number of the line or entry, from 1, and its values by column."""


def read_items(path: Path, text: str) -> list[Row] | None:
    """Return the rows of an item list, None for a file that is a table.

    Parameters
    ----------
    path : Path
        The file, which is told by its suffix.
    text : str
        Its content.

    Returns
    -------
    list of (int, dict) or None
        Number of the line or entry and values by column, `path` among them.

    Raises
    ------
    ConfigError
        When it is no such list; with file and entry.
    """
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        lines = enumerate(map(str.strip, text.splitlines()), 1)
        return [(number, {"path": line}) for number, line in lines if line and not line.startswith("#")]
    return list(_json(path, text)) if suffix in JSON_SUFFIXES else None


def _json(path: Path, text: str) -> Iterator[Row]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ConfigError.of(f"manifest `{path}`", got=str(error).lower(), expected="JSON", do="Check it.") from error
    is_stac = isinstance(document, dict) and document.get("type") == "FeatureCollection"
    items = document.get("features") if is_stac else document
    if not isinstance(items, list):
        raise ConfigError.of(
            f"manifest `{path}`",
            got=f"JSON of type {type(items).__name__}",
            expected="a list of URLs, a list of objects with `url`, or a STAC ItemCollection",
            do="Put the inputs into a list.",
        )
    for number, item in enumerate(items, 1):
        yield number, _stac(path, number, item) if is_stac else _entry(path, number, item)


def _entry(path: Path, number: int, item: object) -> dict[str, str]:
    if isinstance(item, str):
        return {"path": item.strip()}
    pairs = item.items() if isinstance(item, Mapping) else ()
    named = {{"url": "path"}.get(name.casefold(), name.casefold()): value for name, value in pairs}
    if not isinstance(named.get("path"), str):
        raise _wrong(path, number, got=type(item).__name__, expected="a URL, or an object with `url` or `path`")
    return {name: _text(value) for name, value in named.items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(part) for part in value)
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _stac(path: Path, number: int, item: Any) -> dict[str, str]:
    if not isinstance(item, Mapping) or "stac_version" not in item:
        raise _wrong(path, number, got="a feature without `stac_version`", expected="a STAC item")
    for link in item.get("links") or ():
        if isinstance(link, Mapping) and link.get("rel") == "self" and isinstance(link.get("href"), str):
            return {"path": link["href"], "id": str(item.get("id", ""))}
    raise ConfigError.of(
        f"manifest `{path}` entry {number}",
        got=f"STAC item `{item.get('id')}` without a link to itself",
        expected="a link of rel `self`, by which it is opened",
        do="Save each item to a file of its own and list these files.",
    )


def _wrong(path: Path, number: int, *, got: str, expected: str) -> ConfigError:
    return ConfigError.of(f"manifest `{path}` entry {number}", got=got, expected=expected, do="Correct it.")
