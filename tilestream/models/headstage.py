"""A trained head as an aggregator: the vector that its classifier sees."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from tilestream.errors import ConfigError
from tilestream.models.head import Head, load_head


class HeadVector(nn.Module):
    """The vector of a bag that a head makes before its classifier.

    Parameters
    ----------
    head : Head
        Trained.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the vectors `[b, d']` of bags `[b, n, d]`."""
        return self.head.forward_vector(x, mask)  # b, d'


def trained_head(weights: str, *, dim: int) -> HeadVector:
    """Return the aggregator in a file of `tilestream train head`.

    Parameters
    ----------
    weights : str
        The file.
    dim : int
        Length of the vectors of its bags.

    Returns
    -------
    HeadVector
        For inference.

    Raises
    ------
    ConfigError
        When it was trained on vectors of another length.
    SourceError
        When the file is none of a head.
    """
    head, record = load_head(Path(weights))
    if record.dim != dim:
        raise ConfigError.of(
            f"head `{weights}`",
            got=f"vectors of {dim} values",
            expected=f"{record.dim}, those of {record.level}s by `{record.encoder}` that it was trained on",
            do="Give it the features that it was trained on.",
        )
    return HeadVector(head)
