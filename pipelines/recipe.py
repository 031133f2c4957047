"""The recipe of an output: everything that its bytes are a function of, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tilestream import __version__
from tilestream.registry import WEIGHTS, source_digest, weights_digest
from tilestream.types import ImageInfo, StageContract, StageSpec


def image_recipe(image: ImageInfo) -> dict[str, Any]:
    """Return the part of a recipe that says which pixels went in.

    Parameters
    ----------
    image : ImageInfo
        The opened image.

    Returns
    -------
    dict
        JSON values.
    """
    return {
        "fingerprint": image.fingerprint,
        "format": image.format,
        "kind": image.kind,
        "modality": image.modality,
        "selection": dict(sorted(image.selection.items())),
        "mpp_yx": None if image.mpp_yx is None else list(image.mpp_yx),
        "derived": list(image.derived),
    }


def stage_recipe(spec: StageSpec, contract: StageContract, *, source: str | None = None) -> dict[str, Any]:
    """Return the part of a recipe that says what a stage is.

    Parameters
    ----------
    spec : StageSpec
        Target and parameters.
    contract : StageContract
        What the made stage declares.
    source : str, optional
        `module:callable` of a user's function.

    Returns
    -------
    dict
        JSON values; for a callable of the user's with a digest of its module's source, since an edited function is
        another one under the same name.
    """
    return {
        "target": spec.target,
        "params": params_recipe(spec.params),
        "contract": json.loads(json.dumps(asdict(contract))),
        "source": None if source is None else source_digest(source),
    }


def params_recipe(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters of a stage as they belong into a recipe.

    Parameters
    ----------
    params : Mapping
        JSON values.

    Returns
    -------
    dict
        The same, but for `weights` and `weights_4k` that are a file or folder: known by what is in it, so that an
        edited one is another recipe and a moved one is not.
    """
    found = {key: weights_digest({key: params.get(key)}) for key in WEIGHTS}
    return {**params, **{key: {"digest": one} for key, one in found.items() if one is not None}}


def digest(document: Mapping[str, Any]) -> str:
    """Return the hex digest of a recipe.

    Parameters
    ----------
    document : Mapping
        JSON values; the order of keys does not matter.

    Returns
    -------
    str
        32 hex digits of BLAKE2b.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Return the hex digest of a small file, such as a mask or an outline."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def new_recipe(**parts: Any) -> dict[str, Any]:
    """Return a recipe of the given parts under the version of tilestream."""
    return {"tilestream": __version__, **parts}
