"""What is known of an encoder before its weights are: a record, as a small JSON file that users can write too."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from tilestream.errors import ConfigError

Library: TypeAlias = Literal["timm", "hf", "open_clip", "hub", "callable"]
Pooling: TypeAlias = Literal["model", "cls", "mean", "cls+mean", "pooler"]

LIBRARIES: tuple[str, ...] = get_args(Library)
POOLINGS: tuple[str, ...] = get_args(Pooling)
INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True, kw_only=True)
class EncoderRecord:
    """How an encoder is built and what it expects; what its library's own configuration says may be left out."""

    name: str
    """Name under which its vectors are stored."""
    library: Library
    """What builds it; `callable` for a function `module:callable` of any package."""
    model: str
    """Its architecture as the library calls it, a folder, `REPO:NAME` for torch.hub, or `module:callable`."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for building it; text of the form `module:name` stands for that object where it is a class."""
    call: str | None = None
    """Method that is called instead of the module itself, such as `encode_image`."""
    call_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the call, besides the samples."""
    take: int | None = None
    """Position of the encoder in what `callable` returns, where that is a sequence."""
    prefix: str = ""
    """What stands before its names in a checkpoint of more than the encoder; tensors without it are left out."""
    fixed: tuple[str, ...] = ()
    """Beginnings of the names of tensors that follow from the build and are not taken from a checkpoint."""
    px: int | None = None
    """Edge of the tiles that it is meant to see, px."""
    mpp: float | None = None
    """Micrometres per pixel that they are meant to have; None = any."""
    input_px: int | None = None
    """Edge that tiles are resized to; None = they enter as they are."""
    crop_px: int | None = None
    """Edge of the centre that the model sees of that; None = all."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """How tiles are resized, with antialiasing."""
    channels: tuple[str, ...] | int | None = None
    """Names or number of its channels; None = what the library says, 3 where it says nothing."""
    scale: float = 1 / 255
    """Factor applied to the samples first."""
    mean: tuple[float, ...] | None = None
    """Subtracted per channel after scaling."""
    std: tuple[float, ...] | None = None
    """Divided by per channel after that."""
    pooling: Pooling = "model"
    """How tokens become a vector: the class token, the mean of the tokens of patches, both one after the other, the
    library's pooler, or as the model itself does."""
    prefix_tokens: int | None = None
    """Tokens before those of the patches (class and registers); None = what the library says."""
    dtype: str = "float32"
    """Type that it computes in."""
    dim: int | None = None
    """Length of a vector; None = what the library says."""
    source: str | None = None
    """Page where the weights are published."""
    repository: str | None = None
    """Repository on the Hugging Face hub that has them."""
    file: str | None = None
    """Name of the file there."""
    licence: str | None = None
    """Licence of the weights; None = see the page."""
    gated: bool | None = None
    """Whether one has to ask for access; None = not known."""
    note: str | None = None
    """What else a user should know."""

    def to_json(self) -> dict[str, Any]:
        """Return what is stated, as JSON values; `record_of` makes the record again."""
        known = {key: value for key, value in asdict(self).items() if value != _default(key)}
        stated: dict[str, Any] = json.loads(json.dumps(known))
        return stated

    def with_facts(self, facts: Mapping[str, Any]) -> EncoderRecord:
        """Return the record with what the library says of everything that is not stated.

        Parameters
        ----------
        facts : Mapping
            Fields of a record.

        Returns
        -------
        EncoderRecord
            What is stated stays.
        """
        new = {key: value for key, value in facts.items() if value is not None and getattr(self, key) == _default(key)}
        return replace(self, **_typed(new))


def record_of(document: Mapping[str, Any], *, what: str) -> EncoderRecord:
    """Return the record that a JSON object states.

    Parameters
    ----------
    document : Mapping
        Fields of `EncoderRecord`.
    what : str
        Where it is from, for messages.

    Returns
    -------
    EncoderRecord
        Checked.

    Raises
    ------
    ConfigError
        When a field is missing, unknown, or has another kind of value.
    """
    known = {one.name for one in fields(EncoderRecord)}
    unknown = sorted(set(document) - known)
    missing = [name for name in ("name", "library", "model") if name not in document]
    if unknown or missing:
        raise ConfigError.of(
            what,
            got=f"unknown fields {unknown}" if unknown else f"no {', '.join(f'`{name}`' for name in missing)}",
            expected=f"fields among {sorted(known)}",
            do="Correct the record; `tilestream encoders NAME` prints one to begin with.",
        )
    for key, allowed in (("library", LIBRARIES), ("pooling", POOLINGS), ("interpolation", INTERPOLATIONS)):
        if key in document and document[key] not in allowed:
            do = "Correct the record."
            raise ConfigError.of(f"`{key}` of {what}", got=document[key], expected=f"one of {list(allowed)}", do=do)
    return EncoderRecord(**_typed(document))


def read_record(path: str | Path) -> EncoderRecord:
    """Return the record in a file.

    Parameters
    ----------
    path : str or Path
        JSON file.

    Returns
    -------
    EncoderRecord
        Checked.

    Raises
    ------
    ConfigError
        When it cannot be read or is no record.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError.of(
            f"encoder `{path}`", got=str(error), expected="a JSON file that describes an encoder", do="Correct it."
        ) from error
    if not isinstance(document, dict):
        do = "Correct it."
        raise ConfigError.of(f"encoder `{path}`", got=f"a {type(document).__name__}", expected="an object", do=do)
    return record_of(document, what=f"encoder `{path}`")


@lru_cache(maxsize=1)
def ready_records() -> Mapping[str, EncoderRecord]:
    """Return the records that come with tilestream, by name."""
    folder = files("tilestream.models.encoders") / "ready"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda one: one.name):
        if file.name.endswith(".json"):
            record = record_of(json.loads(file.read_text(encoding="utf-8")), what=f"record `{file.name}`")
            found[record.name] = record
    return found


def variable_name(text: str) -> str:
    """Return a name that a variable of a store can have: `vit_small_patch16_224` for `timm/vit_small_patch16_224`.

    Parameters
    ----------
    text : str
        Name of a model in its library, or a path.

    Returns
    -------
    str
        Letters, digits and `_.-`, from the last part of a path on.
    """
    last = text.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", last).strip("_.-") or "encoder"


def _default(key: str) -> Any:
    one = EncoderRecord.__dataclass_fields__[key]
    return one.default_factory() if one.default_factory is not MISSING else one.default


def _typed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with tuples where JSON has lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
