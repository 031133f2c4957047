"""Options of `tilestream map` that no other command has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilestream.cli.options import CHOICES, require_choices
from tilestream.errors import ConfigError

if TYPE_CHECKING:
    from tilestream.pipelines.map_run import MapConfig

Stage = Annotated[
    str,
    typer.Option(
        "--stage",
        metavar="NAME|module:callable",
        show_default=False,
        help="What turns tiles into maps: gradient, structure, stain, local_entropy, or a callable of yours from "
        "(n, c, y, x) to (n, k, y, x).",
        rich_help_panel=CHOICES,
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        "--tile",
        metavar="PX",
        min=1,
        help="Edge of what counts of a tile, halo left out (default: what the stage takes less its halo).",
        rich_help_panel=CHOICES,
    ),
]
Halo = Annotated[
    int | None,
    typer.Option(
        "--halo",
        metavar="PX",
        min=0,
        help="Overlap around each tile (default: what the stage says, and an eighth of a tile more with --blend).",
        rich_help_panel=CHOICES,
    ),
]
Blend = Annotated[
    bool,
    typer.Option(
        "--blend",
        help="Feather neighbouring tiles over each other, for stages whose values depend on where a tile is cut.",
        rich_help_panel=CHOICES,
    ),
]
ToFile = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="cog|ome-tiff", show_default=False, help="Write each finished map as a file too, see `export`."
    ),
]


def map_config(*, invalid: list[str] | None = None, **options: Any) -> MapConfig:
    """Return the configuration of a run, its options checked as far as one can without an image.

    Parameters
    ----------
    invalid : list of str, optional
        Classes that are not valid, as `LAYER=CLASSES`.
    **options : object
        Fields of `MapConfig`.

    Returns
    -------
    MapConfig
        The configuration.

    Raises
    ------
    ConfigError
        When an option is not understood, there is no such stage or it gives no maps, or its tiles are used up by the
        halo or do not fit super-tiles.
    """
    from tilestream.grid import super_tile_edge
    from tilestream.pipelines.encoder import encoder_spec
    from tilestream.pipelines.export_form import TARGETS
    from tilestream.pipelines.map_image import tiles_for
    from tilestream.pipelines.map_run import MapConfig, stage_name
    from tilestream.sources.classes import parse_invalid
    from tilestream.stream.work import make_stage

    require_choices(options)
    config = MapConfig(invalid=parse_invalid(invalid or ()), **options)
    if config.to is not None and config.to not in TARGETS:
        raise ConfigError.of("`--to`", got=repr(config.to), expected=f"one of {', '.join(TARGETS)}", do="Choose one.")
    stage_name(config)
    contract = make_stage(encoder_spec(config.stage, config.stage_params)).contract
    tile_px, _ = tiles_for(contract, tile_px=config.tile_px, halo_px=config.halo_px, is_blended=config.blend)
    super_tile_edge(tile_px, super_tile_px=config.super_tile_px)
    return config
