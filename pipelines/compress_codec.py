"""Which codec the options of a run of compress come to; what does not go together is refused before it reads."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from tilestream.codecs.fields.decoders import decoder_text, load_decoder
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.fields.sharedfield import DEFAULT_STEPS, SharedField
from tilestream.codecs.pyramid.price import quality_of_lmbda
from tilestream.codecs.pyramid.pyramidcodec import PyramidCodec
from tilestream.codecs.pyramid.shared import load_shared
from tilestream.codecs.tilecodec import (
    ENTRY_POINTS,
    LEVELS,
    PYRAMID,
    QUALITY,
    STEPS,
    FieldCodec,
    TileCodec,
    known_codecs,
)
from tilestream.errors import ConfigError
from tilestream.pipelines.compress_size import require_hours
from tilestream.sinks.tiling import check_tile, halvings

if TYPE_CHECKING:
    from tilestream.codecs.pyramid.shared import SharedPyramid
    from tilestream.pipelines.compress import CompressConfig

_STEPS = {SharedField.name: DEFAULT_STEPS}
"""Of the fit of a tile, where they are not those of most codecs."""
REFINED_STEPS = 100
"""Of a `pyramid` tile under shared networks: most of what steps can gain."""
NEAR_QUALITY = 1.0
"""Within it, networks are taken to be trained for a quality: λ is 6 % another."""


def codec_of(config: CompressConfig) -> TileCodec:
    """Return the codec of a run.

    Parameters
    ----------
    config : CompressConfig
        Its options.

    Returns
    -------
    TileCodec
        Imported, and its files read.

    Raises
    ------
    ConfigError
        When an option is not understood, or two do not go together.
    DamagedError, SourceError
        When the file of what tiles share is not whole, or something else.
    """
    known = known_codecs()
    if config.codec not in known:
        raise ConfigError.of(
            "`--codec`",
            got=repr(config.codec),
            expected=f"one of {', '.join(known)}",
            do=f"Choose one; packages add theirs in the entry-point group `{ENTRY_POINTS}`.",
        )
    check_tile(config.tile_px)
    require_hours(config.hours)
    _require_bound(config)
    codec = _pyramid_codec(config) if config.codec == PYRAMID else _field_codec(config)
    if config.relevance is not None:
        _require_weighing(codec)
    return codec


def _require_weighing(codec: TileCodec) -> None:
    """Raise `ConfigError` where bytes are to go somewhere and the codec spends them alike everywhere."""
    if not codec.weighs:
        raise ConfigError.of(
            "`--relevance`",
            got=f"it with `--codec {codec.name}`, which is fitted to all pixels alike",
            expected=f"a codec that weighs errors: {PYRAMID}",
            do=f"Choose --codec {PYRAMID}, or leave it out.",
        )
    if codec.settings.get("steps") == 0:
        raise ConfigError.of(
            "`--relevance`",
            got="it with `--steps 0`, one pass that weighs nothing",
            expected="steps, which do",
            do="Give some, or leave one of the two out.",
        )


def _require_bound(config: CompressConfig) -> None:
    """Raise `ConfigError` where errors are to be bounded and something else is asked for that does not go with it."""
    if config.max_error is None:
        return
    others = (
        (config.codec != PYRAMID, f"`--codec {config.codec}`", f"the codec {PYRAMID}, which alone bounds errors",
         f"Choose --codec {PYRAMID}, or leave it out."),
        (config.quality is not None, "`--quality`", "one of the two: a bound says how close every sample is",
         "Leave --quality out."),
        (config.relevance is not None, "`--relevance`", "one of the two: a bound holds everywhere alike",
         "Leave one of the two out."),
    )  # fmt: skip
    for is_given, other, expected, do in others:
        if is_given:
            raise ConfigError.of("`--max-error`", got=f"it with {other}", expected=expected, do=do)


def _field_codec(config: CompressConfig) -> FieldCodec:
    codec = FieldCodec(
        field=config.codec,
        quality=QUALITY if config.quality is None else config.quality,
        steps=config.steps if config.steps is not None else _STEPS.get(config.codec, STEPS),
        levels=halvings(config.tile_px) + 1 if config.single_level else LEVELS,
        decoder=_decoder(config),
    )
    # imported and asked for its settings here, before anything is read
    codec.begin(Picture.of(np.zeros((1, 1, 1), np.uint8)))
    return codec


def _decoder(config: CompressConfig) -> str:
    """Return the decoder of the run as text, empty where the codec has none."""
    weights = config.weights
    if (config.codec == SharedField.name) != (weights is not None):
        raise ConfigError.of(
            "`--weights`",
            got="none" if weights is None else f"`{weights}` with `--codec {config.codec}`",
            expected=f"the file of a decoder with `--codec {SharedField.name}`; of others {PYRAMID} alone has one",
            do="Train one with `tilestream train codec`." if weights is None else "Leave it out.",
        )
    return "" if weights is None else decoder_text(load_decoder(weights))


def _pyramid_codec(config: CompressConfig) -> PyramidCodec:
    bounded, quality, shared = config.max_error is not None, config.quality, None
    if config.weights is None:
        steps = (0 if bounded else STEPS) if config.steps is None else config.steps
        if not (steps or bounded):
            raise ConfigError.of(
                "`--steps`", got=0, expected="steps, or networks that encode in one pass", do="Give `--weights`."
            )
    else:
        shared = load_shared(config.weights)
        _require_trained(shared, quality)
        quality = None  # theirs
        steps = (0 if bounded else REFINED_STEPS) if config.steps is None else config.steps
    # of one array, tiles answer all levels; where their error is bounded, by means of what they are at level 0
    is_deep = config.single_level and not bounded
    codec = PyramidCodec(
        quality=quality,
        max_error=config.max_error,
        steps=steps,
        levels=halvings(config.tile_px) + 1 if is_deep else 1,
        shared=shared,
    )
    if (steps or shared is not None) and find_spec("torch") is None:
        raise ConfigError.of(
            f"`--codec {PYRAMID}`",
            got="no module `torch`",
            expected="it installed",
            do="Run `pip install -e '.[torch]'` in the clone.",
        )
    return codec


def _require_trained(shared: SharedPyramid, quality: float | None) -> None:
    """Raise `ConfigError` where a quality is asked for that networks are not trained for."""
    if quality is None:
        return
    PyramidCodec(quality=quality)  # is one at all
    trained = quality_of_lmbda(shared.lmbda)
    if abs(quality - trained) > NEAR_QUALITY:
        raise ConfigError.of(
            "`--quality`",
            got=f"{quality:g} with `--weights`",
            expected=f"{trained:.3g}, which these networks are trained for",
            do="Leave it out, or train others with `tilestream train codec --codec pyramid --quality`.",
        )
