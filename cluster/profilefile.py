"""A profile file: YAML or TOML with one table of fields."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml

from tilestream.errors import ConfigError


def read_profile_file(path: Path) -> dict[str, Any]:
    """Return the fields of a profile file, unchecked.

    Parameters
    ----------
    path : Path
        A `.toml` file; any other name is read as YAML.

    Returns
    -------
    dict
        Values by name.

    Raises
    ------
    ConfigError
        When it cannot be read, or is not one table.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix.lower() == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError.of(
            "`--cluster`", got=f"`{path}`, {error.strerror}", expected="a profile file", do="Check the path."
        ) from error
    except (yaml.YAMLError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        kind = "TOML" if path.suffix.lower() == ".toml" else "YAML"
        raise ConfigError.of(
            f"`{path}`",
            got=" ".join(str(error).split()),
            expected=f"a profile in {kind}",
            do="Correct it; `tilestream cluster slurm` prints one that works.",
        ) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigError.of(
            f"`{path}`",
            got=f"a {type(found).__name__} of values",
            expected="names with values, such as `kind: slurm`",
            do="Write one field a line; `tilestream cluster slurm` prints a profile that works.",
        )
    return found
