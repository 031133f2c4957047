"""Weights from the Hugging Face hub by its own client: only where the user said `download`, and of one revision."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from tilestream.errors import ConfigError
from tilestream.models.encoders.libraries import import_library
from tilestream.models.encoders.record import EncoderRecord

WORD = "download"
"""What a user says in place of a file."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_download(place: str) -> bool:
    """Return whether a place of weights is `download`, or `download@REVISION`."""
    return place == WORD or place.startswith(f"{WORD}@")


def fetched(record: EncoderRecord, place: str) -> Path:
    """Return the file of weights, or the folder of a model of transformers, in the hub's cache on this machine.

    Parameters
    ----------
    record : EncoderRecord
        Names repository and file.
    place : str
        `download`, or `download@REVISION`.

    Returns
    -------
    Path
        Where it lies.

    Raises
    ------
    ConfigError
        When no repository is known, the hub's client is not installed, or it does not get the file.
    """
    repository = record.repository or (record.model if record.library == "hf" else None)
    if repository is None:
        raise ConfigError.of(
            f"weights of `{record.name}`",
            got="`download`, and no repository is known",
            expected="an encoder whose weights are on the Hugging Face hub",
            do="Give a file with --weights FILE.",
        )
    return _fetched(repository, place.partition("@")[2] or None, _patterns(record))


def pin(record: EncoderRecord, place: str) -> str:
    """Return a place with the revision that is there now, so that every process fetches the same."""
    path = fetched(record, place)
    commit = next((part for part in path.parts if _COMMIT.fullmatch(part)), None)
    return place if commit is None else f"{WORD}@{commit}"


def _patterns(record: EncoderRecord) -> tuple[str, ...]:
    if record.file is not None:
        return (record.file,)
    if record.library == "hf":
        return ("*.json", "*.safetensors")
    if record.library == "open_clip":
        return ("open_clip_model.safetensors",)
    return ("model.safetensors",)


@lru_cache(maxsize=64)
def _fetched(repository: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    hub = import_library("huggingface_hub")
    try:
        if len(patterns) == 1:
            return Path(hub.hf_hub_download(repository, patterns[0], revision=revision))
        return Path(hub.snapshot_download(repository, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError.of(
            f"download of `{repository}`",
            got=f"{type(error).__name__}: {reason}",
            expected="its weights",
            do=f"Where access is restricted, ask for it at https://huggingface.co/{repository}, then `hf auth login`; "
            "without a network give a file: --weights FILE.",
        ) from error
