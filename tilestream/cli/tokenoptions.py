"""Options that let a run read less: a budget of tokens, and what decides where it is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tilestream.errors import ConfigError

if TYPE_CHECKING:
    from tilestream.pipelines.embed import EmbedConfig
    from tilestream.pipelines.tokens import TokenChoice

PANEL = "Reading less"

TERMS = (
    "entropy, gradient, residual, itti, mask:FILE (mask:tissue), query:WHAT, scorer:FILE (see `train scorer`) "
    "or module:callable, with weights behind a colon. WHAT is words, for an encoder that knows texts; "
    "box=Y,X,HEIGHT,WIDTH, a place that shows it in pixels of level 0 (@IMAGE behind it: on that one); or file=PATH, a "
    "picture, vectors (.npy) or an outline (.geojson). Several with ; between them, what is not wanted with - before "
    """it, and words with a comma in quotes of their own: 'query:"mitoses, atypical; -fat"'."""
)
"""What `--relevance` takes, behind which one it takes by default."""

Budget = Annotated[
    int | None,
    typer.Option(
        "--budget",
        metavar="N",
        help="Read at most N tiles of each image: fine ones where it matters, coarser ones that cover more elsewhere.",
        rich_help_panel=PANEL,
    ),
]
RelevanceTerms = Annotated[
    str | None,
    typer.Option(
        "--relevance",
        metavar="TERM[:WEIGHT],…",
        help=f"What matters, with --budget; entropy where nothing is said. One or several of {TERMS}",
        rich_help_panel=PANEL,
    ),
]
FoveaPoints = Annotated[
    list[str] | None,
    typer.Option(
        "--fovea",
        metavar="Y,X[,E0]",
        help="Where to look closely, with --budget: a point of level 0, and the radius of the fovea in its pixels "
        "(default: eight tiles). May be given again for another point.",
        rich_help_panel=PANEL,
    ),
]
TokenLevels = Annotated[
    str | None,
    typer.Option(
        "--levels",
        metavar="0,2,…",
        help="Which levels of tiles may be read, with --budget, each half as fine as the one before (default: those "
        "that the image stores, and coarser ones); a single one takes the N tiles of it that matter most, and nothing "
        "else.",
        rich_help_panel=PANEL,
    ),
]


Progressive = Annotated[
    bool,
    typer.Option(
        "--progressive",
        help="With --budget, decide level by level: coarse tiles are read, those that score highest are read more "
        "finely, and N counts all that are read. --relevance is then one term that scores a tile: entropy, "
        "query:WHAT or scorer:FILE.",
        rich_help_panel=PANEL,
    ),
]


def token_choice(
    budget: int | None,
    *,
    relevance: str | None = None,
    fovea: list[str] | None = None,
    levels: str | None = None,
    progressive: bool = False,
) -> TokenChoice | None:
    """Return how a run reads less, as it was said on the command line.

    Parameters
    ----------
    budget : int, optional
        `--budget`.
    relevance : str, optional
        `--relevance`.
    fovea : list of str, optional
        `--fovea`, as often as it was given.
    levels : str, optional
        `--levels`.
    progressive : bool
        `--progressive`.

    Returns
    -------
    TokenChoice or None
        None without a budget.

    Raises
    ------
    ConfigError
        When something cannot be understood, or needs a budget that is not there.
    """
    from tilestream.pipelines.tokens import TokenChoice

    given = {"--relevance": relevance, "--fovea": fovea, "--levels": levels, "--progressive": progressive}
    if budget is None:
        for name, value in given.items():
            if value:
                raise ConfigError.of(
                    f"`{name}`",
                    got="no --budget",
                    expected="a budget that it decides how to spend",
                    do="Give --budget N, the tiles that are to be read of an image; or leave it out.",
                )
        return None
    if budget < 1:
        raise ConfigError.of("`--budget`", got=budget, expected="at least one tile", do="Give more.")
    if progressive and fovea:
        raise ConfigError.of(
            "`--fovea`",
            got="--progressive",
            expected="a plan that is made beforehand: a walk is led by what it sees",
            do="Leave one of them out.",
        )
    points, e0_px = _fixations(fovea or [])
    if points:
        from tilestream.fovea import Fovea

        Fovea(fixations_yx=points, e0_px=1.0 if e0_px is None else e0_px)  # refuses what is wrong for any image
    chosen = None if levels is None else _levels(levels)
    return TokenChoice(
        budget=budget,
        relevance=relevance,
        fixations_yx=points,
        e0_px=e0_px,
        levels=chosen,
        is_progressive=progressive,
    )


def _fixations(texts: list[str]) -> tuple[tuple[tuple[float, float], ...], float | None]:
    """Return the points, and the one radius that any of them states."""
    points, radii = [], set()
    for text in texts:
        try:
            y, x, *rest = (float(part) for part in text.split(","))
            if len(rest) > 1:
                raise ValueError
        except ValueError as error:
            raise ConfigError.of(
                "`--fovea`",
                got=f"`{text}`",
                expected="`Y,X` or `Y,X,E0` in pixels of level 0",
                do="Write numbers with commas, such as 20000,31000 or 20000,31000,2048.",
            ) from error
        points.append((y, x))
        radii.update(rest)
    if len(radii) > 1:
        raise ConfigError.of(
            "`--fovea`",
            got=f"radii of {' and '.join(f'{radius:g}' for radius in sorted(radii))} px",
            expected="one for all points",
            do="Give the same with each, or with one of them.",
        )
    return tuple(points), next(iter(radii), None)


def _levels(text: str) -> tuple[int, ...]:
    from tilestream.plan.ground import listed_levels

    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError.of(
            "`--levels`", got=f"`{text}`", expected="whole numbers with commas", do="Write them as 0,2,4."
        ) from error
    return listed_levels(found)[0]


def require_tokens(config: EmbedConfig) -> None:
    """Refuse what a budget cannot be combined with, before an image is open.

    Parameters
    ----------
    config : EmbedConfig
        The run.

    Raises
    ------
    ConfigError
        With the option, and why.
    """
    if config.tokens is None:
        return
    from tilestream.pipelines.relevance import relevance_of
    from tilestream.pipelines.tokens import require_areas

    require_areas(config.where)
    if config.tokens.is_progressive:
        from tilestream.pipelines.walks import require_scorer

        require_scorer(config.tokens.terms or "", encoders=config.encoders)
    elif config.tokens.terms is not None:
        relevance_of(config.tokens.terms, encoders=config.encoders)
    no_grid = "tiles of several sizes lie on no grid"
    for option, is_given, why in (
        ("--halo", config.halo_px, "a halo is of one size, and tiles under a budget are of several"),
        ("--region", config.region_px is not None, no_grid),
        ("--whole-regions", config.chain.whole_regions, no_grid),
    ):
        if is_given:
            raise ConfigError.of(f"`{option}`", got="a budget", expected=f"none with it: {why}", do="Leave one out.")
