"""Options that name the stages above the tiles: of regions, and of the slide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilestream.errors import ConfigError

if TYPE_CHECKING:
    from tilestream.pipelines.chain import ChainChoice
    from tilestream.pipelines.embed import EmbedConfig

PANEL = "From tiles to regions and slides"

RegionStage = Annotated[
    str | None,
    typer.Option(
        "--region-stage",
        metavar="NAME|module:callable",
        help="What turns the vectors of a region's tiles, in their places, into one: vit4k, vit, "
        "windowed or module:callable (default: vit4k for hipt, for others mean).",
        rich_help_panel=PANEL,
    ),
]
RegionWeights = Annotated[
    str | None,
    typer.Option(
        "--weights-4k", metavar="FILE", help="Weights of the region stage, such as HIPT's ViT4K.", rich_help_panel=PANEL
    ),
]
SlideStage = Annotated[
    str | None,
    typer.Option(
        "--slide-stage",
        metavar="NAME[=FILE]",
        help="What turns regions, or tiles where there is no region stage, into the vector of the slide (default: "
        "mean): head=FILE of `tilestream train head`; or abmil, simlp, transformer, hipt or module:callable, with its "
        "weights.",
        rich_help_panel=PANEL,
    ),
]
WholeRegions = Annotated[
    bool | None,
    typer.Option(
        "--whole-regions/--no-whole-regions",
        help="Take every tile of a region of which enough is selected, and none of the others, instead of choosing "
        "tile by tile (default: as the region stage was trained; hipt takes whole regions).",
        show_default=False,
        rich_help_panel=PANEL,
    ),
]


def chain_choice(
    region: str | None,
    slide: str | None,
    *,
    weights: str | None = None,
    seed: int | None = None,
    whole_regions: bool | None = None,
) -> ChainChoice:
    """Return the stages above the tiles as they were named on the command line.

    Parameters
    ----------
    region : str, optional
        `--region-stage`.
    slide : str, optional
        `--slide-stage`, perhaps with a file of weights after `=`.
    weights : str, optional
        `--weights-4k`.
    seed : int, optional
        `--random-weights`, for stages that are given no weights.
    whole_regions : bool, optional
        `--whole-regions` or `--no-whole-regions`.

    Returns
    -------
    ChainChoice
        With paths that do not depend on the working folder.

    Raises
    ------
    ConfigError
        When weights are not there.
    """
    from tilestream.pipelines.chain import ChainChoice

    name, equals, slide_weights = (slide or "").partition("=")
    return ChainChoice(
        region=region,
        slide=name or None,
        region_params=_weights("--weights-4k", weights),
        slide_params=_weights("--slide-stage", slide_weights if equals else None),
        random_weights=seed,
        whole_regions=whole_regions,
    )


def require_chain(config: EmbedConfig) -> None:
    """Refuse what would otherwise fail once an image: a stage that is not there or does not take what it gets.

    Parameters
    ----------
    config : EmbedConfig
        The run.

    Raises
    ------
    ConfigError
        When a stage cannot be made, or there is none that given weights belong to.
    StageError
        When one does not take the vectors that the encoder says it gives.
    """
    from tilestream.grid import super_tile_edge
    from tilestream.pipelines.chain import choose_chains
    from tilestream.pipelines.encoder import encoder_spec
    from tilestream.stream.work import make_stage

    specs = [encoder_spec(one.name, one.params, tile_px=config.tile_px) for one in config.encoders]
    made = {stage.contract.name: (spec, stage.contract) for spec in specs for stage in [make_stage(spec)]}
    tile_px = config.tile_px or next(iter(made.values()))[1].px
    tiles = {name: spec for name, (spec, _) in made.items()}
    if (config.region_px or 0) % tile_px:
        raise ConfigError.of(
            "`--region`",
            got=f"{config.region_px} px",
            expected=f"a multiple of the tile, {tile_px} px",
            do=f"Give {max(1, round((config.region_px or 0) / tile_px)) * tile_px}, or leave it out.",
        )
    chains = choose_chains(tiles, config.chain, tile_px=tile_px, region_px=config.region_px)
    with_regions = [name for name, one in chains.each.items() if one.region is not None]
    if config.tokens is not None and with_regions:
        raise ConfigError.of(
            f"the region stage of {', '.join(f'`{name}`' for name in with_regions)}",
            got="--budget: tiles of several sizes, which lie on no common grid",
            expected="tiles side by side, of which it takes squares",
            do="Give --region-stage mean for the mean of all tiles, or leave out --budget.",
        )
    region_px = chains.region_px or 1
    edge_px = super_tile_edge(tile_px, region_px=region_px, super_tile_px=config.super_tile_px)
    cells = (chains.region_px or edge_px) // tile_px
    for name, (_, contract) in made.items():
        if contract.dim is not None and name in chains.each and cells:
            chains.only(name).bind({name: contract.dim}, cells=cells)


def _weights(option: str, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if not Path(text).is_file():
        raise ConfigError.of(
            f"`{option}`", got=f"`{text}`, which is no file", expected="a file of weights", do="Check the path."
        )
    return {"weights": str(Path(text).absolute())}
