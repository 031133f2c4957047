"""A stage that gives one number a tile, made of an encoder and of what turns its vectors into one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.registry import STAGES, resolve
from tilestream.relevance.likeness import Combine, likeness, unit_vectors
from tilestream.relevance.standard import Standard
from tilestream.types import Array, Batch, DeviceStage, ImageInfo, Pending, Stage, StageContract, StageSpec

Head = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Vectors `(n, d)` to `(n,)`, each from its own vector alone."""


@dataclass(frozen=True, kw_only=True)
class HeadedStage:
    """An encoder with a head that makes one number of a vector."""

    encoder: Stage
    """Makes the vectors."""
    head: Head = field(repr=False, compare=False)
    """Makes the numbers."""
    recorded: StageContract
    """That of the encoder, but for name, length and digest."""
    made_by: StageSpec = field(repr=False, compare=False)
    """How workers make it, but for `encoder`."""

    @property
    def contract(self) -> StageContract:
        """Return what the encoder expects, and that one number comes out."""
        return self.recorded

    def for_image(self, image: ImageInfo) -> StageSpec:
        """Return how workers make it for one image; `StageError` where the encoder does not take its channels."""
        spec = self.encoder.for_image(image)
        return replace(self.made_by, params={**self.made_by.params, "encoder": as_params(spec)})

    def output_names(self, image: ImageInfo) -> tuple[str, ...]:
        """Return the name of the one value."""
        return (self.recorded.name,)

    @property
    def device(self) -> str:
        """Return where the encoder computes in this process."""
        return self.encoder.device if isinstance(self.encoder, DeviceStage) else "cpu"

    def allocate(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return memory that batches are best decoded into."""
        if isinstance(self.encoder, DeviceStage):
            return self.encoder.allocate(nbytes)
        return np.empty(nbytes, np.uint8)

    def load(self) -> None:
        """Load the encoder now; raise what is wrong with it, such as with its weights."""
        load = getattr(self.encoder, "load", None)
        if load is not None:
            load()

    def start(self, batch: Batch) -> Pending:
        """Begin with a batch; what is returned waits for its numbers."""
        if isinstance(self.encoder, DeviceStage):
            pending = self.encoder.start(batch)
            return lambda: self._headed(pending())
        return lambda: self._headed(self.encoder(batch))

    def __call__(self, batch: Batch) -> Array:
        """Return `(n, 1)`."""
        return self.start(batch)()

    def _headed(self, vectors: Array) -> Array:
        return self.head(np.asarray(vectors, np.float32))[:, None]


def headed(
    encoder: Mapping[str, Any], head: Head, *, name: str, digest: str, made_by: StageSpec, dim: int
) -> HeadedStage:
    """Return an encoder with a head as a stage.

    Parameters
    ----------
    encoder : Mapping
        `target` and `params` of the encoder.
    head : callable
        Vectors to numbers.
    name : str
        Name under which the numbers are stored.
    digest : str
        Of the head.
    made_by : StageSpec
        How workers make the stage, but for the encoder.
    dim : int
        Length of the vectors that the head takes.

    Returns
    -------
    HeadedStage
        One number a tile.

    Raises
    ------
    ConfigError
        When there is no such encoder, or its vectors have another length.
    """
    made: Stage = resolve(encoder["target"], table=STAGES, group="tilestream.stages")(**encoder.get("params", {}))
    contract = made.contract
    if contract.output != "vector" or contract.dim not in (None, dim):
        got = "maps of tiles" if contract.output != "vector" else f"vectors of {contract.dim} values"
        raise ConfigError.of(
            f"encoder `{contract.name}` for `{name}`",
            got=got,
            expected=f"vectors of {dim} values",
            do="Take the encoder that the vectors were made with.",
        )
    weights = "+".join(part for part in (contract.weights, digest) if part)
    recorded = replace(contract, name=name, dim=1, pooling=None, weights=weights)
    spec = replace(made_by, params={**made_by.params, "encoder": dict(encoder)})
    return HeadedStage(encoder=made, head=_checked(head, contract.name, dim), recorded=recorded, made_by=spec)


def _checked(head: Head, name: str, dim: int) -> Head:
    """Return a head that refuses vectors of another length with words."""

    def checked(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if vectors.ndim != 2 or vectors.shape[1] != dim:
            raise ConfigError.of(
                f"vectors of `{name}`",
                got=f"shape {vectors.shape}",
                expected=f"(n, {dim}), as those that they are compared with",
                do="Take the encoder that these were made with.",
            )
        return head(vectors)

    return checked


def as_params(spec: StageSpec) -> dict[str, Any]:
    """Return a spec as JSON values."""
    return {"target": spec.target, "params": dict(spec.params)}


def query(  # noqa: PLR0913 - what a recipe says of a query
    *,
    encoder: Mapping[str, Any] | None = None,
    wanted: str = "",
    unwanted: str = "",
    dim: int = 0,
    combine: Combine = "max",
    standard: tuple[str, str] | None = None,
    name: str = "query",
) -> HeadedStage:
    """Return the stage that says how much a tile resembles what is wanted, see `tilestream.relevance.query`.

    Parameters
    ----------
    encoder : Mapping
        `target` and `params` of the encoder.
    wanted, unwanted : str
        Vectors as `packed` writes them.
    dim : int
        Length of a vector.
    combine : {"max", "mean"}
        How several cosines become one.
    standard : tuple of str, optional
        Mean and deviation by which vectors of tiles are brought to the scale of those, as `packed` writes them.
    name : str
        Name under which the numbers are stored.

    Returns
    -------
    HeadedStage
        A cosine or margin a tile.

    Raises
    ------
    ConfigError
        When there is nothing to find, the vectors cannot be read, or they are not those of the encoder.
    """
    if encoder is None or not wanted or dim < 1:
        raise ConfigError.of(
            "stage `query`",
            got="nothing to find",
            expected="an encoder, and vectors of what is wanted",
            do='A query makes it: write --relevance query:"…", or `Query` in Python.',
        )
    ours, others = unpacked(wanted, dim), unpacked(unwanted, dim) if unwanted else None
    ours = unit_vectors(ours, what="vectors of a query")
    digest = blake2b(f"{wanted} {unwanted} {combine} {standard}".encode(), digest_size=16).hexdigest()
    params = {"wanted": wanted, "unwanted": unwanted, "dim": dim, "combine": combine, "name": name}
    scaled: Head = np.asarray
    if standard is not None:
        mean, std = (unpacked(part, dim)[0] for part in standard)
        params, scaled = {**params, "standard": list(standard)}, Standard(mean=mean, std=std)
    return headed(
        encoder,
        lambda vectors: likeness(scaled(vectors), ours, others, combine=combine, threads=1),
        name=name,
        digest=digest,
        made_by=StageSpec(target="query", params=params),
        dim=dim,
    )


def packed(vectors: npt.NDArray[np.float32]) -> str:
    """Return vectors `(k, d)` as text of which every bit comes back: float32, little-endian, base64."""
    return base64.b64encode(np.ascontiguousarray(vectors, "<f4").tobytes()).decode()


def unpacked(text: str, dim: int) -> npt.NDArray[np.float32]:
    """Return the vectors `(k, d)` of a text of `packed`; `ConfigError` where it is none."""
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), "<f4").reshape(-1, dim).astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise ConfigError.of(
            "vectors of a query", got=str(error), expected=f"base64 of float32 (k, {dim})", do="Use `packed`."
        ) from error
