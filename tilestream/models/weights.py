"""Weights of a network: loaded strictly from a file that cannot run code, or random because the user said so.

A file is a training checkpoint as DINO writes it, a plain state dict of `torch.save`, or safetensors. All tensors
of the network have to be there, in their shapes, and no others: a file of another network is refused.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import pickle
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tilestream import registry
from tilestream.errors import ConfigError

if TYPE_CHECKING:
    import torch

Select: TypeAlias = Callable[[Mapping[str, "torch.Tensor"]], Mapping[str, "torch.Tensor"]]
"""Takes the tensors of a checkpoint and returns those that a network wants."""

HIPT_SOURCE = "https://github.com/mahmoodlab/HIPT"
HIPT_LICENCE = "Apache-2.0 with Commons Clause, for non-commercial academic use"

_HIPT_FILE = "HIPT_4K/Checkpoints/{} in " + f"{HIPT_SOURCE} (Git LFS; {HIPT_LICENCE})"

PUBLISHED: Mapping[str, str] = {
    "hipt": _HIPT_FILE.format("vit256_small_dino.pth"),
    "mvit": "MViTv2_T_in1k.pyth of https://github.com/facebookresearch/mvit, or timm/mvitv2_tiny.fb_in1k on the "
    "Hugging Face hub (Apache-2.0; trained on photographs)",
    "vit256": _HIPT_FILE.format("vit256_small_dino.pth"),
    "vit4k": _HIPT_FILE.format("vit4k_xs_dino.pth"),
}
"""Where weights of a model are published, and under which licence."""

WRAPPERS = ("teacher", "state_dict", "model", "model_state")
"""Keys under which checkpoints keep a state dict; the first that is there is taken. `teacher` is DINO's average."""

PREFIXES = ("module.", "backbone.")
"""What DataParallel and DINO put before names, in this order."""

HEAD = "head."
"""Before the names of a projection head or classifier, which a network without one drops."""

SHOWN = 3
"""Names of each kind that an error shows."""

POINTER = b"version https://git-lfs"
"""What the text begins with that Git LFS leaves in place of a file."""

_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)
"""What torch raises of files that are damaged, cut or no weights at all."""


def load_weights(
    module: torch.nn.Module, path: str | Path, *, model: str, key: str | None = None, select: Select | None = None
) -> str:
    """Load weights into a network and return the digest of their file.

    Parameters
    ----------
    module : torch.nn.Module
        The network; keeps its types and devices.
    path : str or Path
        Checkpoint, state dict or safetensors.
    model : str
        What users call the network, for messages.
    key : str, optional
        Key of a checkpoint that holds the state dict, such as `student`; None = the first of `WRAPPERS` that is there.
    select : callable, optional
        Returns those tensors of a state dict that are the network's, under its names.

    Returns
    -------
    str
        32 hex digits of BLAKE2b of the file.

    Raises
    ------
    ConfigError
        When there is no such file, it is no weights or would run code, or its tensors are not those of the network.
    """
    path = Path(path)
    found = weights_digest(path, model=model)
    stored = _unwrapped(_read(path), path, key)
    tensors = _of_network(stored if select is None else select(stored), set(module.state_dict()))
    _require_same(tensors, module.state_dict(), path=path, model=model)
    module.load_state_dict(tensors, strict=True)
    return found


def weights_digest(path: str | Path, *, model: str) -> str:
    """Return the digest of a file of weights, without loading them.

    Parameters
    ----------
    path : str or Path
        The file.
    model : str
        What users call the network.

    Returns
    -------
    str
        32 hex digits of BLAKE2b.

    Raises
    ------
    ConfigError
        When there is no such file, it is empty, or Git LFS has left its pointer there.
    """
    path = Path(path)
    _require_file(path, model)
    found = registry.weights_digest({"weights": str(path.absolute())})
    assert found is not None  # there is a file
    return found


def training_settings(path: str | Path, *, model: str) -> Mapping[str, Any]:
    """Return the settings of the training that wrote a checkpoint, so that the same network can be made.

    Parameters
    ----------
    path : str or Path
        The file.
    model : str
        What users call the network.

    Returns
    -------
    Mapping
        As `tilestream train dino` keeps them; empty for a file of another program.

    Raises
    ------
    ConfigError
        When there is no such file, or it cannot be read.
    """
    path = Path(path)
    _require_file(path, model)
    found = _read(path)
    is_ours = isinstance(found, Mapping) and "tilestream" in found and isinstance(found.get("args"), Mapping)
    return dict(found["args"]) if is_ours else {}


def missing_weights(model: str, *, option: str = "--weights FILE") -> ConfigError:
    """Return the error of a network that was given no weights: where they are published, and under which licence.

    Parameters
    ----------
    model : str
        What users call the network.
    option : str
        How they name a file.

    Returns
    -------
    ConfigError
        For the caller to raise.
    """
    where = PUBLISHED.get(model)
    published = f"They are published as {where}. " if where else ""
    return ConfigError.of(
        f"weights of `{model}`",
        got="none",
        expected="a file of them",
        do=f"{published}Give it with {option}, or `--random-weights SEED` if the features need no meaning.",
    )


def random_weights(module: torch.nn.Module, *, seed: int) -> None:
    """Fill a network with random weights that only the seed, the names and the shapes of its parameters decide.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    seed : int
        Any whole number from 0.

    Notes
    -----
    Weights are uniform about 0 with a variance of 1 / fan-in, other arrays (positions, class tokens) with a standard
    deviation of 0.02; biases are 0, scales 1. They come from NumPy's PCG64, a stream of its own for each parameter, and
    take no transcendental function: neither torch's generators, nor threads, nor the machine change a bit.
    """
    import torch

    require_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            shape = tuple(parameter.shape)
            if len(shape) < 2:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            std = 1 / math.sqrt(math.prod(shape[1:])) if name.endswith("weight") else 0.02
            parameter.copy_(torch.from_numpy(_uniform(f"{seed}:{name}", shape, std)))


def require_seed(seed: object) -> None:
    """Raise `ConfigError` unless a seed of random weights is a whole number from 0."""
    if not isinstance(seed, int) or seed < 0:
        raise ConfigError.of("seed of random weights", got=seed, expected="a whole number from 0", do="Give another.")


def _uniform(label: str, shape: tuple[int, ...], std: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    words = np.frombuffer(hashlib.blake2b(label.encode(), digest_size=32).digest(), np.uint32)
    unit = np.random.Generator(np.random.PCG64([int(word) for word in words])).random(shape, np.float32)
    return (unit * np.float32(2) - np.float32(1)) * np.float32(std * math.sqrt(3))


def _require_file(path: Path, model: str) -> None:
    what, where = f"weights of `{model}` in `{path}`", PUBLISHED.get(model)
    published = f" They are published as {where}." if where else ""
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise ConfigError.of(what, got=got, expected="a file of weights", do=f"Correct the path.{published}")
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise ConfigError.of(what, got=str(error), expected="a file of weights", do="See to its rights.") from error
    if not start:
        raise ConfigError.of(what, got="an empty file", expected="weights", do=f"Download it again.{published}")
    if start == POINTER:
        raise ConfigError.of(
            what,
            got="a pointer of Git LFS, a text of three lines in place of the file",
            expected="the file itself",
            do="Run `git lfs pull` in the clone it came from.",
        )


def _read(path: Path) -> Any:
    """Return what a file holds, mapped into memory where its format allows."""
    with path.open("rb") as file:
        start = file.read(9)
    if _is_safetensors(start, path.stat().st_size):
        return _read_safetensors(path)
    if not start.startswith((b"PK\x03\x04", b"\x80")):
        raise _not_weights(path, "neither a file of torch.save nor safetensors")
    import torch

    try:
        with _quiet(), torch.serialization.safe_globals([argparse.Namespace]):  # in which DINO keeps its options
            return torch.load(path, map_location="cpu", weights_only=True, mmap=start.startswith(b"PK"))
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()
        if "Unsupported" in str(error) or "TorchScript" in str(
            error
        ):  # a type that is not in torch's list of safe ones
            raise ConfigError.of(
                f"weights in `{path}`",
                got="a pickled object, which runs code as it is read",
                expected="tensors by name",
                do="Where you trust the file, load it by yourself and store `model.state_dict()`, best as safetensors.",
            ) from error
        raise _not_weights(path, reason[0] if reason else type(error).__name__) from error


def _is_safetensors(start: bytes, size: int) -> bool:
    """Return whether a file begins with the length of a JSON header and its brace."""
    return len(start) == 9 and start[8:] == b"{" and int(struct.unpack("<Q", start[:8])[0]) + 8 <= size


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ConfigError.of(
            f"weights in `{path}`",
            got="safetensors",
            expected="the package of that name to be installed",
            do="pip install -e '.[torch]'.",
        ) from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _not_weights(path, str(error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what torch warns of files that are refused, or read all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _not_weights(path: Path, reason: str) -> ConfigError:
    return ConfigError.of(
        f"weights in `{path}`",
        got=f"a file that cannot be read ({reason})",
        expected="a checkpoint or state dict of torch.save, or safetensors",
        do="Download it again, or correct the path.",
    )


def _unwrapped(found: Any, path: Path, key: str | None) -> Mapping[str, torch.Tensor]:
    """Return the state dict of a checkpoint."""
    import torch

    if key is not None and (not isinstance(found, Mapping) or key not in found):
        keys = sorted(str(name) for name in found)[: 3 * SHOWN] if isinstance(found, Mapping) else type(found).__name__
        raise ConfigError.of(f"weights in `{path}`", got=f"keys {keys}", expected=f"`{key}`", do="Name another key.")
    if isinstance(found, Mapping):
        inner = key or next((name for name in WRAPPERS if isinstance(found.get(name), Mapping)), None)
        found = found if inner is None else found[inner]
    if isinstance(found, Mapping) and found and all(isinstance(value, torch.Tensor) for value in found.values()):
        return {str(name): value for name, value in found.items()}
    got = f"keys {sorted(map(str, found))[: 3 * SHOWN]}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
    raise ConfigError.of(
        f"weights in `{path}`",
        got=got,
        expected=f"tensors by name, or a checkpoint that has them under one of {list(WRAPPERS)}",
        do="Give a checkpoint of the network.",
    )


def _of_network(tensors: Mapping[str, torch.Tensor], names: set[str]) -> dict[str, torch.Tensor]:
    """Return tensors under the network's own names, without a head that it does not have."""
    found = {}
    for name, tensor in tensors.items():
        short = name
        for prefix in PREFIXES:
            short = short if short in names else short.removeprefix(prefix)
        if short in names or not short.startswith(HEAD):
            found[name if short in found else short] = tensor  # two of one name: the second is not the network's
    return found


def _require_same(
    tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], *, path: Path, model: str
) -> None:
    """Raise unless a file has the network's tensors, in its shapes, all finite, and no others."""
    wrong = {
        "missing": [name for name in own if name not in tensors],
        "not the network's": [name for name in tensors if name not in own],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in tensors and tensors[name].shape != own[name].shape
        ],
        "not finite": [name for name in own if name in tensors and not bool(tensors[name].isfinite().all())],
    }
    said = [f"{len(names)} {kind} ({_few(names)})" for kind, names in wrong.items() if names]
    if said:
        where = PUBLISHED.get(model)
        raise ConfigError.of(
            f"weights of `{model}` in `{path}`",
            got=f"tensors of which {'; '.join(said)}",
            expected=f"the {len(own)} of the network, and no others",
            do=f"Give the file of this network{f', published as {where}' if where else ''}.",
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
