"""The relevance that a user names in words, with what its terms need: files and models of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tilestream.errors import ConfigError
from tilestream.models.encoders.towers import image_only
from tilestream.models.headed import as_params, packed
from tilestream.models.scorerstage import record_of_scorer
from tilestream.pipelines.embedder import TileEmbedder
from tilestream.pipelines.encoder import encoder_spec
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pipelines.keys import is_remote
from tilestream.plan.marked import Marked
from tilestream.pyramid import Pyramid
from tilestream.relevance import Relevance, Term
from tilestream.relevance.grammar import Maker
from tilestream.relevance.normalise import Normalisation
from tilestream.relevance.query import Example, Place, Query
from tilestream.stream.stageterm import StageTerm
from tilestream.types import Box, StageSpec

BOX, FILE = "box=", "file="
OWN_UNITS = ("handcrafted",)
"""Encoders whose values have units of their own: queries standardise them by image."""
FINE_PX = 32
"""Edge of the tiles of these at a coarse level, where no other is asked for: 256 px of them would show no more than
where the tissue is."""


def relevance_of(
    text: str,
    *,
    encoders: Sequence[EncoderChoice] = (),
    where: str = "all",
    normalise: Normalisation = "robust",
) -> Relevance:
    """Return the relevance that `--relevance` names.

    Parameters
    ----------
    text : str
        Terms with their weights, see `tilestream.relevance.grammar`. `query:` is followed by what is looked for, see
        `examples_of`; `mask:` by `tissue` or the file of a mask or outlines; `scorer:` by the file of a trained scorer.
    encoders : sequence of EncoderChoice
        Encoders of the run, for terms that compare vectors: texts need one with a text tower, and the first that has
        one is taken; other queries take the first; a scorer of vectors takes the one that it was trained on.
    where : str
        Which tiles models are asked about: `all`, `tissue`, or the path of a mask or GeoJSON file.
    normalise : {"robust", "rank", "none"}
        How terms are made comparable.

    Returns
    -------
    Relevance
        Ready to be called with an image.

    Raises
    ------
    ConfigError
        When the text cannot be read, a name is unknown, or a term lacks what it needs.
    """
    return Relevance.of(text, makers=makers_of(encoders, where=where), normalise=normalise)


def makers_of(encoders: Sequence[EncoderChoice], *, where: str = "all") -> Mapping[str, Maker]:
    """Return what makes the terms that need more than an image, by name."""
    return {
        "query": partial(_query, encoders=encoders, where=where),
        "mask": _mask,
        "scorer": partial(_scorer, encoders=encoders, where=where),
    }


def _mask(argument: str | None) -> Term:
    file = "" if argument is None else argument.removeprefix("file://")
    if not file or not (file == "tissue" or is_remote(file) or Path(file).exists()):
        raise ConfigError.of(
            "term `mask`", got=f"`{file}`, which is not there" if file else "nothing behind it",
            expected="`mask:tissue`, or the path or URL of a mask image or GeoJSON file", do="Check the path.",
        )  # fmt: skip
    return Marked(where=file)


def examples_of(text: str) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return what a query wants and what it does not, of the text behind `query:`.

    Parameters
    ----------
    text : str
        Examples with `;` between them, those that are not wanted with `-` before them. Each is a text; `box=Y,X,H,W`, a
        place on the image itself in pixels of level 0, or `box=Y,X,H,W@IMAGE`, on another; or `file=PATH`, vectors
        (`.npy`, `.npz`, `.safetensors`, `.pt`), an outline on the image (`.geojson`), or else a picture.

    Returns
    -------
    wanted, unwanted : tuple
        Examples of a `Query`.

    Raises
    ------
    ConfigError
        When one of them is empty, or a box is not four numbers.

    Examples
    --------
    >>> examples_of("lymphocytes; -fat")
    (('lymphocytes',), ('fat',))
    """
    wanted: list[Example] = []
    unwanted: list[Example] = []
    for part in text.split(";"):
        side = unwanted if part.strip().startswith("-") else wanted
        side.append(_example(part.strip().removeprefix("-").strip(), text))
    return tuple(wanted), tuple(unwanted)


def scoring_spec(text: str, pyr: Pyramid, *, encoders: Sequence[EncoderChoice] = ()) -> StageSpec:
    """Return the stage that scores any tile of an image as a term does, for plans that look coarse to fine.

    Parameters
    ----------
    text : str
        One term of which a stage can be made: `query:…`, `scorer:FILE`, or the name of a stage of one output.
    pyr : Pyramid
        The image, on which boxes and outlines of a query lie.
    encoders : sequence of EncoderChoice
        As for `relevance_of`.

    Returns
    -------
    StageSpec
        Made for the image; it gives one number a tile, called `relevance`.

    Raises
    ------
    ConfigError
        When there are several terms, or one of which no stage can be made.
    """
    from tilestream.stream.work import make_stage

    relevance = relevance_of(text, encoders=encoders)
    term = next(iter(relevance.terms.values()))
    if len(relevance.terms) > 1 or not isinstance(term, Query | StageTerm):
        raise ConfigError.of(
            f"relevance `{text}` of single tiles",
            got="terms of a coarse picture" if len(relevance.terms) == 1 else f"{len(relevance.terms)} terms",
            expected="one term that a stage computes: `query:…` or `scorer:FILE`",
            do="Leave the others out, or plan from the coarse look alone.",
        )
    spec = _query_spec(term, pyr, encoders) if isinstance(term, Query) else term.spec
    named = StageSpec(target=spec.target, params={**spec.params, "name": "relevance"})
    return make_stage(named).for_image(pyr.info)


def _query_spec(term: Query, pyr: Pyramid, encoders: Sequence[EncoderChoice]) -> StageSpec:
    # the tiles of a walk are those of the encoder, which may be larger than those of a map
    assert isinstance(term.embedder, TileEmbedder)
    params = next(one.params for one in encoders if one.name == term.embedder.encoder)
    term = replace(term, embedder=replace(term.embedder, params=params))
    standard = term.standard(pyr) if term.standardise else None
    wanted, unwanted = term.sides(pyr, standard)
    assert isinstance(term.embedder, TileEmbedder)
    parts = {
        "encoder": as_params(term.embedder.spec),
        "wanted": packed(wanted),
        "unwanted": packed(unwanted),
        "dim": wanted.shape[1],
        "combine": term.combine,
    }
    if standard is not None:
        parts["standard"] = [packed(standard.mean), packed(standard.std)]
    return StageSpec(target="query", params=parts)


def _example(part: str, text: str) -> Example:
    if part.startswith(BOX):
        corners, _, image = part.removeprefix(BOX).partition("@")
        try:
            y, x, height, width = (int(number) for number in corners.split(","))
            box = Box(y=y, x=x, height=height, width=width)
        except ValueError as error:
            raise ConfigError.of(
                f"query `{text}`",
                got=f"`{part}`",
                expected="four whole numbers of level-0 pixels: first row, first column, height, width",
                do="Write them with commas, such as query:box=4096,0,512,512.",
            ) from error
        return Place(image=image, box=box) if image else box
    if part == FILE:
        raise ConfigError.of(f"query `{text}`", got=f"nothing behind `{FILE}`", expected="a path", do="Write it.")
    return Path(part.removeprefix(FILE)) if part.startswith(FILE) else part


def _query(argument: str | None, *, encoders: Sequence[EncoderChoice], where: str) -> Term:
    if argument is None:
        raise ConfigError.of(
            "term `query`",
            got="nothing behind it",
            expected="what to find",
            do="Write query:lymphocytes, query:box=Y,X,HEIGHT,WIDTH or query:file=PATH.",
        )
    wanted, unwanted = examples_of(argument)
    words = [one for one in (*wanted, *unwanted) if isinstance(one, str)]
    if not encoders:
        raise ConfigError.of(
            f"query `{argument}`",
            got="no encoder",
            expected="one that makes vectors of tiles" + (", and of texts" if words else ""),
            do="Name it with --encoder, such as open_clip:NAME, and its weights.",
        )
    embedders = [TileEmbedder(encoder=one.name, params=one.params, where=where) for one in encoders]
    if not any(words) or any(not word for word in words):
        own_units, first = encoders[0].name in OWN_UNITS, embedders[0]
        if own_units:
            first = replace(first, params={"tile_px": FINE_PX, **first.params})
        return Query(embedder=first, wanted=wanted, unwanted=unwanted, standardise=own_units)
    for embedder in embedders:
        if embedder.has_texts:
            embedder.texts(words)  # all at once, and what is wrong with the tower is told before an image is open
            return Query(embedder=embedder, wanted=wanted, unwanted=unwanted)
    raise image_only(embedders[0].encoder, words)


def _scorer(argument: str | None, *, encoders: Sequence[EncoderChoice], where: str) -> Term:
    if argument is None:
        raise ConfigError.of(
            "term `scorer`",
            got="no file",
            expected="what `tilestream train scorer` has written",
            do="Write scorer:FILE.",
        )
    record = record_of_scorer(argument)
    params: dict[str, object] = {"weights": str(Path(argument).absolute())}
    if record.takes == "vectors":
        params["encoder"] = as_params(_encoder_of(argument, record.encoder, record.features, encoders))
    spec = StageSpec(target="scorer", params=params)
    return StageTerm(spec=spec, name="scorer", reduce=record.downsample, mpp=record.mpp, where=where, absolute=True)


def _encoder_of(
    file: str, name: str | None, features: Mapping[str, object], encoders: Sequence[EncoderChoice]
) -> StageSpec:
    """Return the encoder among those of a run whose vectors a scorer was trained on."""
    from tilestream.stream.work import make_stage

    weights = features.get("weights")
    for one in encoders or (EncoderChoice(name="handcrafted"),):
        spec = encoder_spec(one.name, one.params)
        contract = make_stage(spec).contract
        if name in (None, contract.name) and weights in (None, contract.weights):
            return spec
    raise ConfigError.of(
        f"scorer `{file}`",
        got=f"encoders {[one.name for one in encoders]}" if encoders else "no encoder",
        expected=f"`{name}`" + (f" with weights {weights}" if weights else "") + ", whose vectors it was trained on",
        do=f"Name it with --encoder {name}, and its weights.",
    )
