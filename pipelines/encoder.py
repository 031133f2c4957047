"""The encoder that a user names, made for one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tilestream.errors import StageError
from tilestream.models.adapter import adapt
from tilestream.models.handcrafted import handcrafted
from tilestream.pipelines.recipe import stage_recipe
from tilestream.registry import STAGES
from tilestream.stream.work import make_stage
from tilestream.types import ImageInfo, StageContract, StageSpec

HANDCRAFTED = "handcrafted"
"""The encoder that needs no weights."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A stage with what it says of itself on one image."""

    name: str
    """Name under which its vectors are stored."""
    spec: StageSpec
    """How workers make it."""
    contract: StageContract
    """What it expects."""
    outputs: tuple[str, ...]
    """Name of each value of a vector."""
    recipe: Mapping[str, Any]
    """Its part of the recipe."""


def choose_encoder(name: str, params: Mapping[str, Any], image: ImageInfo) -> Encoder:
    """Return the encoder for an image.

    Parameters
    ----------
    name : str
        Registered name, or `module:callable` of a function `[n, c, h, w] -> [n, d]`.
    params : Mapping
        Its parameters; JSON values.
    image : ImageInfo
        The image, with the channels that it will see.

    Returns
    -------
    Encoder
        Ready to be planned with.

    Raises
    ------
    ConfigError
        When there is no such encoder.
    StageError
        When it does not take the image's channels.
    """
    spec = encoder_spec(name, params)
    if name == HANDCRAFTED:
        spec = handcrafted(**params).for_image(image)
    elif ":" in name:
        spec = adapt(**spec.params).for_image(image)
    stage = make_stage(spec)
    contract = stage.contract
    _check_channels(contract, image)
    return Encoder(
        name=contract.name,
        spec=spec,
        contract=contract,
        outputs=stage.output_names(image),
        recipe=stage_recipe(spec, contract, source=None if name in STAGES else name),
    )


def encoder_spec(name: str, params: Mapping[str, Any]) -> StageSpec:
    """Return how an encoder is made before an image is known; a user's callable goes through the adapter."""
    if ":" in name:
        return StageSpec(target="callable", params={"target": name, **params})
    return StageSpec(target=name, params=dict(params))


def _check_channels(contract: StageContract, image: ImageInfo) -> None:
    wanted, found = contract.channels, [channel.name for channel in image.channels]
    if wanted is None or (isinstance(wanted, int) and wanted == len(found)):
        return
    if not isinstance(wanted, int) and set(wanted) <= set(found):
        return
    raise StageError.of(
        f"channels for encoder `{contract.name}`",
        got=f"{len(found)} ({', '.join(found)})",
        expected=str(wanted) if isinstance(wanted, int) else ", ".join(wanted),
        do="Choose channels by name with --bands, or in the column `bands` of the manifest.",
    )
