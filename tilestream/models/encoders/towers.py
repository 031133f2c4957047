"""The other tower of an encoder: texts to vectors that those of tiles can be compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError, TilestreamError
from tilestream.models.encoders.load import Weights, load_whole
from tilestream.models.encoders.names import TARGET
from tilestream.models.encoders.record import record_of
from tilestream.models.runners import one_torch_thread, to_numpy
from tilestream.registry import resolve
from tilestream.types import StageSpec

IMAGES, TEXTS = "encode_image", "encode_text"
"""Names of the two towers of a pair: attributes of one object, or functions of one module."""


def encode_texts(spec: StageSpec, words: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the vectors of texts by the tower that belongs to an encoder of tiles.

    Parameters
    ----------
    spec : StageSpec
        The encoder's: a model of open_clip, or `module:callable` of a pair, see `text_tower`.
    words : sequence of str
        The texts.

    Returns
    -------
    ndarray of float32
        `(k, d)`, of any length.

    Raises
    ------
    ConfigError
        When the encoder knows images only, or its tower raises or gives another shape.
    """
    if not has_text_tower(spec):
        raise image_only(_name(spec), words)
    if spec.target == TARGET:
        found = _open_clip(spec.params, words)
    else:
        target = str(spec.params["target"])
        found = _called(text_tower(target), words, target)
    found = np.asarray(found, np.float32)
    if found.ndim != 2 or len(found) != len(words):
        raise ConfigError.of(
            f"text tower of `{_name(spec)}`",
            got=f"shape {found.shape}",
            expected=f"({len(words)}, d), a vector for each text",
            do="Correct what it returns.",
        )
    return found


def has_text_tower(spec: StageSpec) -> bool:
    """Return whether a tower of texts belongs to an encoder of tiles."""
    if spec.target == TARGET:
        return str(spec.params["record"].get("library")) == "open_clip"
    return spec.target == "callable" and text_tower(str(spec.params["target"])) is not None


def image_only(name: str, words: Sequence[str]) -> ConfigError:
    """Return the error for texts that an encoder of images was given."""
    return ConfigError.of(
        f"text `{words[0]}` of a query",
        got=f"encoder `{name}`, which knows images only",
        expected="one that was trained on images and texts together",
        do=f"Name such a one with --encoder: open_clip:NAME, or module:pair with `{IMAGES}` and `{TEXTS}`; or give "
        "vectors that were made elsewhere, query:file=FILE.npy, or a place, query:box=Y,X,HEIGHT,WIDTH.",
    )


def text_tower(target: str) -> Callable[[list[str]], Any] | None:
    """Return what encodes texts for an encoder `module:callable`.

    Parameters
    ----------
    target : str
        `module:pair` with an attribute `encode_text`, or `module:encode_image` or `module:pair.encode_image` beside an
        `encode_text`.

    Returns
    -------
    callable or None
        A list of texts to `(k, d)`; None where there is none.
    """
    own = getattr(_found(target), TEXTS, None)
    if own is None and target.endswith(IMAGES):
        try:
            own = _found(target.removesuffix(IMAGES) + TEXTS)
        except ConfigError:
            return None
    return own if callable(own) else None


def image_tower(target: str) -> dict[str, Any]:
    """Return the parameters of the stage that encodes images for `module:callable`.

    Parameters
    ----------
    target : str
        `module:callable`, or `module:pair` with an attribute `encode_image`.

    Returns
    -------
    dict
        `target`, and for a pair whose contract stands on the pair itself the fields of that.
    """
    pair = _found(target)
    images = getattr(pair, IMAGES, None)
    if not callable(images):
        return {"target": target}
    own = getattr(pair, "contract", {}) if not hasattr(images, "contract") else {}
    fields = dict(own) if isinstance(own, Mapping) else asdict(own)
    stated = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
    return {**stated, "target": f"{target}.{IMAGES}"}


def _found(target: str) -> Any:
    return resolve(target, table={}, group="tilestream.callables")


def _name(spec: StageSpec) -> str:
    record: Mapping[str, Any] = spec.params.get("record", {})
    return str(record.get("name") or spec.params.get("target") or spec.target)


def _called(tower: Callable[[list[str]], Any] | None, words: Sequence[str], target: str) -> npt.NDArray[Any]:
    assert tower is not None
    try:
        return to_numpy(tower(list(words)))
    except TilestreamError:
        raise
    except Exception as error:  # whatever a user's callable raises becomes one clear line
        raise ConfigError.of(
            f"text tower of `{target}`",
            got=f"{type(error).__name__}: {error}",
            expected="vectors (k, d) of a list of texts",
            do="Call it so by itself.",
        ) from error


def _open_clip(params: Mapping[str, Any], words: Sequence[str]) -> npt.NDArray[Any]:
    import torch

    from tilestream.models.encoders.openclip_models import tokenizer
    from tilestream.models.singly import singly

    document, seed = params["record"], params.get("random_weights")
    record, weights = record_of(document, what="the encoder's record"), Weights(place=params.get("weights"), seed=seed)
    weights.require(record)
    network = load_whole(document, weights, digest=params.get("digest"))
    if not callable(getattr(network, TEXTS, None)):
        raise image_only(record.name, words)
    folder: Path | None = weights.folder(record)
    tokens = tokenizer(record, folder, may_download=weights.may_download)(list(words))
    with torch.inference_mode(), one_torch_thread():
        return to_numpy(singly(network.encode_text, tokens))  # whatever other texts there are
