"""A trained scorer as a tile stage: on pixels by itself, or behind the encoder whose vectors it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilestream.errors import ConfigError
from tilestream.models.adapter import AdaptedStage, adapted
from tilestream.models.headed import HeadedStage, headed
from tilestream.registry import weights_digest
from tilestream.types import StageContract, StageSpec

if TYPE_CHECKING:
    from torch import Tensor

    from tilestream.models.scorer import Scorer, ScorerRecord

TARGET = "scorer"
"""Its registered name."""


def scorer(
    *,
    weights: str | None = None,
    encoder: Mapping[str, Any] | None = None,
    name: str = TARGET,
    digest: str | None = None,
    positions: Sequence[int] | None = None,
) -> AdaptedStage | HeadedStage:
    """Return a trained scorer as a stage.

    Parameters
    ----------
    weights : str
        File that `tilestream train scorer` or `Scorer.save` has written.
    encoder : Mapping, optional
        `target` and `params` of the encoder, for a scorer of vectors.
    name : str
        Name under which its numbers are stored.
    digest : str, optional
        What the digest of the file has to be, so that all processes have the same.
    positions : sequence of int, optional
        Positions of its channels in a batch, as `for_image` finds them; for a scorer of pixels.

    Returns
    -------
    AdaptedStage or HeadedStage
        One number in 0 to 1 a tile.

    Raises
    ------
    ConfigError
        When there is no file, another than at the start, or no encoder where one is needed.
    SourceError
        When the file is none of a scorer.
    """
    if weights is None:
        raise ConfigError.of(
            "stage `scorer`",
            got="no file",
            expected="what `tilestream train scorer` has written",
            do="Name it: `scorer:FILE` among the terms of --relevance.",
        )
    path = str(Path(weights).absolute())
    record_of_scorer(path)
    scorer, found = _loaded(path, weights_digest({"weights": path}) or "")
    if digest is not None and digest != found:
        raise ConfigError.of(
            f"scorer `{weights}`",
            got=f"digest {found}",
            expected=f"digest {digest}, which the run began with",
            do="Put the same file in its place on every machine, or start again.",
        )
    spec = StageSpec(target=TARGET, params={"weights": path, "name": name, "digest": found})
    record = scorer.record
    if record.takes == "pixels":
        pixels = _Pixels(scorer, name)
        contract = _contract(record, name, found)
        return adapted(TARGET, lambda: pixels, contract, made_by=spec, positions=positions, described=pixels)
    if encoder is None:
        raise ConfigError.of(
            f"scorer `{weights}`",
            got="no encoder",
            expected=f"`{record.encoder or 'the one'}`, of whose vectors it was trained",
            do=f"Name it with --encoder {record.encoder or 'NAME'}, and its weights.",
        )
    return headed(encoder, scorer, name=name, digest=found, made_by=spec, dim=record.inputs)


def record_of_scorer(weights: str) -> ScorerRecord:
    """Return what a file says of its scorer.

    Parameters
    ----------
    weights : str
        The file.

    Returns
    -------
    ScorerRecord
        What it may be given.

    Raises
    ------
    ConfigError
        When torch is not installed.
    SourceError
        When the file is none of a scorer.
    """
    if find_spec("torch") is None or find_spec("safetensors") is None:
        raise ConfigError.of(
            f"scorer `{weights}`",
            got="no package `torch` or `safetensors`",
            expected="them installed",
            do="pip install -e '.[torch]'.",
        )
    from tilestream.models.scorer import read_scorer

    return read_scorer(weights)


def _contract(record: ScorerRecord, name: str, digest: str) -> StageContract:
    return StageContract(
        name=name,
        px=record.px or 0,
        mpp=record.mpp,
        needs_mpp=record.mpp is not None and record.downsample is None,
        channels=record.inputs,
        dim=1,
        framework="torch",
        weights=digest,
    )


class _Pixels:
    """A scorer of pixels as a callable on tensors."""

    def __init__(self, scorer: Scorer, name: str) -> None:
        self._scorer = scorer
        self.output_names = (name,)

    def __call__(self, x: Tensor) -> Tensor:
        """Return `[n, 1]` of samples as they are stored."""
        from tilestream.models.scorer import require_tiles

        require_tiles(self._scorer.record, tuple(x.shape), str(x.dtype).removeprefix("torch."))
        return self._scorer.network.to(x.device).forward_scores(x)[:, None]


@lru_cache(maxsize=8)
def _loaded(path: str, digest: str) -> tuple[Scorer, str]:
    from tilestream.models.scorer import load_scorer

    return load_scorer(path), digest
