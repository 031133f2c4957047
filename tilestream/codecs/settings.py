"""Settings of a codec, as they stand in the metadata of a store: each one known, and of its type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tilestream.errors import ConfigError


def require_settings(settings: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> None:
    """Raise `ConfigError` where there is a setting of another name or type than a codec has; none is true or false.

    Parameters
    ----------
    settings : Mapping
        JSON values by name.
    types : Mapping
        What each may be.
    """
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, types.get(name, ())):
            raise ConfigError.of(
                f"`{name}` of a codec",
                got=value,
                expected=" or ".join(one.__name__ for one in types[name]) if name in types else f"one of {list(types)}",
                do="Correct it, or install the version of tilestream that wrote it.",
            )
