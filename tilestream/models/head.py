"""A head: an aggregator over the vectors of a slide and a linear classifier, in one file that says what it is for.

    bag [n, d]  ->  (x - mean) / std  ->  aggregator  ->  linear  ->  a score for each class

The file is safetensors: parameters under `mean`, `std`, `aggregator.*` and `classifier.*`, and in its metadata, under
`tilestream`, a JSON document with the fields of `HeadRecord`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tilestream.codecs.durable import write_durable
from tilestream.errors import ConfigError, SourceError
from tilestream.models.aggregators import AGGREGATORS

FORMAT = 1
"""Version of the file; raised when the same parameters would mean something else."""
KEY = "tilestream"
"""Where the record stands in the metadata of the file."""

BagLevel: TypeAlias = Literal["tile", "region"]
"""What the vectors of a bag are of."""


@dataclass(frozen=True, kw_only=True)
class HeadRecord:
    """What is needed to make a head and to know what it may be given; JSON values."""

    aggregator: str
    """Name of the aggregator."""
    params: Mapping[str, Any]
    """Its keyword parameters."""
    dim: int
    """Length of the vectors that it takes."""
    labels: tuple[str, ...]
    """Name of each class, in the order of the scores."""
    level: BagLevel
    """Whether it takes the vectors of tiles or of regions."""
    encoder: str
    """Name of the encoder that made them."""
    features: Mapping[str, Any]
    """What the vectors have to share with those that it was trained on: `digest` of the feature set and its `recipe`,
    the contract of the encoder included."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained and how good it is; for people."""


class Head(nn.Module):
    """Standardises vectors, pools them and scores classes.

    Parameters
    ----------
    aggregator : Module
        `x [b, n, d]`, `mask [b, n]` to `[b, .dim]`.
    dim : int
        Length of a vector.
    classes : int
        Number of classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, aggregator: nn.Module, *, dim: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.aggregator = aggregator
        width = aggregator.dim
        if not isinstance(width, int):
            raise ConfigError.of(
                "`dim` of the aggregator", got=type(width).__name__, expected="a length", do="Correct the aggregator."
            )
        self.classifier = nn.Linear(width, classes)

    def standardise(self, mean: npt.NDArray[np.float64], std: npt.NDArray[np.float64]) -> None:
        """Set what vectors are shifted and divided by; values that never change are only shifted.

        Parameters
        ----------
        mean, std : ndarray of float64
            `(d,)` of the vectors that it is trained on.
        """
        with torch.no_grad():
            self.mean.copy_(torch.from_numpy(mean))
            self.std.copy_(torch.from_numpy(np.where(std > 1e-6 * np.abs(mean) + 1e-12, std, 1.0)))

    def forward_vector(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the vector of each bag, `[b, .aggregator.dim]`, before the classifier."""
        vector: Tensor = self.aggregator((x - self.mean) / self.std, mask)  # b, aggregator.dim
        return vector

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the scores of each bag, `[b, classes]`: probabilities after a softmax.

        Parameters
        ----------
        x : Tensor
            `[b, n, d]` vectors as they are stored.
        mask : Tensor of bool, optional
            `[b, n]`, by default all count.

        Returns
        -------
        Tensor
            `[b, classes]`.
        """
        scores: Tensor = self.classifier(self.forward_vector(x, mask))  # b, classes
        return scores

    def forward_attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return how much each vector counts, `[b, n]`; for aggregators that weigh them (`abmil`).

        Raises
        ------
        ConfigError
            When the aggregator has no weights to show.
        """
        attend = getattr(self.aggregator, "forward_attention", None)
        if attend is None:
            raise ConfigError.of(
                f"attention of `{type(self.aggregator).__name__}`",
                got="an aggregator that weighs all vectors alike",
                expected="one with `forward_attention`, such as `abmil`",
                do="Train a head with `--aggregator abmil`.",
            )
        weights: Tensor = attend((x - self.mean) / self.std, mask)  # b, n
        return weights


def new_head(aggregator: str, params: Mapping[str, Any], *, dim: int, classes: int) -> Head:
    """Return a head with parameters by chance, from torch's global generator.

    Parameters
    ----------
    aggregator : str
        Name in `AGGREGATORS`.
    params : Mapping
        Keyword parameters of the aggregator.
    dim : int
        Length of a vector.
    classes : int
        Number of classes.

    Returns
    -------
    Head
        To be trained.

    Raises
    ------
    ConfigError
        When there is no such aggregator, or it does not take the parameters.
    """
    make = AGGREGATORS.get(aggregator)
    if make is None:
        raise ConfigError.of(
            f"aggregator `{aggregator}`",
            got="an unknown name",
            expected=f"one of {sorted(AGGREGATORS)}",
            do="Check the spelling.",
        )
    try:
        return Head(make(dim=dim, **params), dim=dim, classes=classes)
    except TypeError as error:
        raise ConfigError.of(
            f"aggregator `{aggregator}`", got=str(error), expected="its own parameters", do="Correct them."
        ) from error


def save_head(path: Path, head: Head, record: HeadRecord) -> None:
    """Write a head and its record durably; equal ones give equal bytes.

    Parameters
    ----------
    path : Path
        The file, replaced when it is whole.
    head : Head
        On any device.
    record : HeadRecord
        What it is for.

    Raises
    ------
    OutputError
        When it cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: values.detach().cpu().contiguous() for name, values in head.state_dict().items()}
    document = {"format": FORMAT, **asdict(record)}
    write_durable(path, save(tensors, metadata={KEY: json.dumps(document, sort_keys=True, ensure_ascii=False)}))


def read_record(path: Path) -> HeadRecord:
    """Return what a file of `save_head` says of its head; no parameter is read.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    HeadRecord
        What it is for.

    Raises
    ------
    SourceError
        When there is no such file, or it is none of a head.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})[KEY])
        if document.pop("format") != FORMAT:
            raise ValueError("another version of the format")
        return HeadRecord(**{**document, "labels": tuple(document["labels"])})
    except OSError as error:
        raise SourceError.of(f"`{path}`", got=str(error), expected="a trained head", do="Check the path.") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise SourceError.of(
            f"`{path}`",
            got=f"no head of tilestream ({type(error).__name__}: {error})",
            expected="what `tilestream train head` has written",
            do="Check the path.",
        ) from error


def load_head(path: Path) -> tuple[Head, HeadRecord]:
    """Return the head of a file of `save_head`, for inference on the CPU, and what it is for.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    head : Head
        In evaluation mode.
    record : HeadRecord
        What it is for.

    Raises
    ------
    SourceError
        When there is no such file, or it is none of a head.
    """
    from safetensors.torch import load_file

    record = read_record(path)
    head = new_head(record.aggregator, record.params, dim=record.dim, classes=len(record.labels))
    try:
        head.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise SourceError.of(
            f"`{path}`", got=str(error), expected="the parameters of its own record", do="Train it again."
        ) from error
    return head.eval(), record


def class_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the classes among labels: in the order of their numbers where all are numbers, else of the alphabet."""
    names = set(labels)
    try:
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    except ValueError:
        return tuple(sorted(names))
