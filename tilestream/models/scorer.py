"""A scorer: one number in 0 to 1 for a tile, by which a coarse look says where to look closely.

    vectors [n, d]       ->  (x - mean) / std  ->  linear, GELU                 ->  linear  ->  sigmoid
    pixels [n, c, h, w]  ->  (x - mean) / std  ->  3 convolutions, mean and max ->  linear  ->  sigmoid

The file is safetensors: parameters, and in its metadata, under `tilestream`, a JSON document with the fields of
`ScorerRecord`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tilestream.codecs.durable import write_durable
from tilestream.errors import ConfigError, SourceError
from tilestream.models.runners import one_torch_thread, torch_device

FORMAT = 1
"""Version of the file; raised when the same parameters would mean something else."""
KEY = "tilestream"
"""Where the record stands in the metadata of the file."""
TOGETHER = 64
"""Most tiles that go through at once; see `together_of`."""
TOGETHER_VALUES = TOGETHER * 3 * 32 * 32
"""Most samples of tiles that go through at once, unless a tile has more."""
SENT = 16 * TOGETHER
"""Tiles that are sent to a device at once."""
LEAST_PX = 8
"""Smallest edge of tiles that convolutions take: it is halved twice."""

Takes: TypeAlias = Literal["vectors", "pixels"]
"""What a scorer looks at."""


@dataclass(frozen=True, kw_only=True)
class ScorerRecord:
    """What is needed to make a scorer and to know what it may be given; JSON values."""

    takes: Takes
    """Whether it looks at the vectors of an encoder or at pixels."""
    inputs: int
    """Length of a vector, or number of channels."""
    width: int = 32
    """Values between its layers."""
    px: int | None = None
    """Pixels: edge of the tiles that it was trained on."""
    dtype: str | None = None
    """Pixels: type of their samples, as NumPy calls it."""
    mpp: float | None = None
    """Micrometres per pixel of those tiles; None where that is not known."""
    downsample: float | None = None
    """Pixels of level 0 under an edge of one of those pixels; None where nobody has said."""
    encoder: str | None = None
    """Vectors: name of the encoder that made them."""
    features: Mapping[str, Any] = field(default_factory=dict)
    """Vectors: what they have to share with those that it was trained on, such as the contract of the encoder."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained and how good it is; for people."""


class VectorTrunk(nn.Module):
    """Vectors `[n, d]` to `[n, .dim]`.

    Parameters
    ----------
    inputs : int
        Length of a vector.
    width : int
        Length of what comes out.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.dim = width
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Return `[n, .dim]`."""
        found: Tensor = self.layers(x)
        return found


class PixelTrunk(nn.Module):
    """Pixels `[n, c, h, w]` to `[n, .dim]`: what there is on average, and at its most.

    Interleaved in memory, and pooled before what is not linear: 15 times as fast on a CPU as the other way round.

    Parameters
    ----------
    inputs : int
        Number of channels.
    width : int
        Channels of its last convolution.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.dim = 2 * width
        half = max(1, width // 2)
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, half, 3, padding=1),
            nn.MaxPool2d(2),
            nn.GELU(),
            nn.Conv2d(half, width, 3, padding=1),
            nn.MaxPool2d(2),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
        )
        self.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it

    def forward(self, x: Tensor) -> Tensor:
        """Return `[n, .dim]`."""
        maps = self.layers(x)  # n, width, h / 4, w / 4
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)


class Standardised(nn.Module):
    """A trunk that takes samples as they are stored.

    Parameters
    ----------
    takes : {"vectors", "pixels"}
        What it looks at.
    inputs : int
        Length of a vector, or number of channels.
    width : int
        Values between its layers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, takes: Takes, inputs: int, width: int) -> None:
        super().__init__()
        shape = (inputs, 1, 1) if takes == "pixels" else (inputs,)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))
        self.trunk = PixelTrunk(inputs, width) if takes == "pixels" else VectorTrunk(inputs, width)
        self.dim = self.trunk.dim

    def standardise(self, mean: npt.NDArray[np.float64], std: npt.NDArray[np.float64]) -> None:
        """Set what samples are shifted and divided by, `(d,)`; values that never change are only shifted."""
        with torch.no_grad():
            self.mean.copy_(torch.from_numpy(mean).reshape(self.mean.shape))
            safe = np.where(std > 1e-6 * np.abs(mean) + 1e-12, std, 1.0)
            self.std.copy_(torch.from_numpy(safe).reshape(self.std.shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return `[n, .dim]` of samples of any type."""
        if x.ndim == 4:  # while samples are as small as they are stored; of a batch they come so
            x = x.contiguous(memory_format=torch.channels_last)
        found: Tensor = self.trunk((x.to(torch.float32) - self.mean) / self.std)
        return found


class ScorerNetwork(nn.Module):
    """Samples to one number a tile.

    Parameters
    ----------
    record : ScorerRecord
        What it looks at.
    """

    shift: Tensor
    spread: Tensor

    def __init__(self, record: ScorerRecord) -> None:
        super().__init__()
        self.input = Standardised(record.takes, record.inputs, record.width)
        self.output = nn.Linear(self.input.dim, 1)
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return `[n]` log-odds, or what stands for them where only bags had labels."""
        found: Tensor = (self.output(self.input(x))[:, 0] - self.shift) / self.spread
        return found

    def forward_scores(self, x: Tensor) -> Tensor:
        """Return `[n]` in 0 to 1, of which each is to the last bit that of its tile alone."""
        found = []
        together = together_of(tuple(x.shape[1:]))
        for first in range(0, len(x), together):
            part = x[first : first + together]
            count = len(part)
            if count < together:
                part = torch.cat([part, part.new_zeros((together - count, *part.shape[1:]))])
            found.append(torch.sigmoid(self(part))[:count])
        return torch.cat(found) if found else x.new_zeros(0, dtype=torch.float32)


def together_of(shape: tuple[int, ...]) -> int:
    """Return how many tiles go through at once, always as many of one shape.

    The last bits of a sum follow from the shape of what is multiplied, and must not depend on which tiles happen to be
    in a batch, so that a part of fewer is filled up: with 64 tiles of 256 px, of which a walk reads a handful at a
    time, that cost twenty times what they cost.

    Parameters
    ----------
    shape : tuple of int
        Of a tile's samples.

    Returns
    -------
    int
        1 to `TOGETHER`.
    """
    return max(1, min(TOGETHER, TOGETHER_VALUES // max(1, prod(shape))))


@dataclass(frozen=True, kw_only=True, eq=False)
class Scorer:
    """A trained scorer: call it with tiles."""

    network: ScorerNetwork
    """In evaluation mode."""
    record: ScorerRecord
    """What it may be given."""

    def __call__(self, tiles: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return `(n,)` scores in 0 to 1; a tile's does not depend on the others.

        Parameters
        ----------
        tiles : ndarray
            `(n, d)` vectors, or `(n, c, h, w)` pixels as they are stored.

        Returns
        -------
        ndarray of float32
            One a tile.

        Raises
        ------
        ConfigError
            When they are not what it was trained on.
        """
        require_tiles(self.record, tiles.shape, str(tiles.dtype))
        found = np.empty(len(tiles), np.float32)
        network = self.network.to(torch_device())
        with torch.inference_mode(), one_torch_thread():
            for first in range(0, len(tiles), SENT):
                part = torch.from_numpy(np.ascontiguousarray(tiles[first : first + SENT])).to(torch_device())
                found[first : first + SENT] = network.forward_scores(part).cpu().numpy()
        return found

    def save(self, path: str | Path) -> None:
        """Write it as a file for `--relevance scorer:FILE`; equal ones give equal bytes.

        Parameters
        ----------
        path : str or Path
            The file, replaced when it is whole.

        Raises
        ------
        OutputError
            When it cannot be written.
        """
        from safetensors.torch import save

        tensors = {name: values.detach().cpu().contiguous() for name, values in self.network.state_dict().items()}
        document = {"format": FORMAT, **asdict(self.record)}
        text = json.dumps(document, sort_keys=True, ensure_ascii=False)
        write_durable(Path(path), save(tensors, metadata={KEY: text}))


def require_tiles(record: ScorerRecord, shape: tuple[int, ...], dtype: str) -> None:
    """Raise `ConfigError` unless tiles are of the kind that a scorer was trained on.

    Parameters
    ----------
    record : ScorerRecord
        Of the scorer.
    shape : tuple of int
        Of the tiles.
    dtype : str
        Of their samples, as NumPy calls it.
    """
    is_pixels = record.takes == "pixels"
    fits = len(shape) == (4 if is_pixels else 2) and shape[1] == record.inputs
    if fits and (not is_pixels or (dtype == record.dtype and min(shape[2:]) >= LEAST_PX)):
        return
    expected = f"vectors (n, {record.inputs})" + ("" if record.encoder is None else f" by `{record.encoder}`")
    if is_pixels:
        expected = f"{record.dtype} (n, {record.inputs}, h, w) of at least {LEAST_PX} px"
    raise ConfigError.of(
        "tiles for a scorer",
        got=f"{dtype} {shape}",
        expected=f"{expected}, as it was trained on",
        do="Give it those, or train one on these.",
    )


def read_scorer(path: str | Path) -> ScorerRecord:
    """Return what a file says of its scorer; no parameter is read.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    ScorerRecord
        What it may be given.

    Raises
    ------
    SourceError
        When there is no such file, or it is none of a scorer.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})[KEY])
        if document.pop("format") != FORMAT:
            raise ValueError("another version of the format")
        return ScorerRecord(**document)
    except OSError as error:
        got = "a folder, not a file in it" if Path(path).is_dir() else str(error)
        raise SourceError.of(f"`{path}`", got=got, expected="a trained scorer", do="Check the path.") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise SourceError.of(
            f"`{path}`",
            got=f"no scorer of tilestream ({type(error).__name__}: {error})",
            expected="what `tilestream train scorer` has written",
            do="Check the path.",
        ) from error


def load_scorer(path: str | Path) -> Scorer:
    """Return the scorer in a file.

    Parameters
    ----------
    path : str or Path
        Written by `tilestream train scorer` or `Scorer.save`.

    Returns
    -------
    Scorer
        Call it with tiles.

    Raises
    ------
    SourceError
        When there is no such file, or it is none of a scorer.
    """
    from safetensors.torch import load_file

    record = read_scorer(path)
    network = ScorerNetwork(record)
    try:
        network.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise SourceError.of(
            f"`{path}`", got=str(error), expected="the parameters of its own record", do="Train it again."
        ) from error
    return Scorer(network=network.eval(), record=record)
