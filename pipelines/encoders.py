"""All encoders of a run on one image: one pass over its pixels, so one size of tiles and one resolution for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tilestream.errors import ConfigError
from tilestream.grid import TileGrid
from tilestream.models.gridparts import SEED
from tilestream.pipelines.chain import Chains
from tilestream.pipelines.encoder import Encoder, choose_encoder
from tilestream.plan.levels import target_mpp
from tilestream.types import ImageInfo

SAME_FIELD = 0.01
"""Relative difference up to which two fields of view are the same."""


RANDOM = "random:"
"""Before the seed, where a contract would have the digest of weights."""


def is_random(weights: str | None) -> bool:
    """Return whether a contract says that weights are random."""
    return weights is not None and weights.startswith(RANDOM)


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """An encoder as a user names it."""

    name: str
    """Registered name or `module:callable`."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Its parameters; JSON values."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How tiles are cut for every encoder of a run."""

    px: int
    """Edge of a tile in plan pixels."""
    mpp: float | None
    """Micrometres per plan pixel; None = level 0."""
    needs_mpp: bool
    """Whether an image of unknown mpp is refused."""
    is_free: bool = False
    """Whether tiles of another edge will do that show the same field, since the encoder resizes them by itself."""

    @classmethod
    def of(cls, encoder: Encoder, image: ImageInfo, *, tile_px: int | None, mpp: float | None) -> Geometry:
        """Return how one encoder wants the tiles of an image, but for what the user says.

        Parameters
        ----------
        encoder : Encoder
            The encoder.
        image : ImageInfo
            The image.
        tile_px : int, optional
            Tile edge that the user has asked for.
        mpp : float, optional
            Resolution that the user has asked for.

        Returns
        -------
        Geometry
            Of this encoder alone.
        """
        contract = encoder.contract
        return cls(
            px=tile_px or contract.px,
            mpp=mpp or target_mpp(contract, image),
            needs_mpp=contract.needs_mpp,
            is_free=tile_px is None and contract.input_px is not None,
        )

    def shows_as(self, other: Geometry) -> bool:
        """Return whether the tiles of another one are as good as its own: the same, or the same field if it resizes."""
        if (self.px, self.mpp) == (other.px, other.mpp):
            return True
        if not self.is_free or self.mpp is None or other.mpp is None:
            return False
        return abs(self.px * self.mpp / (other.px * other.mpp) - 1) <= SAME_FIELD

    @property
    def words(self) -> str:
        """Return it in words."""
        if self.mpp is None:
            return f"{self.px} px at native resolution"
        return f"{self.px} px at {self.mpp:g} µm/px ({self.px * self.mpp:g} µm)"


@dataclass(frozen=True, kw_only=True)
class Encoders:
    """The encoders of a run, made for one image."""

    each: tuple[Encoder, ...]
    """At least one, in the order in which they were named."""
    geometry: Geometry
    """The tiles that all of them take."""
    chains: Chains = field(default_factory=Chains)
    """Stages above the tiles."""

    @property
    def dims(self) -> int:
        """Return the values a tile of all encoders together."""
        return sum(len(one.outputs) for one in self.each)

    @property
    def is_on_device(self) -> bool:
        """Return whether one of them computes on a device in this process."""
        return any(one.is_on_device for one in self.each)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a user should know of their vectors: that random weights made them."""
        random = [(f"`{one.name}`", one.contract.weights) for one in self.each if is_random(one.contract.weights)]
        for name, chain in self.chains.each.items():
            for word, spec in (("region", chain.region), ("slide", chain.slide)):
                if spec is not None and spec.params.get(SEED) is not None:
                    random.append((f"the {word} stage `{spec.target}` of `{name}`", f"{RANDOM}{spec.params[SEED]}"))
        return tuple(
            f"weights of {what} are random (seed {str(seed).removeprefix(RANDOM)}): its vectors have no meaning"
            for what, seed in random
        )

    def require(self, image: ImageInfo, grid: TileGrid) -> None:
        """Raise `StageError` unless each does one black tile of a plan.

        Parameters
        ----------
        image : ImageInfo
            The image.
        grid : TileGrid
            Says how large tiles are.
        """
        for one in self.each:
            one.require(image, grid)


def choose_encoders(
    choices: Sequence[EncoderChoice], image: ImageInfo, *, tile_px: int | None = None, mpp: float | None = None
) -> Encoders:
    """Return the encoders of a run for an image.

    Parameters
    ----------
    choices : sequence of EncoderChoice
        What the user has named.
    image : ImageInfo
        The image, with the channels that they will see.
    tile_px : int, optional
        Tile edge that the user has asked for; None = what the encoders take.
    mpp : float, optional
        Resolution that the user has asked for; None = what the encoders were made for.

    Returns
    -------
    Encoders
        Ready to be planned with.

    Raises
    ------
    ConfigError
        When there is no such encoder, two have one name, or no tile suits all of them.
    StageError
        When one does not take the image's channels.
    """
    each = tuple(choose_encoder(one.name, one.params, image, tile_px=tile_px) for one in choices)
    require_different([one.name for one in each])
    wanted = [Geometry.of(one, image, tile_px=tile_px, mpp=mpp) for one in each]
    return Encoders(each=each, geometry=shared_geometry([one.name for one in each], wanted))


def require_different(names: Sequence[str]) -> None:
    """Raise `ConfigError` when two encoders would be stored under one name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names:
        raise ConfigError.of(
            "`--encoder`",
            got=f"{names.count(twice[0])} encoders called `{twice[0]}`" if twice else "none",
            expected="at least one, each with a name of its own, under which its vectors are stored",
            do="Name each once.",
        )


def shared_geometry(names: Sequence[str], wanted: Sequence[Geometry]) -> Geometry:
    """Return the tiles that suit all encoders of a run: those of the finest of them, or of one that cannot do others.

    Parameters
    ----------
    names : sequence of str
        The encoders.
    wanted : sequence of Geometry
        The tiles of each.

    Returns
    -------
    Geometry
        For all of them.

    Raises
    ------
    ConfigError
        When no tile suits all, with what each wants.
    """
    # one that resizes gives way to one that does not; of several that resize the finest pixels lose nothing
    for one in sorted(wanted, key=lambda each: (each.is_free, -each.px)):
        if all(other.shows_as(one) for other in wanted):
            return replace(one, needs_mpp=any(each.needs_mpp for each in wanted))
    raise ConfigError.of(
        "encoders of one run",
        got=", ".join(f"`{name}` for tiles of {each.words}" for name, each in zip(names, wanted, strict=True)),
        expected="tiles that suit all of them, since pixels are read once",
        do="Give --tile and --mpp if each of them takes that, else run them one by one, each with an --out of its own.",
    )
