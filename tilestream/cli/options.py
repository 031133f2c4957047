"""Options of the commands: the same word for the same thing everywhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilestream.errors import ConfigError

if TYPE_CHECKING:
    from tilestream.pipelines.embed import EmbedConfig
    from tilestream.types import Box

CHOICES = "What to read"
RUNNING = "How to run"


def parse_size(text: str) -> int:
    """Return a number of bytes.

    Parameters
    ----------
    text : str
        `2GiB`, `500 MB`, or a plain number of bytes.

    Returns
    -------
    int
        Bytes, above 0.

    Raises
    ------
    typer.BadParameter
        When it is not a size.
    """
    from dask.utils import parse_bytes

    try:
        size = int(parse_bytes(text)) if any(map(str.isdigit, text)) else 0  # a bare unit would be one of it
    except ValueError:
        size = 0
    if size <= 0:
        raise typer.BadParameter(f"got {text!r}, expected a size above 0 such as 2GiB or 500MB")
    return size


def parse_range(text: str) -> tuple[float, float]:
    """Return the two ends of a range of values.

    Parameters
    ----------
    text : str
        `LO,HI`.

    Returns
    -------
    tuple of float
        Low and high end.

    Raises
    ------
    typer.BadParameter
        When it is not two finite numbers in rising order.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise typer.BadParameter(f"got {text!r}, expected two numbers in rising order such as 0,10000")
    return low, high


Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="PATH", show_default=False, help="Slides, scenes, Zarr stores, URLs, or folders of them."),
]
Manifest = Annotated[
    str | None,
    typer.Option(
        "--manifest",
        metavar="CSV",
        help="Table with the columns path or url, and if wanted id, mpp, mask, label, bands: selects among the inputs "
        "and overrides what they say; without PATH it is the list of inputs. Also .txt (a URL a line) and .json (a "
        "list, or a STAC ItemCollection).",
        rich_help_panel=CHOICES,
    ),
]


def _named_folder(text: str) -> Path:
    """Refuse an empty name, as of a shell variable that is not set: results would be strewn over this folder."""
    if not text:
        raise typer.BadParameter("got an empty name, expected a folder; for this one write a dot")
    return Path(text)


Out = Annotated[
    Path,
    typer.Option("--out", metavar="DIR", parser=_named_folder, show_default=False, help="Folder of all outputs."),
]
OutPlace = Annotated[
    str,
    typer.Option("--out", metavar="DIR", show_default=False, help="Folder of all outputs, also s3://bucket/folder."),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="archive|portable|gdal|neural",
        help="Copy the stored tiles as they are (default where they can be copied), zstd, zstd without shards, or "
        "networks fitted to tiles: with loss, slow to make, the fewest bytes.",
        rich_help_panel=CHOICES,
    ),
]
Update = Annotated[
    list[str] | None,
    typer.Option(
        "--update",
        metavar="Y,X,HEIGHT,WIDTH",
        help="Store anew only what lies under this rectangle of level-0 pixels, in a store that is there; may be given "
        "again for another one.",
        rich_help_panel=RUNNING,
    ),
]
FillLevels = Annotated[
    bool,
    typer.Option(
        "--fill-levels", help="Give an archive the levels that its source does not have.", rich_help_panel=CHOICES
    ),
]
CheckOut = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder that the outputs would go to; nothing is written.")
]
DemoOut = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of all outputs.")]
Where = Annotated[
    str,
    typer.Option(
        "--where",
        metavar="tissue|all|PATH",
        help="Which tiles: those on tissue, all, or those in a mask image or a GeoJSON file; or patches that TRIDENT, "
        "CLAM, wsinfer or AtlasPatch has cut: an HDF5 file, or a folder with one for each slide.",
        rich_help_panel=CHOICES,
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        "--tile", metavar="PX", min=1, help="Edge of a tile (default: what the encoder takes).", rich_help_panel=CHOICES
    ),
]
Mpp = Annotated[
    float | None,
    typer.Option(
        "--mpp",
        metavar="X",
        help="Micrometres per pixel to work at (default: what the encoder was made for).",
        rich_help_panel=CHOICES,
    ),
]
Halo = Annotated[
    int, typer.Option("--halo", metavar="PX", min=0, help="Overlap around each tile.", rich_help_panel=CHOICES)
]
Region = Annotated[
    int | None,
    typer.Option(
        "--region",
        metavar="PX",
        min=1,
        help="Edge of the regions that tiles are pooled over, or that the region stage sees (default: what that was "
        "made for, else one super-tile).",
        rich_help_panel=CHOICES,
    ),
]
Invalid = Annotated[
    list[str] | None,
    typer.Option(
        "--invalid",
        metavar="LAYER=CLASSES",
        help="Classes of a scene whose pixels do not count, such as SCL=3,8,9,10, QA_PIXEL=cloud,snow or "
        "QA_PIXEL=bit3,bits8-9:3; may be given again for another layer.",
        rich_help_panel=CHOICES,
    ),
]
Decibels = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="power|amplitude",
        help="Radar in decibels: 10 log10 of power, or 20 log10 of amplitude.",
        rich_help_panel=CHOICES,
    ),
]
ValueRange = Annotated[
    Any,  # typer takes the type from the parser
    typer.Option(
        "--value-range",
        metavar="LO,HI",
        parser=parse_range,
        help="Fixed range of sample values that the encoder scales by (default: that of the sample type).",
        rich_help_panel=CHOICES,
    ),
]
SuperTile = Annotated[
    int | None,
    typer.Option(
        "--super-tile",
        metavar="PX",
        min=1,
        help="Edge of one unit of work (default: about 4096, whole tiles and regions).",
        rich_help_panel=RUNNING,
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="PROFILE",
        show_default=False,
        help="Where work runs: threads, threads:N, local:N (processes), gpus (a process each), slurm, kubernetes, "
        "tcp://host:port of a Dask scheduler, or a file (.yaml, .toml; `tilestream cluster slurm` prints one). "
        "Default: gpus for an encoder on torch where there are any, else threads.",
        rich_help_panel=RUNNING,
    ),
]
Memory = Annotated[
    Any,  # typer takes the type from the parser
    typer.Option(
        "--memory",
        metavar="SIZE",
        parser=parse_size,
        help="Most memory that one process may hold, such as 2GiB (default: half of what is free).",
        rich_help_panel=RUNNING,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option("--batch", metavar="N", min=1, help="Tiles that enter the encoder together.", rich_help_panel=RUNNING),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume/--no-resume",
        help="Go on from what an earlier run has finished, or compute it anew.",
        rich_help_panel=RUNNING,
    ),
]
TileCodec = Annotated[
    str,
    typer.Option(
        "--codec",
        metavar="NAME",
        help="How tiles are packed: deflate, zstd, lzw or none; with loss jpeg; or copy, which takes JPEG tiles as the "
        "source stores them.",
    ),
]
Quality = Annotated[int, typer.Option("--quality", metavar="Q", help="Of what is coded as JPEG here, 1 to 100.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Exit with 3 also when tiles were damaged.", rich_help_panel=RUNNING)
]
KeepIdentifying = Annotated[
    bool,
    typer.Option(
        "--keep-identifying",
        help="Copy label and macro images and all header fields too, which can identify a patient.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else there.")
]


def embed_config(**options: Any) -> EmbedConfig:
    """Return the configuration of a run, its options checked as far as one can without an image.

    Parameters
    ----------
    **options : object
        Fields of `EmbedConfig`, `invalid` as a list of `LAYER=CLASSES`.

    Returns
    -------
    EmbedConfig
        The configuration.

    Raises
    ------
    ConfigError
        When `where` is neither a word nor a file, `mpp` is not above 0, `invalid` or `decibels` is not understood,
        there is no such encoder, super-tiles cannot be cut into tiles and regions, or a budget is given with what
        needs tiles of one size.
    """
    from tilestream.cli.chainoptions import require_chain
    from tilestream.cli.encoding import require_encoders
    from tilestream.cli.tokenoptions import require_tokens
    from tilestream.pipelines.embed import EmbedConfig
    from tilestream.sources.classes import parse_invalid

    require_choices(options)
    config = EmbedConfig(**options | {"invalid": parse_invalid(options.get("invalid") or ())})
    require_tokens(config)
    require_encoders(config)
    require_chain(config)
    return config


def require_choices(options: dict[str, Any]) -> None:
    """Raise `ConfigError` for a `where`, `mpp` or `decibels` that no image can be planned with."""
    from tilestream.pipelines.where_folder import coordinates_folder
    from tilestream.sources.decibels import require_quantity

    if options.get("decibels") is not None:
        require_quantity(options["decibels"])
    where, mpp = options.get("where", "tissue"), options.get("mpp")
    if where not in ("tissue", "all") and not Path(where).is_file() and coordinates_folder(where) is None:
        raise ConfigError.of(
            "`--where`",
            got=f"`{where}`, which is no file",
            expected="`tissue`, `all`, a mask image or GeoJSON file, or coordinates of patches: a file or a folder",
            do="Check the path.",
        )
    if mpp is not None and not 0 < mpp < math.inf:
        raise ConfigError.of("`--mpp`", got=mpp, expected="micrometres per pixel above 0", do="Correct it.")


def parse_boxes(texts: list[str]) -> list[Box]:
    """Return the rectangles of an update.

    Parameters
    ----------
    texts : list of str
        `Y,X,HEIGHT,WIDTH` each.

    Returns
    -------
    list of Box
        Of level 0.

    Raises
    ------
    ConfigError
        When one is not four whole numbers.
    """
    from tilestream.types import Box

    boxes = []
    for text in texts:
        try:
            y, x, height, width = (int(part) for part in text.split(","))
            boxes.append(Box(y=y, x=x, height=height, width=width))
        except ValueError as error:
            raise ConfigError.of(
                "`--update`",
                got=f"`{text}`",
                expected="four whole numbers of level-0 pixels: first row, first column, height, width",
                do="Write them with commas, such as 4096,0,512,512.",
            ) from error
    return boxes
