"""What users name an encoder: `timm:NAME`, `hf:FOLDER`, `open_clip:NAME`, `hub:REPO:NAME`, a ready one, a JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tilestream.errors import ConfigError
from tilestream.models.encoders.record import read_record, ready_records, variable_name
from tilestream.types import StageSpec

TARGET = "encoder"
"""Registered name of what makes the stage."""
LIBRARIES = ("timm", "hf", "open_clip", "hub")
FOLDERS = ("timm", "hf", "open_clip")
"""Libraries whose models also come as a folder."""
_PARAMS = ("name", "weights", "random_weights", "dtype")


def is_library_encoder(name: str) -> bool:
    """Return whether a name is one of a library, of a ready record or of a file with a record."""
    return name.partition(":")[0] in LIBRARIES or name.endswith(".json") or name in ready_records()


def library_spec(name: str, params: Mapping[str, Any]) -> StageSpec:
    """Return how the stage of such a name is made.

    Parameters
    ----------
    name : str
        For which `is_library_encoder` is true.
    params : Mapping
        `weights` or `random_weights`, `name` under which its vectors are stored, `dtype` that it computes in.

    Returns
    -------
    StageSpec
        With a record, so that no other process needs the file.

    Raises
    ------
    ConfigError
        When the name or a parameter is not understood.
    """
    unknown = sorted(set(params) - set(_PARAMS))
    if unknown:
        raise ConfigError.of(
            f"parameters of `{name}`",
            got=f"{unknown}",
            expected=f"some of {list(_PARAMS)}",
            do="Leave them out; what the encoder expects stands in its record (`tilestream encoders`).",
        )
    given = {key: value for key, value in params.items() if key in ("weights", "random_weights")}
    document, folder = _record(name)
    if folder is not None:
        given = {"weights": folder, **given}
    document = {**document, **{key: params[key] for key in ("name", "dtype") if key in params}}
    return StageSpec(target=TARGET, params={"record": document, **given})


def _record(name: str) -> tuple[dict[str, Any], str | None]:
    """Return the record of a name, and the folder that it names."""
    if name.endswith(".json"):
        return read_record(name).to_json(), None
    if name in ready_records():
        return ready_records()[name].to_json(), None
    library, _, model = name.partition(":")
    if not model:
        raise ConfigError.of(
            f"encoder `{name}`", got="no model", expected=f"`{library}:NAME`", do="Say which model of the library."
        )
    if library in FOLDERS and Path(model).is_dir():
        folder = Path(model).absolute()
        return {"name": variable_name(folder.name), "library": library, "model": folder.name}, str(folder)
    if library == "hub":
        place, _, entry = model.rpartition(":")
        model = f"{Path(place).absolute()}:{entry}" if Path(place).is_dir() else model
        return {"name": variable_name(entry), "library": library, "model": model}, None
    document = {"name": variable_name(model.partition(":")[0]), "library": library, "model": model}
    return (document if library != "hf" else {**document, "repository": model}), None
