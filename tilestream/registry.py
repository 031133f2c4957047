"""Names of pluggable parts and where they live; a part is imported when it is chosen, not before."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from tilestream.errors import ConfigError

STAGES: Mapping[str, str] = {
    "callable": "tilestream.models.adapter:adapt",
    "entropy": "tilestream.models.information:information",
    "handcrafted": "tilestream.models.handcrafted:handcrafted",
}
"""Encoders by name; others come as `module:callable` or through the entry-point group `tilestream.stages`."""


def resolve(target: str, *, table: Mapping[str, str], group: str) -> Any:
    """Return the object behind a registered name, an entry point or `module:attribute`.

    Parameters
    ----------
    target : str
        Name or `module:attribute`.
    table : Mapping
        Built-in names.
    group : str
        Entry-point group in which other packages register theirs.

    Returns
    -------
    object
        The imported object.

    Raises
    ------
    ConfigError
        When nothing has the name or its import fails; the reason is in the message.
    """
    path = table.get(target)
    if path is None:
        path = next((entry.value for entry in entry_points(group=group) if entry.name == target), target)
    module, colon, attribute = path.partition(":")
    if not colon:
        raise ConfigError.of(
            f"`{target}`",
            got="an unknown name",
            expected=f"one of {sorted(table)} or `module:callable`",
            do="Check the spelling, or give the module that holds it.",
        )
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError.of(
            f"`{target}`",
            got=str(error),
            expected="a module that can be imported and an attribute in it",
            do="Install the package, or set PYTHONPATH to the folder of the module.",
        ) from error
    return found
