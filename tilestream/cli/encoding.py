"""Options that name encoders, and what of them can be checked before an image is open."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilestream.errors import ConfigError

if TYPE_CHECKING:
    from tilestream.pipelines.embed import EmbedConfig
    from tilestream.pipelines.encoders import EncoderChoice

CHOICES = "What to read"
DEFAULT = "handcrafted"
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]*)=(?P<rest>.+)")

Encoders = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder",
        metavar="[NAME=]ENCODER",
        help=f"What turns tiles into vectors: {DEFAULT} (default), one of `tilestream encoders`, timm:NAME, hf:FOLDER, "
        "open_clip:NAME, hub:REPO:NAME, module:callable, or a JSON file that describes one. May be given again, for "
        "several in one pass.",
        rich_help_panel=CHOICES,
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="[ENCODER=]FILE",
        help="File or folder of an encoder's weights, or the word download where they may be fetched; with several "
        "encoders say whose.",
        rich_help_panel=CHOICES,
    ),
]
RandomWeights = Annotated[
    int | None,
    typer.Option(
        "--random-weights",
        metavar="SEED",
        min=0,
        help="Random weights instead, for trials of speed: the vectors mean nothing.",
        rich_help_panel=CHOICES,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="Type that encoders on torch compute in: float32 (default), bfloat16 or float16. Half types are what GPUs "
        "are fast in; the vectors are others, and the recipe says so.",
        rich_help_panel=CHOICES,
    ),
]


def encoder_choices(
    names: list[str] | None,
    *,
    weights: list[str] | None = None,
    random_weights: int | None = None,
    dtype: str | None = None,
    value_range: tuple[float, float] | None = None,
) -> tuple[EncoderChoice, ...]:
    """Return the encoders of a run as they were named on the command line.

    Parameters
    ----------
    names : list of str, optional
        `--encoder`, as often as it was given; None = the default.
    weights : list of str, optional
        `--weights`: `FILE` where there is one encoder, `ENCODER=FILE` where there are several.
    random_weights : int, optional
        Seed for those that are given no weights.
    dtype : str, optional
        Type that those on torch compute in.
    value_range : tuple of float, optional
        Fixed range of sample values, for `handcrafted` where it is among several.

    Returns
    -------
    tuple of EncoderChoice
        In that order.

    Raises
    ------
    ConfigError
        When weights are not there, or it is not clear whose they are.
    """
    from tilestream.pipelines.encoders import EncoderChoice, require_different

    named = [_alias(text) for text in names or [DEFAULT]]
    require_different([alias or name for alias, name in named])
    if value_range is not None and len(named) > 1 and DEFAULT not in [name for _, name in named]:
        raise ConfigError.of(
            "`--value-range`",
            got="several encoders",
            expected=f"`{DEFAULT}` among them, whose it would be",
            do="Leave it out.",
        )
    files = _owners([alias or name for alias, name in named], weights or [])
    choices = []
    for alias, name in named:
        params: dict[str, Any] = {} if alias is None else {"name": alias}
        if (alias or name) in files:
            params["weights"] = files[alias or name]
        elif random_weights is not None and name != DEFAULT:  # which has none
            params["random_weights"] = random_weights
        if dtype is not None and (len(named) == 1 or name != DEFAULT):
            params["dtype"] = dtype
        if value_range is not None and (len(named) == 1 or name == DEFAULT):
            params["value_range"] = list(value_range)
        choices.append(EncoderChoice(name=name, params=params))
    return tuple(choices)


def _alias(text: str) -> tuple[str | None, str]:
    """Return the name that `NAME=ENCODER` gives an encoder, and the encoder."""
    match = None if Path(text).exists() else _NAMED.fullmatch(text)
    return (match["name"], match["rest"]) if match else (None, text)


def _owners(names: list[str], weights: list[str]) -> dict[str, str]:
    """Return the weights by the name of their encoder, as paths that do not depend on the working folder."""
    from tilestream.models.encoders.download import is_download

    files: dict[str, str] = {}
    for text in weights:
        if names == [DEFAULT]:
            raise ConfigError.of(
                "`--weights`",
                got=f"`{text}` for `{DEFAULT}`, which has none",
                expected="an encoder that they belong to",
                do="Name it with --encoder, such as hipt or one of `tilestream encoders`, or leave this out.",
            )
        owner = next((name for name in names if text.startswith(f"{name}=")), None)
        if owner is None and (len(names) > 1 or (_NAMED.fullmatch(text) and not Path(text).exists())):
            raise ConfigError.of(
                "`--weights`",
                got=f"`{text}` for {len(names)} encoders" if len(names) > 1 else f"`{text}`, which is not there",
                expected=" or ".join(f"`{name}=FILE`" for name in names),
                do="Say whose weights these are, by the name that was given with --encoder.",
            )
        path = Path(text.removeprefix(f"{owner}=") if owner else text)
        owner = owner or names[0]
        if owner in files:
            raise ConfigError.of(
                "`--weights`",
                got=f"two for `{owner}`",
                expected="one for each encoder",
                do="Leave one of them out.",
            )
        if not path.exists() and not is_download(str(path)):
            raise ConfigError.of(
                "`--weights`",
                got=f"`{path}`, where nothing is",
                expected="a file of weights, a folder, or the word `download`",
                do="Check the path.",
            )
        files[owner] = str(path.absolute()) if path.exists() else str(path)
    return files


def require_encoders(config: EmbedConfig) -> None:
    """Refuse what would otherwise fail once an image: an encoder, its contract, super-tiles that do not fit.

    Parameters
    ----------
    config : EmbedConfig
        The run.

    Raises
    ------
    ConfigError
        With what is wrong.
    """
    from tilestream.grid import super_tile_edge
    from tilestream.pipelines.encoder import encoder_spec, require_output
    from tilestream.stream.work import make_stage

    for one in config.encoders:
        contract = make_stage(encoder_spec(one.name, one.params, tile_px=config.tile_px)).contract
        require_output(contract, "vector")
        tile_px, region_px = config.tile_px or contract.px, config.region_px or 1
        super_tile_edge(tile_px, region_px=region_px, super_tile_px=config.super_tile_px)
