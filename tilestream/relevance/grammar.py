r"""Terms and weights as text: what `--relevance` takes.

    terms     term {"," term}
    term      name [":" argument] [":" weight]
    name      `entropy`, `gradient`, `residual`, `itti`; `module:callable`; what the caller makes: `query`, `mask`, …
    argument  text up to the next comma that no number follows, or any text in " or ', with \ before such a sign inside
    weight    a number

`entropy`; `entropy:0.5,residual:0.25`; `query:"mitoses, atypical":0.5,entropy`; `mask:tissue.geojson`;
`query:box=0,0,512,512` (shells take quotes away, and no name begins with a digit); `mypackage.scores:vessels:2`. Where
no term has a weight, they are those of `Relevance`; where some have one, that of the others is 1. What follows the last
colon of a term is its weight where it is a number, so an argument that ends with `:` and a number is put in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from tilestream.errors import ConfigError
from tilestream.registry import RELEVANCE_TERMS, resolve, unknown_name
from tilestream.relevance.term import Term

Maker: TypeAlias = Callable[[str | None], Term]
"""Makes a term of its argument, None where it has none."""

GROUP = "tilestream.relevance_terms"
"""Entry points of other packages."""

NEEDING = "mask", "query", "scorer"
"""Terms that need a file or a model, which whoever wires layers together makes."""

_SHELL = """Words with commas need quotes that the shell leaves: 'query:"a, b"'."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NUMBER_NEXT = re.compile(r",\s*[+-]?\d")
_QUOTES = "\"'"


@dataclass(frozen=True, kw_only=True)
class TermText:
    """A term as it was written."""

    name: str
    """What stands before the first colon."""
    argument: str | None = None
    """What stands behind it, without quotes; None where nothing does."""
    weight: float | None = None
    """Its weight; None where none is given."""

    @property
    def text(self) -> str:
        """Return name and argument."""
        return self.name if self.argument is None else f"{self.name}:{self.argument}"


def parse_terms(text: str) -> tuple[TermText, ...]:
    """Return the terms that a text names, without a look at whether there are such.

    Parameters
    ----------
    text : str
        See the top of this file.

    Returns
    -------
    tuple of TermText
        In the order of the text.

    Raises
    ------
    ConfigError
        When a term is empty, a quote is left open or something follows one, or a term is there twice.

    Examples
    --------
    >>> parse_terms('entropy:0.5')
    (TermText(name='entropy', argument=None, weight=0.5),)
    """
    found = tuple(_term(fields, text) for fields in _fields(text))
    for place, one in enumerate(found):
        if one.text in {other.text for other in found[:place]}:
            raise _bad(text, f"`{one.text}` twice", "each term once", "Add up their weights.")
    return found


def terms_of(text: str, makers: Mapping[str, Maker]) -> tuple[dict[str, Term], dict[str, float] | None]:
    """Return the terms that a text names by name, and their weights.

    Parameters
    ----------
    text : str
        See the top of this file.
    makers : Mapping
        What makes terms that need more than the image, by name.

    Returns
    -------
    terms : dict
        By name; by name and argument where several have one name, and those of modules.
    weights : dict or None
        By the same names; None where none is given.

    Raises
    ------
    ConfigError
        When the text cannot be read, a name is unknown, or a term has an argument and takes none.
    """
    parsed = parse_terms(text)
    names = [one.name for one in parsed]
    keys = [one.name if one.name in makers and names.count(one.name) == 1 else one.text for one in parsed]
    terms = {key: _made(one, makers) for key, one in zip(keys, parsed, strict=True)}
    if all(one.weight is None for one in parsed):
        return terms, None
    return terms, {key: 1.0 if one.weight is None else one.weight for key, one in zip(keys, parsed, strict=True)}


def _made(term: TermText, makers: Mapping[str, Maker]) -> Term:
    if term.name in makers:
        return makers[term.name](term.argument)
    if term.name in NEEDING:
        raise ConfigError.of(
            f"term `{term.name}`", got="nothing that makes it", expected=f"a maker of `{term.name}`",
            do=f"Give the term itself: `Relevance(terms={{'{term.name}': …}})`; the command line makes it by itself.",
        )  # fmt: skip
    if term.name in RELEVANCE_TERMS and term.argument is not None:
        raise ConfigError.of(
            f"term `{term.name}`", got=f"`{term.argument}` behind it", expected="nothing, or a weight: a number",
            do=f"Write `{term.name}` or `{term.name}:0.5`.",
        )  # fmt: skip
    if term.argument is not None and not all(part.isidentifier() for part in term.name.split(".")):
        raise unknown_name(term.name, sorted({*RELEVANCE_TERMS, *makers}))
    try:
        found = resolve(term.text, table=RELEVANCE_TERMS, group=GROUP)
    except ConfigError as error:
        cause = error.__cause__
        no_module = isinstance(cause, ModuleNotFoundError) and cause.name == term.name
        is_slip = no_module if term.argument is not None else cause is None
        if "." in term.name or not is_slip:
            raise
        # `entrpy:x` may be a module, but is more likely a slip
        raise unknown_name(term.name, sorted({*RELEVANCE_TERMS, *makers}), hint=_SHELL) from error
    made: Term = found() if isinstance(found, type) else found
    return made


def _term(fields: list[tuple[str, bool]], text: str) -> TermText:
    """Return a term of its fields between colons, each with whether it was in quotes."""
    (name, quoted), *rest = fields
    if quoted or not name:
        got = f"quotes around `{name}`" if quoted else "a term without a name"
        raise _bad(text, got, "`name`, `name:argument` or `name:argument:weight`", "Begin a term with its name.")
    weight = None
    if rest and not rest[-1][1] and _NUMBER.fullmatch(rest[-1][0]):
        weight = float(rest.pop()[0])
    argument = ":".join(part for part, _ in rest) if rest else None
    if argument == "":
        do = f"Write it behind `{name}:`, or leave the colon out."
        raise _bad(text, f"nothing behind `{name}:`", "an argument or a weight", do)
    return TermText(name=name, argument=argument, weight=weight)


def _fields(text: str) -> list[list[tuple[str, bool]]]:
    """Return the fields of each term: split at commas, then at colons, quotes taken off."""
    terms: list[list[tuple[str, bool]]] = [[]]
    at = 0
    while True:
        field, quoted, at = _field(text, at)
        terms[-1].append((field, quoted))
        if at >= len(text):
            return terms
        if text[at] == ",":
            terms.append([])
        at += 1


def _field(text: str, at: int) -> tuple[str, bool, int]:
    """Return the field that begins at a place, whether it is in quotes, and the place behind it."""
    while at < len(text) and text[at].isspace():
        at += 1
    if at < len(text) and text[at] in _QUOTES:
        return _quoted(text, at)
    end = at
    while end < len(text) and text[end] != ":" and (text[end] != "," or _NUMBER_NEXT.match(text, end)):
        end += 1
    return text[at:end].strip(), False, end


def _quoted(text: str, at: int) -> tuple[str, bool, int]:
    sign, found, end = text[at], [], at + 1
    while end < len(text) and text[end] != sign:
        end += text[end : end + 2] == f"\\{sign}"
        found.append(text[end])
        end += 1
    if end >= len(text):
        raise _bad(text, f"a {sign} without its end", "quotes around a whole argument", f"Put a {sign} behind it.")
    behind = end + 1
    while behind < len(text) and text[behind].isspace():
        behind += 1
    if behind < len(text) and text[behind] not in ",:":
        got = f"`{text[behind:]}` behind a quote"
        raise _bad(text, got, "a comma, or a colon and a weight", f"Put all of the argument between {sign} and {sign}.")
    return "".join(found), True, behind


def _bad(text: str, got: str, expected: str, do: str) -> ConfigError:
    return ConfigError.of(f"relevance `{text}`", got=got, expected=expected, do=do)
