"""An encoder of another library as a stage: its record and weights as parameters, its contract from both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tilestream.models.adapter import AdaptedStage, adapted
from tilestream.models.encoders.load import Weights, complete, digest_of, load, pinned
from tilestream.models.encoders.names import TARGET
from tilestream.models.encoders.record import EncoderRecord, record_of
from tilestream.types import StageContract, StageSpec


def library_encoder(
    record: Mapping[str, Any],
    *,
    weights: str | None = None,
    random_weights: int | None = None,
    digest: str | None = None,
    positions: Sequence[int] | None = None,
) -> AdaptedStage:
    """Return an encoder as a stage; it is built and its weights are loaded where it is first used.

    Parameters
    ----------
    record : Mapping
        An `EncoderRecord` as JSON values; what its library says of itself may be left out.
    weights : str, optional
        File or folder; `download` or `download@REVISION` where they may be fetched.
    random_weights : int, optional
        Seed of random ones instead.
    digest : str, optional
        What the digest of the weights has to be.
    positions : sequence of int, optional
        Positions of its channels in a batch, as `for_image` finds them.

    Returns
    -------
    AdaptedStage
        Its contract has what is recorded beside the features.

    Raises
    ------
    ConfigError
        When there are no weights, the library is not there or does not know the model, or the record lacks something.
    """
    stated = record_of(record, what="the encoder's record")
    given = Weights(place=weights, seed=random_weights)
    given.require(stated)
    given = pinned(stated, given)
    whole = complete(stated, given)
    found = digest_of(whole, given)
    document = whole.to_json()
    params = {"record": document, "weights": given.place, "random_weights": given.seed, "digest": digest or found}
    return adapted(
        whole.name,
        lambda: load(document, given, digest=digest or found),
        contract_of(whole, digest=found),
        made_by=StageSpec(target=TARGET, params={key: value for key, value in params.items() if value is not None}),
        positions=positions,
    )


def contract_of(record: EncoderRecord, *, digest: str) -> StageContract:
    """Return the contract of an encoder.

    Parameters
    ----------
    record : EncoderRecord
        Complete.
    digest : str
        Of its weights.

    Returns
    -------
    StageContract
        What it expects and gives, and where it is from.
    """
    is_random = digest.startswith("random:")
    words = {"model": "as the model does", "mean": "mean of the tokens of patches", "cls": "class token"}
    words |= {"cls+mean": "class token, then mean of the tokens of patches", "pooler": "pooler of the library"}
    return StageContract(
        name=record.name,
        px=record.px or 0,
        mpp=record.mpp,
        needs_mpp=record.mpp is not None,
        channels=3 if record.channels is None else record.channels,
        scale=record.scale,
        mean=record.mean or (),
        std=record.std or (),
        dtype=record.dtype,
        dim=record.dim,
        framework="torch",
        input_px=record.input_px,
        pooling=words[record.pooling],
        source=None if is_random else record.source,
        licence=None if is_random else record.licence,
        weights=digest,
    )
