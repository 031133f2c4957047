"""One tile of an image as the bytes of one Zarr chunk that answer at any level: the codecs of neural stores.

What the bytes are is written in their container (`tilestream.codecs.container`), so that a tile decodes without the
settings that it was encoded by: its kind names the codec in `tilestream.registry.CODECS`, or is `constant`, which is a
few bytes for glass and for what was not measured. Decoding needs no torch; fitting does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from tilestream.codecs.constanttile import KIND as CONSTANT
from tilestream.codecs.constanttile import ConstantTile
from tilestream.codecs.container import unpack
from tilestream.codecs.fields.decoders import decoder_of
from tilestream.codecs.fields.field import Field
from tilestream.codecs.fields.picture import Levels, Picture
from tilestream.codecs.fields.sharedfield import SharedField, price_of
from tilestream.codecs.settings import require_settings
from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.registry import CODECS, resolve
from tilestream.types import Array, Box

ENTRY_POINTS = "tilestream.codecs"
"""Group in which other packages register codecs of their own."""
LEVELS = 4
"""Levels of a tile, its own included, that its bytes answer well."""
STEPS = 2000
"""Steps of a fit when nothing is said."""
QUALITY = 50.0
PYRAMID = "pyramid"
"""The one codec of its own whose tiles are no fields."""
BYTES_OF_PARAMETER = 4


class Tile(Protocol):
    """A tile whose parameters are unpacked, ready to be asked at any level."""

    @property
    def kind(self) -> str:
        """Return the codec's name."""

    @property
    def picture(self) -> Picture:
        """Return size and samples of what it stands for."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return how many parameters each part has."""

    @property
    def nbytes(self) -> int:
        """Return the memory of its parameters."""

    def decode(
        self, box: Box | None = None, *, level: float = 0.0, out: Array | None = None, backend: str | None = None
    ) -> Array:
        """Return samples `(c, y, x)` of a box, in pixels of `level`; by default all of it."""


class TileCodec(Protocol):
    """Turns tiles into bytes and back."""

    @property
    def name(self) -> str:
        """Return what `--codec` calls it."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return what its bytes are a function of besides the pixels, as JSON values; `tile_codec` takes them."""

    @property
    def weighs(self) -> bool:
        """Return whether `encode` takes a `roi`."""

    def encode(
        self,
        pixels: Array,
        valid: npt.NDArray[np.bool_] | None = None,
        *,
        roi: npt.NDArray[np.float32] | None = None,
    ) -> bytes:
        """Return a tile `(c, y, x)` as bytes; what is not valid may decode to anything.

        `roi` is how much the squared error of each pixel `(y, x)` counts, 1 as usual; `ConfigError` where `weighs` is
        False.
        """

    def is_plain(
        self,
        pixels: Array,
        valid: npt.NDArray[np.bool_] | None = None,
        *,
        roi: npt.NDArray[np.float32] | None = None,
    ) -> bool:
        """Return whether `encode` takes one colour for a tile without a fit: what little it costs is known at once."""

    def decode(self, data: bytes, *, level: float = 0.0, box: Box | None = None, out: Array | None = None) -> Array:
        """Return samples `(c, y, x)` of a box of a level; raise `DamagedError` for bytes that are not whole."""


@dataclass(frozen=True, kw_only=True)
class FieldCodec:
    """Fits a field to each tile."""

    field: str = "hash"
    """Name in `tilestream.registry.CODECS`."""
    quality: float = QUALITY
    """1 to 100, as the field understands it."""
    steps: int = STEPS
    """Of the optimiser, for each tile. Never a time: equal pixels are to give equal bytes."""
    levels: int = LEVELS
    """Levels that are fitted at once, the tile's own included."""
    decoder: str = ""
    """Of `shared`: the decoder as text (`codecs.fields.decoders`), so that whoever has the settings can read tiles."""

    def __post_init__(self) -> None:
        checks = (
            ("quality", self.quality, 1 <= self.quality <= 100, "a number of 1 to 100"),
            ("steps", self.steps, self.steps >= 1, "a whole number of at least 1"),
            ("levels", self.levels, 1 <= self.levels <= 16, "a whole number of 1 to 16"),
        )
        for name, got, good, expected in checks:
            if not good:
                raise ConfigError.of(f"`{name}` of a codec", got=got, expected=expected, do="Choose another.")
        if self.decoder:
            decoder_of(self.decoder)

    @property
    def name(self) -> str:
        """Return what `--codec` calls it."""
        return self.field

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return what its bytes are a function of besides the pixels, as JSON values."""
        found = {"codec": self.field, "quality": self.quality, "steps": self.steps, "levels": self.levels}
        return {**found, "decoder": self.decoder} if self.decoder else found

    @property
    def weighs(self) -> bool:
        """Return whether `encode` takes a `roi`: fields are fitted to all pixels alike."""
        return False

    def encode(
        self,
        pixels: Array,
        valid: npt.NDArray[np.bool_] | None = None,
        *,
        roi: npt.NDArray[np.float32] | None = None,
    ) -> bytes:
        """Return a tile as bytes.

        Parameters
        ----------
        pixels : ndarray
            `(c, y, x)`; floats that are not finite are not valid.
        valid : ndarray of bool, optional
            `(y, x)`.
        roi : ndarray of float32, optional
            Refused: see `weighs`.

        Returns
        -------
        bytes
            A container: the fitted field, quantised; or a constant, where all that is valid is equal.

        Raises
        ------
        ConfigError
            When the pixels are no picture, the codec is unknown, or fitting needs a package that is not installed.
        """
        if roi is not None:
            raise ConfigError.of(
                "`roi` of a tile", got=f"weights with the codec `{self.field}`", expected="none", do="Leave them out."
            )
        constant = ConstantTile.of(pixels, valid)
        if constant is not None:
            return constant.to_bytes()
        levels = Levels.of(pixels, valid, levels=self.levels)
        found = self.begin(levels.picture)
        found.fit(levels, steps=self.steps)
        return found.quantize().to_bytes()

    def is_plain(
        self,
        pixels: Array,
        valid: npt.NDArray[np.bool_] | None = None,
        *,
        roi: npt.NDArray[np.float32] | None = None,
    ) -> bool:
        """Return whether all that is valid of a tile is equal; parameters as of `encode`."""
        del roi
        return ConstantTile.of(pixels, valid) is not None

    def begin(self, picture: Picture) -> Field:
        """Return a field for a picture, not fitted yet; raise `ConfigError` as `encode`."""
        if self.field == SharedField.name and self.decoder:
            return SharedField(decoder_of(self.decoder), price=price_of(self.quality))
        return field_class(self.field).of_quality(self.quality, picture)

    def decode(self, data: bytes, *, level: float = 0.0, box: Box | None = None, out: Array | None = None) -> Array:
        """Return samples of a tile, whatever codec has made it; see `unpack_tile`.

        Parameters
        ----------
        data : bytes
            A container.
        level : float
            At least 0; 1 is half the size.
        box : Box, optional
            In pixels of the level; by default all of it.
        out : ndarray, optional
            Memory of the result.

        Returns
        -------
        ndarray
            `(c, y, x)`.

        Raises
        ------
        DamagedError
            When the bytes are not whole.
        SourceError
            When they are of a kind or version that is not known here.
        """
        return unpack_tile(data).decode(box, level=level, out=out)


def tile_codec(settings: Mapping[str, Any]) -> TileCodec:
    """Return the codec of some settings.

    Parameters
    ----------
    settings : Mapping
        `TileCodec.settings` of a codec; what is left out is as usual.

    Returns
    -------
    TileCodec
        Not the field itself, which is imported when it is used.

    Raises
    ------
    ConfigError
        When there is a setting that it has not, or one of another type.
    """
    if settings.get("codec") == PYRAMID:
        from tilestream.codecs.pyramid.pyramidcodec import PyramidCodec

        return PyramidCodec.of_settings(settings)
    types: dict[str, tuple[type, ...]] = {"codec": (str,), "quality": (int, float), "steps": (int,), "levels": (int,)}
    types["decoder"] = (str,)
    require_settings(settings, types)
    given = dict(settings)
    return FieldCodec(field=given.pop("codec", "hash"), **given)


def with_steps(codec: TileCodec, steps: int) -> TileCodec:
    """Return a codec of other steps of the fit of a tile; raise `ConfigError` where that is no number of them."""
    if isinstance(codec, FieldCodec):
        return replace(codec, steps=steps)
    from tilestream.codecs.pyramid.pyramidcodec import PyramidCodec

    return (
        replace(codec, steps=steps)
        if isinstance(codec, PyramidCodec)
        else tile_codec({**codec.settings, "steps": steps})
    )


def field_class(name: str) -> type[Field]:
    """Return the class of a field by its name; raise `ConfigError` where there is none, or its package is missing."""
    if name == PYRAMID:
        raise ConfigError.of("a field", got=f"`{name}`", expected="a codec of fields", do="Make it by `tile_codec`.")
    return cast("type[Field]", resolve(_others().get(name, name), table=CODECS, group=ENTRY_POINTS))


def unpack_tile(data: bytes) -> Tile:
    """Return a tile ready to be asked at any level.

    Parameters
    ----------
    data : bytes
        A container.

    Returns
    -------
    Tile
        What it costs to unpack is paid once: keep it to decode several boxes or levels.

    Raises
    ------
    DamagedError
        When the bytes are not whole.
    SourceError
        When they are of a codec or version that is not known here.
    ConfigError
        When the package of the codec cannot be imported.
    """
    kind = unpack(data).kind
    if kind == CONSTANT:
        return ConstantTile.from_bytes(data)
    if kind == PYRAMID:
        from tilestream.codecs.pyramid.pyramidtile import PyramidTile

        return PyramidTile.from_bytes(data)
    if kind not in CODECS and kind not in _others():  # a file must not choose what is imported
        raise SourceError.of(
            "a tile",
            got=f"the codec `{kind}`",
            expected=f"one of {', '.join([CONSTANT, *known_codecs()])}",
            do="Install the package that wrote it.",
        )
    return FieldTile(field=field_class(kind).from_bytes(data))


def known_codecs() -> tuple[str, ...]:
    """Return the names of all codecs, our own and those of other packages, sorted; nothing is imported."""
    return tuple(sorted({*CODECS, *_others()}))


@lru_cache(maxsize=1)
def _others() -> Mapping[str, str]:
    """Return the codecs of other packages; to look for them takes longer than to unpack a tile."""
    return {entry.name: entry.value for entry in entry_points(group=ENTRY_POINTS) if entry.name not in CODECS}


@dataclass(frozen=True, kw_only=True)
class FieldTile:
    """A tile that is a field."""

    field: Field
    """Fitted."""

    @property
    def kind(self) -> str:
        """Return the codec's name."""
        return self.field.name

    @property
    def picture(self) -> Picture:
        """Return size and samples of what it stands for."""
        if self.field.picture is None:
            raise DamagedError(f"a tile of the codec `{self.kind}` that was never fitted")
        return self.field.picture

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return how many parameters each part has."""
        return self.field.sizes

    @property
    def nbytes(self) -> int:
        """Return the memory of its parameters."""
        return BYTES_OF_PARAMETER * sum(self.sizes.values())

    def decode(
        self, box: Box | None = None, *, level: float = 0.0, out: Array | None = None, backend: str | None = None
    ) -> Array:
        """Return samples of a box; the parameters are those of `Tile.decode`, on one thread where that is the CPU."""
        return self.field.decode(box, level=level, out=out, backend=backend, threads=1)
