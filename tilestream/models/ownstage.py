"""Networks of our own as tile stages: built, given weights and moved to the device once a process, when first used."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilestream.errors import ConfigError
from tilestream.models import weights as files
from tilestream.models.adapter import AdaptedStage, adapted
from tilestream.registry import resolve
from tilestream.types import StageContract, StageSpec

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
"""Types to compute in; in half types by autocast, which keeps weights, norms and sums in float32."""

HIPT = StageContract(
    name="hipt",
    px=256,
    mpp=0.5,
    needs_mpp=True,
    channels=3,
    scale=1 / 255,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    dim=384,
    framework="torch",
    pooling="class token",
    source=files.HIPT_SOURCE,
    licence=files.HIPT_LICENCE,
)
"""What HIPT's first stage was trained on: 256 px at 20x, -1 to 1."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Whose weights a network gets, and what it computes in."""

    path: str | None
    """File; None = random ones."""
    seed: int | None
    """Seed of random ones."""
    digest: str
    """Of the file, or `random:SEED`; a file with another one is refused."""
    dtype: str
    """One of `DTYPES`."""


def hipt(
    *,
    name: str = HIPT.name,
    weights: str | None = None,
    random_weights: int | None = None,
    dtype: str = "float32",
    digest: str | None = None,
    positions: Sequence[int] | None = None,
) -> AdaptedStage:
    """Return HIPT's first stage, ViT256-16, as a tile stage.

    Parameters
    ----------
    name : str
        Name under which its vectors are stored.
    weights : str, optional
        File of weights, see `tilestream.models.weights`.
    random_weights : int, optional
        Seed of random ones instead.
    dtype : {"float32", "bfloat16", "float16"}
        What to compute in.
    digest : str, optional
        What the digest of the weights has to be, so that all processes have the same.
    positions : sequence of int, optional
        Positions of its channels in a batch, as `for_image` finds them.

    Returns
    -------
    AdaptedStage
        Vectors of 384 values.

    Raises
    ------
    ConfigError
        When there are no weights, two kinds of them, another file than at the start, or no such type.
    """
    given = given_weights("hipt", weights, random_weights, dtype=dtype, digest=digest)
    return own_stage("tilestream.models.hipt:vit256", HIPT, given, positions, name=name)


def own_stage(
    network: str,
    contract: StageContract,
    given: Weights,
    positions: Sequence[int] | None,
    *,
    name: str | None = None,
    select: str | None = None,
) -> AdaptedStage:
    """Return a network as a stage.

    Parameters
    ----------
    network : str
        `module:function` that makes it, without weights.
    contract : StageContract
        What it expects and gives; its name is that of the stage, by which workers make it.
    given : Weights
        Its weights.
    positions : sequence of int, optional
        Positions of its channels in a batch.
    name : str, optional
        Name under which its vectors are stored, where it is another than that of the stage.
    select : str, optional
        `module:function` that brings the tensors of a published file to the network's own names.

    Returns
    -------
    AdaptedStage
        Weights are loaded where it is first used.
    """
    known = name or contract.name
    params = {
        "name": None if known == contract.name else known,
        "weights": given.path,
        "random_weights": given.seed,
        "digest": given.digest,
        "dtype": given.dtype,
    }
    is_random = given.path is None
    return adapted(
        contract.name,
        lambda: _network(network, contract.name, given, select),
        replace(
            contract,
            name=known,
            dtype=given.dtype,
            weights=given.digest,
            source=None if is_random else contract.source,
            licence=None if is_random else contract.licence,
        ),
        made_by=StageSpec(target=contract.name, params={k: v for k, v in params.items() if v is not None}),
        positions=positions,
    )


def given_weights(
    name: str, path: str | None, seed: int | None, *, dtype: str = "float32", digest: str | None = None
) -> Weights:
    """Return what a user has said of weights.

    Parameters
    ----------
    name : str
        The stage.
    path : str, optional
        File.
    seed : int, optional
        Seed of random ones instead.
    dtype : str
        One of `DTYPES`.
    digest : str, optional
        What the digest has to be.

    Returns
    -------
    Weights
        With an absolute path and the digest.

    Raises
    ------
    ConfigError
        When there are none, two kinds of them, another file than the digest says, or no such type.
    """
    if dtype not in DTYPES:
        raise ConfigError.of(f"`dtype` of `{name}`", got=f"`{dtype}`", expected=f"one of {list(DTYPES)}", do="Choose.")
    if path is not None and seed is not None:
        do = "Leave --weights or --random-weights out."
        raise ConfigError.of(f"weights of `{name}`", got="a file and a seed", expected="one of them", do=do)
    if seed is not None:
        files.require_seed(seed)
    elif path is None:
        raise files.missing_weights(name)
    path = None if path is None else str(Path(path).absolute())
    found = f"random:{seed}" if path is None else files.weights_digest(path, model=name)
    if digest is not None and digest != found:
        raise ConfigError.of(
            f"weights of `{name}`",
            got=f"digest {found}",
            expected=f"digest {digest}, which the run began with",
            do="Put the same file in its place on every machine, or start again.",
        )
    return Weights(path=path, seed=seed, digest=found, dtype=dtype)


_one_at_a_time = threading.Lock()


def _network(network: str, name: str, given: Weights, select: str | None) -> torch.nn.Module:
    with _one_at_a_time:  # several threads may want it at once
        return _loaded(network, name, given, select)


@lru_cache(maxsize=8)
def _loaded(network: str, name: str, given: Weights, select: str | None) -> torch.nn.Module:
    from tilestream.models.halftype import HalfType
    from tilestream.models.runners import torch_type

    module: torch.nn.Module = _object(network)()
    renamed = None if select is None else _object(select)
    if given.path is None:
        files.random_weights(module, seed=given.seed or 0)
    elif files.load_weights(module, given.path, model=name, select=renamed) != given.digest:
        raise ConfigError.of(
            f"weights of `{name}`", got="a file that has changed", expected="the one of the start", do="Start again."
        )
    return module if given.dtype == "float32" else HalfType(module, torch_type(given.dtype))


def _object(path: str) -> Any:
    return resolve(path, table={}, group="tilestream.networks")
