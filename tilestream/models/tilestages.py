"""Our own networks beside HIPT's as tile stages: MViTv2, and the transformer over pyramid levels."""

from __future__ import annotations

from collections.abc import Sequence

from tilestream.models.adapter import AdaptedStage
from tilestream.models.ownstage import given_weights, own_stage
from tilestream.types import StageContract

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in 0 to 1 over the images of ImageNet."""

MVIT = StageContract(
    name="mvit",
    px=224,
    channels=3,
    scale=1 / 255,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    dim=768,
    framework="torch",
    pooling="mean of all tokens",
)
"""What MViTv2-T was trained on: photographs, which have no resolution. Tiles are read as they are stored unless `--mpp`
says at which resolution own weights were trained; whose a file is only its digest says."""

FPN_VIT = StageContract(
    name="fpn-vit",
    px=256,
    channels=3,
    scale=1 / 255,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    dim=768,
    framework="torch",
    pooling="means of the fused maps, one behind the other",
)
"""What the transformer over pyramid levels takes. Nobody has published weights of it, so no resolution is known."""


def mvit(
    *,
    name: str = MVIT.name,
    weights: str | None = None,
    random_weights: int | None = None,
    dtype: str = "float32",
    digest: str | None = None,
    positions: Sequence[int] | None = None,
) -> AdaptedStage:
    """Return MViTv2-T as a tile stage.

    Parameters
    ----------
    name : str
        Name under which its vectors are stored.
    weights : str, optional
        File of weights: the authors', timm's, or a state dict of `tilestream.models.mvit`.
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
        Vectors of 768 values.

    Raises
    ------
    ConfigError
        When there are no weights, two kinds of them, another file than at the start, or no such type.
    """
    given = given_weights("mvit", weights, random_weights, dtype=dtype, digest=digest)
    network, renamed = "tilestream.models.mvit:mvitv2_tiny", "tilestream.models.mvit:own_names"
    return own_stage(network, MVIT, given, positions, name=name, select=renamed)


def fpn_vit(
    *,
    name: str = FPN_VIT.name,
    weights: str | None = None,
    random_weights: int | None = None,
    dtype: str = "float32",
    digest: str | None = None,
    positions: Sequence[int] | None = None,
) -> AdaptedStage:
    """Return the transformer over pyramid levels as a tile stage.

    Parameters
    ----------
    name : str
        Name under which its vectors are stored.
    weights : str, optional
        File of weights: a state dict of `tilestream.models.fpnvit`.
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
        Vectors of 768 values.

    Raises
    ------
    ConfigError
        When there are no weights, two kinds of them, another file than at the start, or no such type.
    """
    given = given_weights("fpn-vit", weights, random_weights, dtype=dtype, digest=digest)
    return own_stage("tilestream.models.fpnvit:FPNTransformer", FPN_VIT, given, positions, name=name)
