"""Encoders of timm: by the name of an architecture, or from a folder as the hub stores a model."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tilestream.errors import ConfigError
from tilestream.models.encoders.folders import read_config
from tilestream.models.encoders.libraries import built, import_library
from tilestream.models.encoders.record import EncoderRecord

FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in a folder; the first that is there is taken."""


def facts(record: EncoderRecord, folder: Path | None) -> dict[str, Any]:
    """Return what timm's own configuration says of a model.

    Parameters
    ----------
    record : EncoderRecord
        The encoder.
    folder : Path, optional
        Folder with a `config.json`, instead of the configuration that comes with timm.

    Returns
    -------
    dict
        Fields of `EncoderRecord`.
    """
    timm = import_library("timm")
    if folder is not None:
        document = read_config(folder / "config.json")
        config = {**document, **document.get("pretrained_cfg", {})}
        architecture = str(document.get("architecture", ""))
    else:
        architecture = record.model
        _require_known(timm, architecture)
        found = timm.get_pretrained_cfg(architecture)
        config = {} if found is None else found.to_dict()
    size = config.get("input_size") or (3, None, None)
    repository = config.get("hf_hub_id")
    return {
        "px": size[1],
        "channels": size[0],
        "mean": config.get("mean"),
        "std": config.get("std"),
        "licence": config.get("license"),
        "repository": repository,
        "source": f"https://huggingface.co/{repository}" if repository else None,
    }


def build(record: EncoderRecord, folder: Path | None) -> Any:
    """Return the network without its classifier; its weights are timm's initial ones.

    Parameters
    ----------
    record : EncoderRecord
        The encoder.
    folder : Path, optional
        Folder with a `config.json`.

    Returns
    -------
    torch.nn.Module
        Its `forward` is `forward_features` where tokens are pooled.
    """
    timm = import_library("timm")
    architecture, arguments = record.model, dict(record.arguments)
    if folder is not None:
        document = read_config(folder / "config.json")
        architecture = str(document.get("architecture", ""))
        arguments = {**document.get("model_args", {}), **arguments}
    _require_known(timm, architecture)
    arguments = {"num_classes": 0, **arguments, "pretrained": False}
    return built(lambda **given: timm.create_model(architecture, **given), arguments, what=f"`{record.name}`")


def classifier(network: Any) -> tuple[str, ...]:
    """Return what the names of the classifier's tensors begin with, which the network was built without."""
    config: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    names = config.get("classifier") or ()
    return tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))


def _require_known(timm: Any, architecture: str) -> None:
    if not timm.is_model(architecture):
        base = architecture.partition(".")[0]
        close = get_close_matches(base, timm.list_models(), n=3, cutoff=0.5)
        raise ConfigError.of(
            f"model `{architecture}` of timm",
            got=f"a name that timm {timm.__version__} does not have",
            expected="an architecture",
            do=f"Did you mean {', '.join(f'`{name}`' for name in close)}?"
            if close
            else "`timm.list_models()` names them; a newer timm has more.",
        )
