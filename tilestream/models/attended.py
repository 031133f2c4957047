"""The networks whose attention is looked at: made or loaded once a process, and tried before anything is read."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

from tilestream.errors import ConfigError, TilestreamError
from tilestream.models.ownstage import HIPT
from tilestream.models.runners import is_module, one_torch_thread, torch_device
from tilestream.registry import resolve, source_digest
from tilestream.types import StageContract

if TYPE_CHECKING:
    import torch
    from torch import nn

_FIELDS = frozenset(f.name for f in fields(StageContract))
_placing = Lock()


@dataclass(frozen=True, kw_only=True, eq=False)
class Attended:
    """A network of tiles, one of regions where there is one, and what is known of them."""

    contract: StageContract
    """What the network of tiles takes."""
    made: tuple[nn.Module, ...] = field(repr=False)
    """The network of tiles, and that of regions."""
    token_px: int
    """Pixels along a token of the network of tiles."""
    tile_heads: int
    """Heads of its last block."""
    region_heads: int = 0
    """Heads of the last block of the network of regions."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of the files that weights were loaded from, and of the source of an encoder of the user's."""

    @property
    def tile(self) -> nn.Module:
        """Return the network of tiles, on the device of this process."""
        return self._placed[0]

    @property
    def region(self) -> nn.Module | None:
        """Return the network of regions, on the device of this process; None where there is none."""
        return self._placed[1] if len(self.made) > 1 else None

    @cached_property
    def _placed(self) -> tuple[nn.Module, ...]:
        with _placing:
            return tuple(network.to(torch_device()) for network in self.made)

    def scaled(self, samples: torch.Tensor) -> torch.Tensor:
        """Return samples as the contract wants them, by the same float32 steps as `embed` takes.

        Parameters
        ----------
        samples : Tensor
            `(n, c, y, x)` as they are stored.

        Returns
        -------
        Tensor
            float32.
        """
        import numpy as np
        import torch

        contract, found = self.contract, samples.to(torch.float32)
        found = found * float(np.float32(contract.scale))
        for values, apply in ((contract.mean, found.sub_), (contract.std, found.div_)):
            if values:
                apply(torch.tensor(values, dtype=torch.float32, device=found.device).reshape(1, -1, 1, 1))
        return found


def make_attended(
    encoder: str,
    *,
    weights: str | None = None,
    weights_4k: str | None = None,
    random_weights: int | None = None,
    digests: Mapping[str, str] | None = None,
) -> Attended:
    """Return the networks of an encoder, in evaluation mode.

    Parameters
    ----------
    encoder : str
        `hipt`, or `module:callable`: a network, a class or function that makes one without arguments, or one that
        makes a pair, of tiles and of regions.
    weights : str, optional
        File of the network of tiles; HIPT needs it.
    weights_4k : str, optional
        File of the network of regions; HIPT needs it.
    random_weights : int, optional
        Seed of weights without a meaning, in place of files.
    digests : Mapping, optional
        What the files and the encoder's source were when the run was planned.

    Returns
    -------
    Attended
        Tried on a black tile.

    Raises
    ------
    ConfigError
        When there is no such encoder, a network has no attention or cannot be run, there are no weights, or one of
        the files has changed.
    """
    if importlib.util.find_spec("torch") is None:
        do = "pip install -e '.[torch]'."
        raise ConfigError.of(f"attention of `{encoder}`", got="no package `torch`", expected="it installed", do=do)
    from tilestream.models.hipt import vit4k, vit256
    from tilestream.models.weights import load_weights, missing_weights
    from tilestream.models.weights import random_weights as fill

    known: dict[str, str] = {}
    networks: tuple[nn.Module, ...]
    if encoder == "hipt":
        contract, networks = HIPT, (vit256(), vit4k())
        if random_weights is not None:
            contract = replace(contract, source=None, licence=None)
    else:
        contract, networks = _own(encoder)
        known = {"encoder": source_digest(encoder) or ""}
    names = ("vit256", "vit4k") if encoder == "hipt" else (encoder, f"{encoder} of regions")
    given = {"weights": weights, "weights_4k": weights_4k}
    for network, name, (key, path) in zip(networks, names, given.items(), strict=False):
        if random_weights is not None:
            fill(network, seed=random_weights)
        elif path is not None:
            known[key] = load_weights(network, path, model=name)
        elif encoder == "hipt":
            raise missing_weights(name, option=f"--{key.replace('_', '-')} FILE")
        network.eval()
    if digests is not None and dict(digests) != known:
        raise ConfigError.of(
            f"weights of `{encoder}`",
            got=f"files with the digests {known}",
            expected=f"those that the run was planned with, {dict(digests)}",
            do="Leave them as they are while a run is at work.",
        )
    return _tried(Attended(contract=contract, made=networks, token_px=1, tile_heads=1, digests=known), encoder)


def try_regions(attended: Attended, edge: int) -> Attended:
    """Return the networks with the heads of that of regions, after it was tried on a region of zeros.

    Parameters
    ----------
    attended : Attended
        With a network of regions.
    edge : int
        Tiles along a region.

    Returns
    -------
    Attended
        With `region_heads`.

    Raises
    ------
    ConfigError
        When it raises, or gives no attention over the region.
    """
    import torch

    from tilestream.models.attention import attention_of

    tile, region = attended.made[:2]
    px, channels = attended.contract.px, _channels_of(attended.contract)
    with torch.inference_mode(), one_torch_thread():
        vector = _call("encoder", lambda: tile(torch.zeros(1, channels, px, px)))
        if getattr(vector, "ndim", 0) != 2:
            raise _refused("encoder", f"vectors of shape {tuple(vector.shape)}", "(n, d)")
        grid = torch.zeros(1, vector.shape[1], edge, edge)
        heads = _call("its network of regions", lambda: attention_of(region, grid, None))
    if tuple(heads.shape[2:]) != (edge, edge):
        raise _refused(
            "its network of regions", f"attention of shape {tuple(heads.shape)}", f"(n, heads, {edge}, {edge})"
        )
    return replace(attended, region_heads=int(heads.shape[1]))


def _tried(attended: Attended, encoder: str) -> Attended:
    """Return the networks with tokens and heads of that of tiles, after it was tried on a tile of zeros."""
    import torch

    from tilestream.models.attention import attention_of

    for network in attended.made:
        if not callable(getattr(network, "forward_attention", None)):
            raise ConfigError.of(
                f"encoder `{encoder}`",
                got=f"`{type(network).__name__}`, which has no `forward_attention`",
                expected="a transformer whose class token attends to the tokens of a tile",
                do="Choose `hipt`, or give it that method: (n, c, h, w) to (n, heads, tokens, tokens).",
            )
    px, channels = attended.contract.px, _channels_of(attended.contract)
    with torch.inference_mode(), one_torch_thread():
        black = torch.zeros(1, channels, px, px)
        found = _call(f"encoder `{encoder}`", lambda: attention_of(attended.made[0], black))
    is_grid = getattr(found, "ndim", 0) == 4 and found.shape[2] == found.shape[3]
    if not is_grid or px % found.shape[2] or found.shape[2] % 2:
        raise _refused(
            f"encoder `{encoder}`",
            f"attention of shape {tuple(found.shape)} for a tile of {px} px",
            "(n, heads, t, t) with an even t that divides the tile, so that half a tile is whole tokens",
        )
    return replace(attended, token_px=px // int(found.shape[2]), tile_heads=int(found.shape[1]))


def _own(encoder: str) -> tuple[StageContract, tuple[nn.Module, ...]]:
    """Return contract and networks of a user's encoder."""
    if ":" not in encoder:
        raise ConfigError.of(
            f"encoder `{encoder}`",
            got="none of which attention is known",
            expected="`hipt`, or `module:callable` of networks with `forward_attention`",
            do="Choose one.",
        )
    named = resolve(encoder, table={}, group="tilestream.callables")
    made = named if is_module(named) and not isinstance(named, type) else _call(f"`{encoder}`", named)
    networks = made if isinstance(made, tuple) else (made,)
    if not 1 <= len(networks) <= 2 or not all(map(is_module, networks)):
        got = ", ".join(type(network).__name__ for network in networks)
        raise _refused(f"`{encoder}`", got, "a torch module, or a pair of them: of tiles, and of regions")
    stated = getattr(named, "contract", None) or getattr(networks[0], "contract", None)
    if isinstance(stated, StageContract):
        return replace(stated, framework="torch"), networks
    if not isinstance(stated, Mapping) or not set(stated) <= _FIELDS or "px" not in stated:
        raise _refused(f"contract of `{encoder}`", repr(stated), "`px` at least, and other fields of a contract")
    known: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in stated.items()}
    defaults = {"name": "attention", "needs_mpp": known.get("mpp") is not None}
    return StageContract(**{**defaults, **known, "framework": "torch"}), networks


def _channels_of(contract: StageContract) -> int:
    if isinstance(contract.channels, int):
        return contract.channels
    return len(contract.channels or ()) or len(contract.mean) or 3


def _call(what: str, function: Any) -> Any:
    try:
        return function()
    except TilestreamError:
        raise
    except Exception as error:  # whatever a user's network raises becomes one clear line
        raise _refused(what, f"{type(error).__name__}: {error}", "a result for one black tile") from error


def _refused(what: str, got: str, expected: str) -> ConfigError:
    return ConfigError.of(what, got=got, expected=expected, do="Correct the encoder, or choose `hipt`.")
