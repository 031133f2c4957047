"""All encoders of a run on one image: one pass over its pixels, so one size of tiles and one resolution for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tilestream.errors import ConfigError
from tilestream.grid import TileGrid
from tilestream.pipelines.chain import Chains
from tilestream.pipelines.encoder import Encoder, choose_encoder
from tilestream.plan.levels import target_mpp
from tilestream.types import ImageInfo


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
    wanted = [(one.name, one.contract.px, target_mpp(one.contract, image)) for one in each]
    px = tile_px or _shared([(name, px) for name, px, _ in wanted], "tiles of {} px", "--tile")
    resolution = mpp or _shared([(name, own) for name, _, own in wanted], "{} µm/px", "--mpp")
    needs_mpp = any(one.contract.needs_mpp for one in each)
    return Encoders(each=each, geometry=Geometry(px=px, mpp=resolution, needs_mpp=needs_mpp))


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


def _shared(wanted: Sequence[tuple[str, Any]], words: str, option: str) -> Any:
    """Return the one value that all encoders want."""
    if len({value for _, value in wanted}) > 1:
        raise ConfigError.of(
            "encoders of one run",
            got=", ".join(f"`{name}` for {words.format(value)}" for name, value in wanted),
            expected="one for all, since pixels are read once",
            do=f"Give {option} if each of them takes that, else run them one by one, each with an --out of its own.",
        )
    return wanted[0][1]
