"""Encoders of open_clip: the image tower of a model, before its vectors are normalised."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tilestream.errors import ConfigError
from tilestream.models.encoders.folders import read_config
from tilestream.models.encoders.libraries import built, import_library
from tilestream.models.encoders.record import EncoderRecord

CONFIG = "open_clip_config.json"
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names of the weights in a folder; the first that is there is taken."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
"""Files of which one is there where a folder holds a tokenizer."""


def facts(record: EncoderRecord, folder: Path | None) -> dict[str, Any]:
    """Return what open_clip's own configuration says of a model.

    Parameters
    ----------
    record : EncoderRecord
        Its `model` is an architecture, with `:TAG` behind it where weights of a tag of open_clip's are meant.
    folder : Path, optional
        Folder with an `open_clip_config.json`.

    Returns
    -------
    dict
        Fields of `EncoderRecord`.
    """
    open_clip = import_library("open_clip")
    config, given = _configs(open_clip, record, folder)
    size = given.get("size") or config.get("vision_cfg", {}).get("image_size")
    edge = size[0] if isinstance(size, list | tuple) else size
    repository = str(given.get("hf_hub") or given.get("hf-hub") or "").rstrip("/") or None
    return {
        "px": edge,
        "channels": 3,
        "mean": given.get("mean") or open_clip.OPENAI_DATASET_MEAN,
        "std": given.get("std") or open_clip.OPENAI_DATASET_STD,
        "interpolation": given.get("interpolation"),
        "dim": config.get("embed_dim"),
        "repository": repository,
        "source": f"https://huggingface.co/{repository}" if repository else None,
    }


def build(record: EncoderRecord, folder: Path | None) -> Any:
    """Return the whole model, whose `visual` is the encoder; its weights are open_clip's initial ones.

    Parameters
    ----------
    record : EncoderRecord
        The encoder.
    folder : Path, optional
        Folder with an `open_clip_config.json`.

    Returns
    -------
    torch.nn.Module
        With the names of the published weights.
    """
    open_clip = import_library("open_clip")
    architecture = record.model.partition(":")[0]
    config, _ = _configs(open_clip, record, folder)
    if folder is None:
        make, arguments = open_clip.create_model, {"model_name": architecture, "load_weights": False}
    else:
        make, arguments = open_clip.CLIP, {key: value for key, value in config.items() if key != "custom_text"}
        if config.get("custom_text"):
            make = open_clip.CustomTextCLIP
    with _quiet():
        return built(make, {**arguments, **record.arguments}, what=f"`{record.name}`")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the warning that weights are not loaded: they are, a moment later."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _configs(open_clip: Any, record: EncoderRecord, folder: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configuration of a model and that of its samples."""
    if folder is not None:
        document = read_config(folder / CONFIG)
        return dict(document.get("model_cfg", {})), dict(document.get("preprocess_cfg", {}))
    architecture, _, tag = record.model.partition(":")
    config = open_clip.get_model_config(architecture)
    if config is None:
        close = get_close_matches(architecture, open_clip.list_models(), n=3, cutoff=0.5)
        raise ConfigError.of(
            f"model `{architecture}` of open_clip",
            got="a name that it does not have",
            expected="an architecture such as `ViT-B-16`",
            do=f"Did you mean {', '.join(f'`{name}`' for name in close)}?"
            if close
            else "`open_clip.list_models()` names them.",
        )
    given = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    if tag and not given:
        raise ConfigError.of(
            f"weights `{tag}` of `{architecture}`",
            got="a name that open_clip does not have",
            expected=f"one of {open_clip.list_pretrained_tags_by_model(architecture)}",
            do="Name one of these, or none.",
        )
    return dict(config), dict(given)


def tokenizer(record: EncoderRecord, folder: Path | None, *, may_download: bool) -> Callable[[list[str]], Any]:
    """Return what turns texts into the tokens that a model takes.

    Parameters
    ----------
    record : EncoderRecord
        The encoder.
    folder : Path, optional
        Folder with an `open_clip_config.json`, and the files of a tokenizer where the model has one of its own.
    may_download : bool
        Whether such files may be fetched.

    Returns
    -------
    callable
        Texts to `[n, t]`.

    Raises
    ------
    ConfigError
        When the model has a tokenizer of its own whose files are not there.
    """
    open_clip = import_library("open_clip")
    config, _ = _configs(open_clip, record, folder)
    stated = config.get("text_cfg", {})
    given = dict(stated.get("tokenizer_kwargs") or {})
    length = stated.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    named = stated.get("hf_tokenizer_name")
    make: Callable[..., Any] = open_clip.SimpleTokenizer
    if named:
        is_here = folder is not None and any((folder / name).is_file() for name in TOKENIZER_FILES)
        if not is_here and not may_download:
            raise ConfigError.of(
                f"tokenizer of `{record.name}`",
                got=f"no files of `{named}`",
                expected=f"one of {', '.join(TOKENIZER_FILES)} in the folder of the model",
                do="Give the folder as the hub has it, or say `--weights download`.",
            )
        make, given = open_clip.HFTokenizer, {"tokenizer_name": str(folder) if is_here else named, **given}
    made = built(make, {**given, "context_length": length}, what=f"tokenizer of `{record.name}`")
    return lambda words: made(words)
