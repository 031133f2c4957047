"""Networks of our own that describe tiles, as stages: weights come from a file or a seed, never from nowhere."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tilestream.errors import ConfigError
from tilestream.models.adapter import AdaptedStage, adapted
from tilestream.models.weights import load_weights, missing_weights, random_weights, weights_digest
from tilestream.types import StageContract, StageSpec

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in 0 to 1 over the images of ImageNet."""

BUILDERS: Mapping[str, str] = {
    "fpn-vit": "tilestream.models.fpnvit:FPNTransformer",
    "mvit": "tilestream.models.mvit:mvitv2_tiny",
}
"""What makes each network, without arguments."""

RENAMED: Mapping[str, str] = {"mvit": "tilestream.models.mvit:own_names"}
"""What brings the names of published files to those of a network."""

CONTRACTS: Mapping[str, StageContract] = {
    name: StageContract(
        name=name,
        px=px,
        channels=3,
        scale=1 / 255,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        dtype="float32",
        dim=768,
        framework="torch",
        pooling=pooling,
    )
    for name, px, pooling in (
        ("fpn-vit", 256, "mean of the fused map of each level, one behind the other"),
        ("mvit", 224, "mean of all tokens"),
    )
}
"""What each expects: 8-bit red, green, blue. None is tied to a resolution: published weights of MViTv2 saw photographs,
and nobody has published others. Give `--mpp` with the one that your own weights were trained at."""

_one_at_a_time = threading.Lock()


def mvit(
    weights: str | None = None,
    random_weights: int | None = None,
    digest: str | None = None,
    positions: Sequence[int] | None = None,
) -> AdaptedStage:
    """Return MViTv2-T as a stage: tiles of 224 px to vectors of 768 values.

    Parameters
    ----------
    weights : str, optional
        File: a state dict of timm's `mvitv2_tiny`, or one of `tilestream.models.mvit`.
    random_weights : int, optional
        Seed of random ones instead.
    digest : str, optional
        What the digest of the weights has to be.
    positions : sequence of int, optional
        Positions of its channels in a batch, as `for_image` finds them.

    Returns
    -------
    AdaptedStage
        Built, with its weights, where it is first used.

    Raises
    ------
    ConfigError
        When there are no weights, both kinds, or another file than the digest says.
    """
    return _stage("mvit", weights, random_weights, digest, positions)


def fpn_vit(
    weights: str | None = None,
    random_weights: int | None = None,
    digest: str | None = None,
    positions: Sequence[int] | None = None,
) -> AdaptedStage:
    """Return the transformer over pyramid levels as a stage: tiles of 256 px to vectors of 768 values.

    Parameters
    ----------
    weights : str, optional
        File: a state dict of `tilestream.models.fpnvit`; nobody has published any.
    random_weights : int, optional
        Seed of random ones instead.
    digest : str, optional
        What the digest of the weights has to be.
    positions : sequence of int, optional
        Positions of its channels in a batch, as `for_image` finds them.

    Returns
    -------
    AdaptedStage
        Built, with its weights, where it is first used.

    Raises
    ------
    ConfigError
        When there are no weights, both kinds, or another file than the digest says.
    """
    return _stage("fpn-vit", weights, random_weights, digest, positions)


def _stage(
    name: str, weights: str | None, seed: int | None, digest: str | None, positions: Sequence[int] | None
) -> AdaptedStage:
    if weights is not None and seed is not None:
        raise ConfigError.of(
            f"weights of `{name}`", got=f"a file and the seed {seed}", expected="one of them", do="Leave out the other."
        )
    if weights is None and seed is None:
        raise missing_weights(name)
    found = f"random:{seed}" if weights is None else weights_digest(weights, model=name)
    if digest not in (None, found):
        raise _changed(name, weights, found, str(digest))
    params = {"weights": weights, "random_weights": seed, "digest": found}
    return adapted(
        name,
        lambda: _made(name, weights, seed, found),
        replace(CONTRACTS[name], weights=found),
        made_by=StageSpec(target=name, params={key: value for key, value in params.items() if value is not None}),
        positions=positions,
    )


def _made(name: str, weights: str | None, seed: int | None, digest: str) -> torch.nn.Module:
    with _one_at_a_time:  # threads of a process share a network
        return _built(name, weights, seed, digest)


@lru_cache(maxsize=2)
def _built(name: str, weights: str | None, seed: int | None, digest: str) -> torch.nn.Module:
    """Return a network with its weights."""
    network: torch.nn.Module = _object(BUILDERS[name])()
    select = _object(RENAMED[name]) if name in RENAMED else None
    if weights is None:
        random_weights(network, seed=seed or 0)
    elif (found := load_weights(network, weights, model=name, select=select)) != digest:
        raise _changed(name, weights, found, digest)
    return network


def _object(path: str) -> Any:
    """Return what is behind `module:name`, imported where it is used: networks need torch, their contracts do not."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _changed(name: str, weights: str | None, found: str, digest: str) -> ConfigError:
    return ConfigError.of(
        f"weights of `{name}` in `{weights}`",
        got=f"a file with the digest {found}",
        expected=f"{digest}, as at the start of the run",
        do="Give the same file to all workers, and leave it as it is while they run.",
    )
