"""Folders in which a model lies as a hub stores it: configuration in JSON, weights beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tilestream.errors import ConfigError

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
"""How names of files of weights end."""


def read_config(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Parameters
    ----------
    path : Path
        Such as `config.json`.

    Returns
    -------
    dict
        What it says.

    Raises
    ------
    ConfigError
        When it is not there, or is no JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError.of(
            f"`{path}`",
            got=str(error),
            expected="the configuration of a model, as its hub has it beside the weights",
            do="Download the whole folder, or name the encoder and give a file of weights.",
        ) from error
    if not isinstance(document, dict):
        do = "Download it again."
        raise ConfigError.of(f"`{path}`", got=f"a {type(document).__name__}", expected="an object", do=do)
    return document


def weights_file(folder: Path, names: tuple[str, ...], *, model: str) -> Path:
    """Return the file of weights in a folder.

    Parameters
    ----------
    folder : Path
        The folder.
    names : tuple of str
        Usual names; the first that is there is taken.
    model : str
        What users call the model.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        When there is none of these names, nor just one other.
    """
    known = [folder / name for name in names if (folder / name).is_file()]
    others = sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS and path.is_file())
    if known or len(others) == 1:
        return (known or others)[0]
    raise ConfigError.of(
        f"weights of `{model}` in `{folder}`",
        got=f"{len(others)} files of weights" if others else "no file of weights",
        expected=f"one of {', '.join(names)}",
        do="Give the file itself.",
    )
